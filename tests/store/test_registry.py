"""The registry over real folders: versions, aliases, deletion, and what a restart finds."""

from __future__ import annotations

import resource
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    AdapterDeleted,
    AdapterIncompatible,
    AdapterNotFound,
    InvalidInput,
    StoreFull,
    VersionConflict,
)
from service.store.alias import Target
from service.store.bundle import TEXT_CLASSIFICATION, VISUAL_QUESTION_ANSWERING, Bundle, Manifest, Task
from service.store.entries import QUARANTINED, READY
from service.store.layout import IMAGES
from service.store.registry import Registry
from service.store.selector import NAME, Ref, check_name
from tests.support.images import card_images


def bundle(weights: bytes = b"weights", task: Task = TEXT_CLASSIFICATION) -> Bundle:
    return Bundle.assemble({"r": 8, "target_modules": ["b", "a"]}, weights, Manifest(task=task, labels=("no", "yes")), "# card")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], Registry]]:
    """Open the registry of the test's files in a database, as a server does."""
    found: list[Registry] = []

    def open_in(url: str) -> Registry:
        found.append(Registry.open(tmp_path / "adapters", url))
        return found[-1]

    yield open_in
    for registry in found:
        registry.close()


@pytest.fixture
def registry(opened: Callable[[str], Registry], url: str) -> Registry:
    return opened(url)


@pytest.fixture
def reopened(opened: Callable[[str], Registry], url: str) -> Callable[[], Registry]:
    """What another server finds, or this one after a restart."""
    return lambda: opened(url)


@pytest.fixture
def rebuilt(opened: Callable[[str], Registry], tmp_path: Path) -> Callable[[], Registry]:
    """What is found without the database: the files alone."""
    return lambda: opened(f"sqlite:///{tmp_path}/{uuid.uuid4().hex}.db")


def publish(registry: Registry, name: str, bundle: Bundle) -> Ref:
    return registry.publish(name, bundle)[0]


def point(registry: Registry, name: str, alias: str, version: int) -> None:
    registry.set_alias(name, alias, Target.at(version))


def aliases(registry: Registry, name: str) -> dict[str, int]:
    return {alias: at.target.version for alias, at in registry.get(name).aliases.items()}


def test_versions_count_up_and_a_selector_finds_them(registry: Registry) -> None:
    assert publish(registry, "mood", bundle(b"1")) == Ref("mood", 1)
    assert publish(registry, "mood", bundle(b"2")) == Ref("mood", 2)
    point(registry, "mood", "live", 1)
    point(registry, "mood", "canary", 2)
    found = {selector: registry.resolve(selector).version for selector in ("mood", "mood@live", "mood@canary", "mood:2")}
    assert found == {"mood": 1, "mood@live": 1, "mood@canary": 2, "mood:2": 2}


def test_a_restart_finds_everything_again(registry: Registry, reopened: Callable[[], Registry]) -> None:
    for weights in (b"1", b"2", b"3"):
        publish(registry, "mood", bundle(weights))
    point(registry, "mood", "live", 3)
    registry.delete(Ref("mood", 2))
    again = reopened()
    assert again.get("mood") == registry.get("mood")
    assert again.store.read(Ref("mood", 3)).weights == b"3"
    with pytest.raises(AdapterDeleted):
        again.resolve("mood:2")
    assert publish(again, "mood", bundle(b"4")).version == 4


def test_a_deleted_newest_version_does_not_give_its_number_away(registry: Registry, reopened: Callable[[], Registry]) -> None:
    publish(registry, "mood", bundle(b"1"))
    registry.delete(Ref("mood", 1))
    assert publish(reopened(), "mood", bundle(b"2")).version == 2


def test_a_version_that_is_read_while_it_is_deleted_is_whole_or_not_there(registry: Registry) -> None:
    versions = [publish(registry, "mood", bundle(str(number).encode())) for number in range(60)]
    found: list[Bundle] = []

    def read(ref: Ref) -> None:
        with suppress(AdapterNotFound):
            while True:
                found.append(registry.store.read(ref))

    with ThreadPoolExecutor(2) as threads:
        for ref in versions:
            reading = [threads.submit(read, ref) for _ in range(2)]
            registry.delete(ref)
            assert [one.result(10) for one in reading] == [None, None]
    assert {one.manifest.labels for one in found} == {("no", "yes")}


