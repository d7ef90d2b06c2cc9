"""Whatever keeps the files, a version is whole or not there: the same tests on a disk and in a bucket."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from service.errors import AdapterIncompatible, AdapterNotFound, InvalidInput, Unavailable, VersionConflict
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest
from service.store.files import ObjectStore
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS
from service.store.objects import Objects
from service.store.reconcile import Store
from service.store.selector import Ref
from service.store.weights import Data
from tests.support.images import card_images

ONE, TWO = Ref("mood", 1), Ref("mood", 2)
FILES = (CONFIG, WEIGHTS, CARD, *IMAGES, MANIFEST)


def bundle(weights: bytes = b"weights " * 40) -> Bundle:
    manifest = Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes"))
    return Bundle.assemble({"r": 8, "target_modules": ["b", "a"]}, weights, manifest, "# card", card_images())


def contents(found: Bundle) -> dict[str, bytes]:
    return {name: bytes(data) for name, data in found.contents.items()}


def paths(ref: Ref) -> set[str]:
    return {f"{ref.name}/{ref.version}/{file}" for file in FILES}


class Cut:
    """Objects that are cut off at the ``last`` change: from then on nothing works any more, no clean-up either.

    That change itself is not made, made by half, or made without anybody learning of it.
    """

    def __init__(self, objects: Objects, last: int, how: str) -> None:
        self.objects, self.last, self.how = objects, last, how
        self.done = 0

    def names(self) -> list[str]:
        self._look()
        return self.objects.names()

    def files(self, folder: str) -> list[str]:
        self._look()
        return self.objects.files(folder)

    def get(self, path: str) -> Data:
        self._look()
        return self.objects.get(path)

    def check(self) -> None:
        self._look()

    def create(self, path: str, data: Data) -> None:
        self._change(lambda: self.objects.create(path, data))

    def replace(self, path: str, data: Data) -> None:
        self._change(lambda: self.objects.replace(path, data))

    def remove(self, paths: Sequence[str]) -> None:
        self._change(lambda: self.objects.remove(paths), lambda: self.objects.remove(paths[: len(paths) // 2]))

    def settle(self, folder: str) -> None:
        self._change(lambda: self.objects.settle(folder))

    @property
    def is_off(self) -> bool:
        return self.done >= self.last

    def _look(self) -> None:
        if self.is_off:
            raise OSError(errno.EIO, "cut off")

    def _change(self, whole: Callable[[], None], half: Callable[[], None] = lambda: None) -> None:
        self._look()
        self.done += 1
        if not self.is_off or self.how == "unheard":
            whole()
        elif self.how == "half":
            half()
        self._look()


class Rival(Cut):
    """Objects among which somebody else writes the same file first."""

    def create(self, path: str, data: Data) -> None:
        self.objects.create(path, b"the rival's")
        super().create(path, data)


def test_what_is_published_is_read_again(store: ObjectStore) -> None:
    kept: Store = store
    for ref in (ONE, TWO, Ref("a.b-c_", 3)):
        kept.publish(ref, bundle(f"weights of {ref}".encode()))
    assert kept.names() == ["a.b-c_", "mood"] and kept.versions("mood") == [1, 2] and kept.versions("a.b-c_") == [3]
    found = kept.read(TWO)
    assert contents(found) == contents(bundle(b"weights of mood:2")) | {MANIFEST: contents(found)[MANIFEST]}
    assert kept.manifest(TWO) == found.manifest
    assert set(store.objects.files("mood")) == paths(ONE) | paths(TWO)
    kept.check()


def test_weights_lie_in_memory_on_which_tensors_are_made_without_a_copy(store: ObjectStore) -> None:
    store.publish(ONE, bundle())
    weights = store.read(ONE).weights
    assert isinstance(weights, memoryview) and not weights.readonly


@pytest.mark.parametrize("name", ["a..b", "0", "a" * 64, "a-._"])
def test_every_valid_name_is_kept_as_it_is(store: ObjectStore, name: str) -> None:
    store.publish(Ref(name, 999_999_999), bundle())
    assert store.names() == [name] and store.versions(name) == [999_999_999]
    assert store.read(Ref(name, 999_999_999)).weights == bundle().weights


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    assert store.names() == []
    with pytest.raises(AdapterNotFound, match="no adapter named 'mood'"):
        store.versions("mood")
    store.publish(ONE, bundle())
    for read in (store.read, store.manifest):
        with pytest.raises(AdapterNotFound, match="no adapter version mood:2"):
            read(TWO)
    assert store.state("mood") == store.state("sad") == {}


def test_other_files_are_no_adapters_and_no_versions(store: ObjectStore) -> None:
    store.publish(ONE, bundle())
    for path in ("UPPER/1/manifest.json", "mood/01/manifest.json", "mood/x/manifest.json", "mood/2/deep/manifest.json"):
        store.objects.create(path, b"{}")
    assert store.names() == ["mood"] and store.versions("mood") == [1]


@pytest.mark.parametrize("name", ["../mood", "..", "", "a/b", "/etc", "a\0", "%2e%2e"])
def test_a_name_that_is_none_reaches_nothing(store: ObjectStore, name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for call in (
        lambda: store.read(Ref(name, 1)), lambda: store.publish(Ref(name, 1), bundle()), lambda: store.delete(Ref(name, 1)),
        lambda: store.versions(name), lambda: store.state(name), lambda: store.save_state(name, {}), lambda: store.sweep(name),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            call()
    assert sorted(tmp_path.rglob("*")) == before and store.names() == []


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, CARD, *IMAGES])
def test_a_missing_file_is_named(store: ObjectStore, file: str) -> None:
    store.publish(ONE, bundle())
    store.objects.remove([f"mood/1/{file}"])
    with pytest.raises(AdapterIncompatible) as refused:
        store.read(ONE)
    assert refused.value.faults == (f"no {file} in the bundle",)


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_anywhere_is_named(store: ObjectStore, file: str) -> None:
    store.publish(ONE, bundle())
    whole = bytes(store.objects.get(f"mood/1/{file}"))
    for length in {0, 1, len(whole) // 4, len(whole) // 2, len(whole) - 3}:
        store.objects.replace(f"mood/1/{file}", whole[:length])
        with pytest.raises(AdapterIncompatible, match=file):
            store.read(ONE)
    store.objects.replace(f"mood/1/{file}", whole)
    assert store.read(ONE).weights == bundle().weights


def test_a_card_that_is_no_text_is_named(store: ObjectStore) -> None:
    store.publish(ONE, bundle())
    store.objects.replace(f"mood/1/{CARD}", b"\xff")
    with pytest.raises(AdapterIncompatible, match=r"README\.md is not UTF-8"):
        store.read(ONE)


def test_an_image_that_the_manifest_does_not_name_is_none_of_the_version(store: ObjectStore) -> None:
    plain = Bundle.assemble({}, b"weights", Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes")), "# card")
    store.publish(ONE, plain)
    store.objects.create(f"mood/1/{IMAGES[0]}", b"no image at all")
    assert contents(store.read(ONE)) == contents(plain)


def test_a_deleted_version_leaves_nothing_and_its_siblings_alone(store: ObjectStore) -> None:
    for ref in (ONE, TWO):
        store.publish(ref, bundle())
    for _ in range(2):
        store.delete(ONE)
        assert store.versions("mood") == [2] and set(store.objects.files("mood")) == paths(TWO)
    store.delete(TWO)
    assert store.names() == []


def test_the_state_is_what_was_saved_last(store: ObjectStore) -> None:
    for number in (1, 2):
        store.save_state("mood", {"aliases": {"live": number}})
        assert store.state("mood") == {"aliases": {"live": number}}
    store.objects.replace("mood/registry.json", b'{"aliases": 3}')
    with pytest.raises(AdapterIncompatible, match=r"registry\.json of adapter 'mood' is damaged"):
        store.state("mood")


def test_left_overs_go_and_nothing_else(store: ObjectStore) -> None:
    store.publish(ONE, bundle())
    store.save_state("mood", {"deleted": [2]})
    kept = set(store.objects.files("mood"))
    for path in ("3/adapter_config.json", "4/deep/manifest.json", ".incoming-0/manifest.json", "1/.incoming-manifest.json"):
        store.objects.create(f"mood/{path}", b"{}")
    store.objects.create("mood/notes.txt", b"a user's own")
    store.sweep("mood")
    assert set(store.objects.files("mood")) == {*kept, "mood/notes.txt"}
    store.sweep("sad")


def test_publishing_replaces_what_an_interrupted_attempt_left(store: ObjectStore) -> None:
    store.publish(TWO, bundle(b"complete, but nobody was told"))
    store.objects.create("mood/2/stray", b"")
    store.publish(TWO, bundle())
    assert contents(store.read(TWO)) == contents(bundle()) | {MANIFEST: contents(store.read(TWO))[MANIFEST]}
    assert set(store.objects.files("mood")) == paths(TWO)


def test_nobody_elses_file_is_written_over(store: ObjectStore) -> None:
    with pytest.raises(VersionConflict, match="mood:1 is being published by somebody else"):
        ObjectStore(Rival(store.objects, 99, "not")).publish(ONE, bundle())
    assert store.objects.get(f"mood/1/{CONFIG}") == b"the rival's"


@pytest.mark.parametrize("how", ["not", "half", "unheard"])
def test_wherever_publishing_is_cut_off_the_version_is_whole_or_not_there(store: ObjectStore, how: str) -> None:
    store.publish(ONE, bundle())
    for last in count(1):
        store.objects.create("mood/2/left-over", b"")
        cut = Cut(store.objects, last, how)
        with suppress(Unavailable):
            ObjectStore(cut).publish(TWO, bundle(b"first"))
        if 2 in store.versions("mood"):
            assert store.read(TWO).weights == b"first"
        store.publish(TWO, bundle(b"second"))
        assert store.read(TWO).weights == b"second" and store.read(ONE).weights == bundle().weights
        assert set(store.objects.files("mood")) == paths(ONE) | paths(TWO)
        store.delete(TWO)
        if not cut.is_off:
            break
    assert last > len(FILES)


@pytest.mark.parametrize("how", ["not", "half", "unheard"])
def test_wherever_deleting_is_cut_off_the_version_is_whole_or_not_there(store: ObjectStore, how: str) -> None:
    for last in count(1):
        store.publish(ONE, bundle())
        store.publish(TWO, bundle(b"first"))
        cut = Cut(store.objects, last, how)
        with suppress(Unavailable):
            ObjectStore(cut).delete(TWO)
        if 2 in store.versions("mood"):
            assert store.read(TWO).weights == b"first"
        else:
            with pytest.raises(AdapterNotFound):
                store.read(TWO)
        store.delete(TWO)
        assert set(store.objects.files("mood")) == paths(ONE)
        store.publish(TWO, bundle(b"second"))
        assert store.read(TWO).weights == b"second"
        if not cut.is_off:
            break
    assert last > 1


@pytest.mark.parametrize("how", ["not", "unheard"])
def test_wherever_saving_is_cut_off_the_state_is_the_old_or_the_new(store: ObjectStore, how: str) -> None:
    old, new = {"aliases": {"live": 1}}, {"aliases": {"live": 2}}
    for last in count(1):
        store.save_state("mood", old)
        cut = Cut(store.objects, last, how)
        with suppress(Unavailable):
            ObjectStore(cut).save_state("mood", new)
        assert store.state("mood") in (old, new)
        if not cut.is_off:
            break
    assert store.state("mood") == new


def test_what_cannot_be_reached_now_is_no_fault_of_the_adapter(store: ObjectStore) -> None:
    store.publish(ONE, bundle())
    away = ObjectStore(Cut(store.objects, 0, "not"))
    for call in (
        away.names, away.check, lambda: away.versions("mood"), lambda: away.manifest(ONE), lambda: away.read(ONE),
        lambda: away.state("mood"), lambda: away.save_state("mood", {}),
        lambda: away.delete(ONE), lambda: away.publish(TWO, bundle()),
    ):  # fmt: skip
        with pytest.raises(Unavailable, match=r"cannot be (read|changed) now; ask again in a moment"):
            call()
    assert store.read(ONE).weights == bundle().weights
