"""The registry over real folders: versions, aliases, deletion, and what a restart finds."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
from service.store.bundle import TEXT_CLASSIFICATION, VISUAL_QUESTION_ANSWERING, Bundle, Manifest, Task
from service.store.disk import Disk
from service.store.files import ObjectStore
from service.store.location import open_files
from service.store.registry import Registry
from service.store.selector import NAME, Ref, check_name


def bundle(weights: bytes = b"weights", task: Task = TEXT_CLASSIFICATION) -> Bundle:
    return Bundle.assemble({"r": 8, "target_modules": ["b", "a"]}, weights, Manifest(task=task, labels=("no", "yes")), "# card")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(open_files(None, tmp_path / "adapters"))


def root(registry: Registry) -> Path:
    assert isinstance(registry.store, ObjectStore)
    assert isinstance(registry.store.objects, Disk)
    return registry.store.objects.root


def reopened(registry: Registry) -> Registry:
    return Registry(open_files(None, root(registry)))


def test_versions_count_up_and_a_selector_finds_them(registry: Registry) -> None:
    assert registry.publish("mood", bundle(b"1")) == Ref("mood", 1)
    assert registry.publish("mood", bundle(b"2")) == Ref("mood", 2)
    registry.set_alias("mood", "live", 1)
    registry.set_alias("mood", "canary", 2)
    found = {selector: registry.resolve(selector).version for selector in ("mood", "mood@live", "mood@canary", "mood:2")}
    assert found == {"mood": 1, "mood@live": 1, "mood@canary": 2, "mood:2": 2}


def test_a_restart_finds_everything_again(registry: Registry) -> None:
    for weights in (b"1", b"2", b"3"):
        registry.publish("mood", bundle(weights))
    registry.set_alias("mood", "live", 3)
    registry.delete(Ref("mood", 2))
    again = reopened(registry)
    assert again.get("mood") == registry.get("mood")
    assert again.store.read(Ref("mood", 3)).weights == b"3"
    with pytest.raises(AdapterDeleted):
        again.resolve("mood:2")
    assert again.publish("mood", bundle(b"4")).version == 4


def test_a_deleted_newest_version_does_not_give_its_number_away(registry: Registry) -> None:
    registry.publish("mood", bundle(b"1"))
    registry.delete(Ref("mood", 1))
    assert reopened(registry).publish("mood", bundle(b"2")).version == 2


def test_a_version_that_is_read_while_it_is_deleted_is_whole_or_not_there(registry: Registry) -> None:
    versions = [registry.publish("mood", bundle(str(number).encode())) for number in range(60)]
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
    registry.publish("mood", bundle())
    registry.set_alias("mood", "live", 1)
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
    registry.publish("mood", bundle())
    registry.set_alias("mood", "live", 1)
    with pytest.raises(AdapterNotFound) as refused:
        registry.resolve(selector)
    assert says in str(refused.value)


def test_the_same_files_are_the_same_version_whatever_their_metrics_say(registry: Registry) -> None:
    ref = registry.publish("mood", bundle())
    other = bundle()
    measured = Bundle.assemble(
        other.config, other.weights, other.manifest.model_copy(update={"metrics": {"test": {"accuracy": 1.0}}})
    )
    assert registry.find("mood", measured.manifest.digest) == ref
    assert registry.find("mood", bundle(b"others").manifest.digest) is None


def test_a_name_keeps_its_task(registry: Registry) -> None:
    registry.publish("mood", bundle())
    with pytest.raises(VersionConflict, match="answers text-classification"):
        registry.publish("mood", bundle(b"2", VISUAL_QUESTION_ANSWERING))


def test_a_folder_without_a_manifest_is_no_version(registry: Registry) -> None:
    registry.publish("mood", bundle(b"1"))
    registry.publish("mood", bundle(b"2"))
    (root(registry) / "mood/2/manifest.json").unlink()
    assert list(reopened(registry).get("mood").versions) == [1]


def test_a_half_written_upload_is_swept_away_by_the_next(registry: Registry) -> None:
    left = root(registry) / "mood/.incoming-0"
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("{}")
    again = reopened(registry)
    assert again.adapters() == []
    again.publish("mood", bundle())
    assert not left.exists()


@pytest.mark.parametrize(
    ("file", "was", "is_now"), [("adapter_config.json", b"8", b"9"), ("adapter_model.safetensors", b"w", b"v")]
)
def test_a_damaged_file_is_not_served(registry: Registry, file: str, was: bytes, is_now: bytes) -> None:
    registry.publish("mood", bundle())
    damaged = root(registry) / "mood/1" / file
    damaged.write_bytes(damaged.read_bytes().replace(was, is_now))
    with pytest.raises(AdapterIncompatible, match=f"{file} is not the file that manifest.json describes"):
        registry.store.read(Ref("mood", 1))


def test_a_damaged_manifest_takes_out_its_version_and_no_other_until_it_is_repaired(registry: Registry) -> None:
    for weights in (b"1", b"2"):
        registry.publish("mood", bundle(weights))
    registry.set_alias("mood", "live", 1)
    manifest = root(registry) / "mood/1/manifest.json"
    whole = manifest.read_bytes()
    manifest.write_text("{")
    again = reopened(registry)
    assert list(again.manifests(again.get("mood"))) == [2] and again.get("mood").task == TEXT_CLASSIFICATION
    with pytest.raises(AdapterIncompatible, match=r"manifest\.json: is not JSON"):
        again.store.read(again.resolve("mood"))
    assert again.publish("mood", bundle(b"3")).version == 3
    manifest.write_bytes(whole)
    assert again.store.read(again.resolve("mood")).weights == b"1"
    assert reopened(again).get("mood").aliases == {"live": 1}


def test_a_full_disk_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    registry.publish("mood", bundle(b"1"))
    shutil.copytree(tmp_path / "adapters", tmp_path / "before")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreFull):
            registry.publish("mood", bundle(b"x" * 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert listing(tmp_path / "adapters") == listing(tmp_path / "before")
    assert registry.publish("mood", bundle(b"2")).version == 2


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", ".a", "-a", "a" * 65, "a\0", "a\n", "ä", "__base__"])
def test_names_that_could_be_paths_or_look_like_others_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)


@given(st.from_regex(NAME, fullmatch=True))
def test_every_valid_name_is_one_plain_path_component(name: str) -> None:
    assert check_name(name) == name
    assert Path(name).name == name and name not in {".", ".."}