def test_a_version_under_an_alias_is_not_deleted(registry: Registry) -> None:
    publish(registry, "mood", bundle())
    point(registry, "mood", "live", 1)
    with pytest.raises(VersionConflict, match="alias live of adapter 'mood' points at version 1"):
        registry.delete(Ref("mood", 1))
    assert registry.store.read(Ref("mood", 1)) is not None


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("sad", "no adapter named 'sad'; live: mood"),
        ("mood@canary", "adapter 'mood' has no alias 'canary'; it has live"),
        ("mood:7", "adapter 'mood' has no version 7; it has 1"),
        ("mood:00001", "adapter 'mood' has no version '00001'; it has 1"),
        ("mood:live", "adapter 'mood' has no version 'live'; it has 1"),
        ("mood:", "adapter 'mood' has no version ''"),
        ("mood@", "adapter 'mood' has no alias ''"),
        ("mood@live:1", "no adapter named 'mood@live'"),
        ("../mood", "no adapter named '../mood'"),
        ("", "no adapter named ''"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(registry: Registry, selector: str, says: str) -> None:
    publish(registry, "mood", bundle())
    point(registry, "mood", "live", 1)
    with pytest.raises(AdapterNotFound) as refused:
        registry.resolve(selector)
    assert says in str(refused.value)


def test_the_same_files_are_the_same_version_whatever_their_metrics_say(registry: Registry) -> None:
    ref = publish(registry, "mood", bundle())
    other = bundle()
    measured = Bundle.assemble(
        other.config, other.weights, other.manifest.model_copy(update={"metrics": {"test": {"accuracy": 1.0}}})
    )
    assert registry.find("mood", measured.manifest.digest) == ref
    assert registry.find("mood", bundle(b"others").manifest.digest) is None


def test_a_name_keeps_its_task(registry: Registry) -> None:
    publish(registry, "mood", bundle())
    with pytest.raises(VersionConflict, match="answers text-classification"):
        publish(registry, "mood", bundle(b"2", VISUAL_QUESTION_ANSWERING))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


def test_a_damaged_version_is_quarantined_and_nothing_else_changes_until_it_is_whole_again(
    registry: Registry, reopened: Callable[[], Registry], folder: Path
) -> None:
    for weights in (b"1", b"2"):
        publish(registry, "mood", bundle(weights))
    point(registry, "mood", "live", 1)
    file = folder / "mood/1/adapter_model.safetensors"
    file.write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(
            AdapterIncompatible, match=r"adapter_model\.safetensors is not the file that manifest\.json describes"
        ):
            registry.read(Ref("mood", 1))
    for seen in (registry, reopened()):
        assert (seen.get("mood").versions[1].state, seen.get("mood").versions[2].state) == (QUARANTINED, READY)
        assert aliases(seen, "mood") == {"live": 1} and seen.read(Ref("mood", 2)).weights == b"2"
    assert [entry.action for entry in registry.records.audit(9, name="mood")].count("quarantine") == 1
    file.write_bytes(b"1")
    assert registry.read(Ref("mood", 1)).weights == b"1"
    assert reopened().get("mood").versions[1].state == READY


@pytest.mark.parametrize("lost", ["manifest.json", "adapter_config.json"])
def test_a_version_whose_files_are_gone_is_quarantined(registry: Registry, folder: Path, lost: str) -> None:
    publish(registry, "mood", bundle(b"1"))
    (folder / "mood/1" / lost).unlink()
    with pytest.raises(AdapterIncompatible):
        registry.read(Ref("mood", 1))
    assert registry.get("mood").versions[1].state == QUARANTINED
    assert publish(registry, "mood", bundle(b"2")).version == 2


def test_another_bundle_in_a_version_s_place_is_not_served(registry: Registry, folder: Path) -> None:
    publish(registry, "mood", bundle(b"1"))
    publish(registry, "mood", bundle(b"2"))
    shutil.rmtree(folder / "mood/1")
    shutil.copytree(folder / "mood/2", folder / "mood/1")
    with pytest.raises(AdapterIncompatible, match="the files of mood:1 are not those that were published"):
        registry.read(Ref("mood", 1))


def test_without_the_database_everything_is_found_again_from_the_files(
    registry: Registry, rebuilt: Callable[[], Registry]
) -> None:
    for weights in (b"1", b"2", b"3", b"4"):
        publish(registry, "mood", bundle(weights))
    registry.set_alias("mood", "live", Target({1: 90, 2: 10}, shadow=4))
    point(registry, "mood", "old", 1)
    registry.delete(Ref("mood", 3))
    again = rebuilt()
    assert list(again.get("mood").versions) == [1, 2, 4] and again.get("mood").deleted == {3}
    assert {name: at.target for name, at in again.get("mood").aliases.items()} == {
        "live": Target({1: 90, 2: 10}, shadow=4),
        "old": Target.at(1),
    }
    assert again.read(Ref("mood", 4)).contents == registry.read(Ref("mood", 4)).contents
    assert publish(again, "mood", bundle(b"5")).version == 5


def test_images_are_found_again_too(registry: Registry, rebuilt: Callable[[], Registry]) -> None:
    illustrated = Bundle.assemble({}, b"1", Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes")), "# card", card_images())
    ref = publish(registry, "mood", illustrated)
    found = rebuilt().read(ref)
    assert {name: found.files[name] for name in IMAGES} == card_images()


def test_what_cannot_be_read_is_found_as_quarantined(registry: Registry, rebuilt: Callable[[], Registry], folder: Path) -> None:
    for name in ("mood", "irony"):
        publish(registry, name, bundle(b"1"))
        point(registry, name, "live", 1)
    (folder / "mood/1/manifest.json").write_text("{")
    (folder / "irony/registry.json").write_text("[")
    again = rebuilt()
    assert again.get("mood").versions[1].state == QUARANTINED and aliases(again, "mood") == {"live": 1}
    assert again.get("irony").versions[1].state == READY and aliases(again, "irony") == {}


def test_left_over_files_are_collected_and_what_is_referenced_stays(
    registry: Registry, reopened: Callable[[], Registry], folder: Path
) -> None:
    for weights in (b"1", b"2"):
        publish(registry, "mood", bundle(weights))
    kept = shutil.copytree(folder / "mood/2", folder / "kept")
    registry.delete(Ref("mood", 2))
    shutil.move(kept, folder / "mood/2")  # as if the server had died before it removed them
    (folder / "mood/3").mkdir()
    (folder / "mood/3/adapter_config.json").write_text("{}")
    again = reopened()
    again.collect()
    assert not (folder / "mood/2").exists() and again.read(Ref("mood", 1)).weights == b"1"
    assert publish(again, "mood", bundle(b"3")).version == 3 and again.read(Ref("mood", 3)).weights == b"3"


def test_an_adapter_of_which_only_left_overs_are_there_is_swept_away(
    registry: Registry, reopened: Callable[[], Registry], folder: Path
) -> None:
    publish(registry, "mood", bundle(b"1"))
    shutil.rmtree(folder / "mood")
    for name in ("mood", "sad"):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1/adapter_config.json").write_text("{}")
    again = reopened()
    again.collect()
    assert again.store.names() == [] and [adapter.name for adapter in again] == ["mood"]
    assert publish(again, "sad", bundle(b"1")).version == 1


@pytest.mark.parametrize("copy", [b'{"aliases": {"live": 1}, "deleted": []}', b"{", None])
def test_a_copy_that_is_out_of_date_is_made_anew(
    registry: Registry, rebuilt: Callable[[], Registry], folder: Path, copy: bytes | None
) -> None:
    for weights in (b"1", b"2", b"3"):
        publish(registry, "mood", bundle(weights))
    point(registry, "mood", "live", 2)
    registry.delete(Ref("mood", 3))
    file = folder / "mood/registry.json"
    right = file.read_bytes()
    file.unlink() if copy is None else file.write_bytes(copy)
    registry.collect()
    assert file.read_bytes() == right
    assert aliases(rebuilt(), "mood") == {"live": 2} and rebuilt().get("mood").deleted == {3}


def test_a_version_that_somebody_put_into_the_store_is_registered(registry: Registry, folder: Path) -> None:
    publish(registry, "mood", bundle(b"1"))
    shutil.copytree(folder / "mood/1", folder / "mood/7")
    registry.collect()
    assert list(registry.get("mood").versions) == [1, 7]
    assert publish(registry, "mood", bundle(b"2")).version == 8


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes, which to the program is a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    publish(registry, "mood", bundle(b"1"))
    shutil.copytree(tmp_path / "adapters", tmp_path / "before")
    with limited(1000), pytest.raises(StoreFull):
        publish(registry, "mood", bundle(b"x" * 5000))
    assert listing(tmp_path / "adapters") == listing(tmp_path / "before")
    assert publish(registry, "mood", bundle(b"2")).version == 2


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_disk_that_is_full_at_the_commit_changes_nothing(
    registry: Registry, reopened: Callable[[], Registry], tmp_path: Path
) -> None:
    publish(registry, "mood", bundle(b"1"))
    with limited((tmp_path / "registry.db").stat().st_size):
        refused = publish_until_full(registry)
    files = {path.split("/")[1] for path in listing(tmp_path / "adapters") if path.startswith("mood/")}
    assert files == {str(number) for number in range(1, refused)}
    again = reopened()
    again.collect()
    assert list(again.get("mood").versions) == list(registry.get("mood").versions) == list(range(1, refused))
    assert publish(again, "mood", bundle(b"2")).version == refused


def publish_until_full(registry: Registry) -> int:
    """Publish versions until the database refuses one, and return its number."""
    for number in range(2, 200):
        try:
            publish(registry, "mood", bundle(b"%d of many" % number))
        except StoreFull:
            return number
    raise AssertionError("the limit was never reached")


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_sixteen_writers_get_dense_versions_and_the_same_bytes_are_one(
    registry: Registry, reopened: Callable[[], Registry]
) -> None:
    servers = [registry, reopened()]

    def write(number: int) -> Ref:
        ref = publish(servers[number % 2], "mood", bundle(str(number // 2).encode()))
        servers[number % 2].set_alias("mood", f"of-{number}", Target.at(ref.version))
        return ref

    with ThreadPoolExecutor(16) as threads:
        refs = list(threads.map(write, range(32)))
    assert sorted(ref.version for ref in refs) == sorted([*range(1, 17)] * 2)
    for server in servers:
        server.refresh()
        assert aliases(server, "mood") == {f"of-{number}": ref.version for number, ref in enumerate(refs)}
        assert all(server.read(refs[2 * half]).weights == str(half).encode() for half in range(16))


def test_a_change_is_seen_by_the_other_server(registry: Registry, reopened: Callable[[], Registry]) -> None:
    other, heard = reopened(), list[tuple[int, int]]()
    other.listeners.append(lambda before, now: heard.append((len(before.versions), len(now.versions))))
    publish(registry, "mood", bundle(b"1"))
    point(registry, "mood", "live", 1)
    other.refresh()
    other.refresh()
    assert other.resolve("mood") == Ref("mood", 1) and heard == [(0, 1)]


def test_a_version_that_another_server_has_deleted_is_not_taken_for_damaged(
    registry: Registry, reopened: Callable[[], Registry]
) -> None:
    publish(registry, "mood", bundle(b"1"))
    other = reopened()
    registry.delete(Ref("mood", 1))
    with pytest.raises(AdapterDeleted):
        other.read(Ref("mood", 1))


def test_a_version_that_was_deleted_is_not_read_even_while_its_files_are_there(registry: Registry, folder: Path) -> None:
    publish(registry, "mood", bundle(b"1"))
    shutil.copytree(folder / "mood/1", folder / "kept")
    registry.delete(Ref("mood", 1))
    shutil.move(folder / "kept", folder / "mood/1")
    with pytest.raises(AdapterDeleted):
        registry.read(Ref("mood", 1))


def test_who_moves_an_alias_is_told_of_his_own_move_though_others_follow_at_once(
    registry: Registry, reopened: Callable[[], Registry]
) -> None:
    for weights in (b"1", b"2"):
        publish(registry, "mood", bundle(weights))
    other = reopened()

    def follow() -> None:
        registry.listeners.clear()
        point(other, "mood", "live", 2)
        registry.refresh()

    registry.listeners.append(lambda *_: follow())
    moved = registry.set_alias("mood", "live", Target.at(1))
    assert (moved.generation, moved.target) == (1, Target.at(1))
    registry.listeners.append(lambda *_: follow())
    back = registry.roll_back("mood", "live")
    assert (back.generation, back.target) == (3, Target.at(1))


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", ".a", "-a", "a" * 65, "a\0", "a\n", "ä", "__base__"])
def test_names_that_could_be_paths_or_look_like_others_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)


@given(st.from_regex(NAME, fullmatch=True))
def test_every_valid_name_is_one_plain_path_component(name: str) -> None:
    assert check_name(name) == name
    assert Path(name).name == name and name not in {".", ".."}
