"""A folder on a local disk: synced in the right order, full, interrupted, and with links planted in it."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from service.errors import AdapterIncompatible, AdapterNotFound, StoreFull, Unavailable
from service.store.disk import Disk
from service.store.files import ObjectStore
from service.store.layout import CONFIG, MANIFEST, WEIGHTS
from service.store.selector import Ref
from tests.store.test_files import FILES, ONE, TWO, bundle, paths

BIG = b"x" * 5000


class Syncs:
    """fsync that notes what it was called for, and fails from its ``last`` call on with ``number``."""

    def __init__(self, last: int | None = None, number: int = errno.EIO) -> None:
        self.last, self.number = last, number
        self.synced: list[Path] = []

    def __call__(self, descriptor: int) -> None:
        self.synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        if self.last is not None and len(self.synced) >= self.last:
            raise OSError(self.number, os.strerror(self.number))
        os.fsync(descriptor)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder; links as links."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """As if the disk were full: no file can become larger; Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_are_synced_before_the_manifest_and_every_folder_up_to_the_root_after_it(root: Path) -> None:
    syncs = Syncs()
    store = ObjectStore(Disk(root, syncs))
    assert syncs.synced == [root.parent]
    syncs.synced.clear()
    store.publish(ONE, bundle())
    version = root / "mood/1"
    folders = [version, root / "mood", root]
    staged = [version / f".incoming-{file}" for file in FILES if file != MANIFEST]
    assert syncs.synced == [*staged, *folders, version / f".incoming-{MANIFEST}", *folders]
    syncs.synced.clear()
    store.save_state("mood", {})
    assert syncs.synced == [root / "mood/.incoming-registry.json", root / "mood", root]
    syncs.synced.clear()
    store.delete(ONE)
    assert syncs.synced == [version, root / "mood"]


def test_wherever_syncing_fails_the_version_is_whole_or_not_there(root: Path) -> None:
    store = ObjectStore(Disk(root))
    for last in count(1):
        syncs = Syncs(last)
        with suppress(Unavailable):
            ObjectStore(Disk(root, syncs)).publish(ONE, bundle(b"first"))
        with suppress(AdapterNotFound):
            assert store.versions("mood") == [] or store.read(ONE).weights == b"first"
        store.publish(ONE, bundle(b"second"))
        assert store.read(ONE).weights == b"second" and set(store.objects.files("mood")) == paths(ONE)
        store.delete(ONE)
        if len(syncs.synced) < last:
            break
    assert last == 2 * len(FILES)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_says_so_when_it_syncs_is_full(root: Path, number: int) -> None:
    ObjectStore(Disk(root)).publish(ONE, bundle())
    before = tree(root)
    with pytest.raises(StoreFull, match="nothing was changed"):
        ObjectStore(Disk(root, Syncs(3, number))).publish(TWO, bundle())
    assert tree(root) == before


@pytest.mark.parametrize("size", [0, 100, 4999])
def test_a_full_disk_changes_nothing_and_is_forgotten_when_there_is_space(root: Path, size: int) -> None:
    store = ObjectStore(Disk(root))
    store.save_state("mood", {"deleted": []})
    before = tree(root)
    with file_size_limit(size):
        with pytest.raises(StoreFull, match="nothing was changed"):
            store.publish(ONE, bundle(BIG))
        with pytest.raises(StoreFull, match="nothing was changed"):
            store.save_state("mood", {"deleted": list(range(10000))})
    assert tree(root) == before
    store.publish(ONE, bundle(BIG))
    assert store.read(ONE).weights == BIG


def test_files_that_cannot_be_opened_now_are_no_fault_of_the_adapter(root: Path) -> None:
    store = ObjectStore(Disk(root))
    store.publish(ONE, bundle())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for call in (
            store.names,
            store.check,
            lambda: store.versions("mood"),
            lambda: store.read(ONE),
            lambda: store.state("mood"),
        ):
            with pytest.raises(Unavailable, match="cannot be read now"):
                call()
        with pytest.raises(Unavailable, match="cannot be changed now"):
            store.publish(TWO, bundle())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.versions("mood") == [1] and store.read(ONE).weights == bundle().weights


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that holds a complete adapter of somebody else."""
    ObjectStore(Disk(tmp_path / "outside")).publish(ONE, bundle(b"somebody else's"))
    return tmp_path / "outside"


def test_a_link_in_an_adapters_place_is_not_followed(root: Path, outside: Path) -> None:
    store, before = ObjectStore(Disk(root)), tree(outside)
    (root / "mood").symlink_to(outside / "mood")
    assert store.names() == []
    for read in (store.read, store.manifest):
        with pytest.raises(AdapterIncompatible, match="mood of adapter version mood:1 is a symbolic link, which is not followed"):
            read(ONE)
    for call in (
        lambda: store.versions("mood"), lambda: store.publish(TWO, bundle()), lambda: store.publish(ONE, bundle()),
        lambda: store.delete(ONE), lambda: store.save_state("mood", {}), lambda: store.sweep("mood"),
    ):  # fmt: skip
        with pytest.raises(Unavailable):
            call()
    assert tree(outside) == before


def test_a_link_in_a_versions_place_is_not_followed_but_replaced(root: Path, outside: Path) -> None:
    store, before = ObjectStore(Disk(root)), tree(outside)
    changes: list[Callable[[], None]] = [
        lambda: store.delete(ONE), lambda: store.sweep("mood"), lambda: store.publish(ONE, bundle()),
    ]  # fmt: skip
    for change in changes:
        (root / "mood").mkdir(exist_ok=True)
        (root / "mood/1").symlink_to(outside / "mood/1")
        assert store.versions("mood") == []
        with pytest.raises(AdapterIncompatible, match="1 of adapter version mood:1 is a symbolic link"):
            store.read(ONE)
        change()
        assert not (root / "mood/1").is_symlink() and tree(outside) == before
    assert store.read(ONE).weights == bundle().weights


@pytest.mark.parametrize("file", FILES)
def test_a_link_in_a_files_place_is_not_followed_but_replaced(root: Path, outside: Path, file: str) -> None:
    store, before = ObjectStore(Disk(root)), tree(outside)
    store.publish(ONE, bundle(b"somebody else's"))
    changes: list[Callable[[], None]] = [lambda: store.delete(ONE), lambda: store.publish(ONE, bundle())]
    for change in changes:
        (root / "mood/1").mkdir(parents=True, exist_ok=True)
        (root / "mood/1" / file).unlink(missing_ok=True)
        (root / "mood/1" / file).symlink_to(outside / "mood/1" / file)
        with pytest.raises((AdapterIncompatible, AdapterNotFound)):
            store.read(ONE)
        change()
        assert tree(outside) == before
    assert store.read(ONE).weights == bundle().weights


def test_a_link_in_the_place_of_a_file_yet_to_be_written_is_not_followed(root: Path, outside: Path) -> None:
    store, before = ObjectStore(Disk(root)), tree(outside)
    (root / "mood/1").mkdir(parents=True)
    for path in ("mood/1/.incoming-manifest.json", "mood/.incoming-registry.json", "mood/registry.json"):
        (root / path).symlink_to(outside / "mood/1" / MANIFEST)
    with pytest.raises(Unavailable):
        store.state("mood")
    store.save_state("mood", {"deleted": [1]})
    store.publish(ONE, bundle())
    assert tree(outside) == before and store.state("mood") == {"deleted": [1]}
    assert not [path for path in root.rglob("*") if path.is_symlink()]


def test_a_root_that_is_a_link_is_a_users_choice(root: Path, outside: Path) -> None:
    root.symlink_to(outside)
    assert ObjectStore(Disk(root)).read(ONE).weights == b"somebody else's"


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_folder_or_a_pipe_in_a_files_place_is_refused_at_once(root: Path, file: str) -> None:
    store = ObjectStore(Disk(root))
    store.publish(ONE, bundle())
    for plant in (Path.mkdir, os.mkfifo):
        (root / "mood/1" / file).unlink()
        plant(root / "mood/1" / file)
        with pytest.raises(AdapterIncompatible, match=file):
            store.read(ONE)
        if plant is Path.mkdir:
            (root / "mood/1" / file).rmdir()
            (root / "mood/1" / file).touch()


def test_a_listing_looks_into_no_folder(root: Path) -> None:
    store = ObjectStore(Disk(root))
    for number in range(50):
        (root / f"a{number:02}").mkdir(mode=0)
    (root / "registry.db").touch()
    assert store.names() == [f"a{number:02}" for number in range(50)]


def test_a_version_in_memory_does_not_change_with_its_files(root: Path) -> None:
    store = ObjectStore(Disk(root))
    store.publish(Ref("mood", 1), bundle())
    found = store.read(ONE)
    (root / "mood/1" / WEIGHTS).write_bytes(b"")
    assert bytes(found.weights) == bundle().weights
