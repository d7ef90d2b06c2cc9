"""An adapter's folder is read when it is first asked for, once, and fails alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import AdapterIncompatible, AdapterNotFound, Unavailable
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest
from service.store.disk import Disk
from service.store.files import ObjectStore
from service.store.location import open_files
from service.store.registry import Registry
from service.store.selector import Ref


class Watched(ObjectStore):
    """Notes which folders are looked into."""

    def __init__(self, root: Path) -> None:
        super().__init__(Disk(root))
        self.root = root
        self.scanned: list[str] = []

    def versions(self, name: str) -> list[int]:
        self.scanned.append(name)
        return super().versions(name)


@pytest.fixture
def many(tmp_path: Path) -> Watched:
    """A store of 50 adapters, freshly opened."""
    registry = Registry(open_files(None, tmp_path))
    bundle = Bundle.assemble({}, b"", Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes")))
    for number in range(50):
        registry.set_alias(f"a{number:02}", "live", registry.publish(f"a{number:02}", bundle).version)
    return Watched(tmp_path)


def test_a_folder_is_read_once_and_only_when_its_adapter_is_asked_for(many: Watched) -> None:
    registry = Registry(many)
    assert len(registry) == 50 and many.scanned == []
    for _ in range(2):
        assert registry.resolve("a07") == Ref("a07", 1)
    assert many.scanned == ["a07"]
    assert [adapter.name for adapter in registry.adapters()] == [f"a{number:02}" for number in range(50)]
    assert len(many.scanned) == 50


def test_threads_that_ask_for_new_names_at_once_all_find_them_and_read_each_folder_once(many: Watched) -> None:
    registry = Registry(many)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: registry.resolve(f"a{number % 50:02}"), range(2000)))
    assert found == [Ref(f"a{number % 50:02}", 1) for number in range(2000)]
    assert sorted(many.scanned) == sorted(set(many.scanned))


def test_an_unknown_name_does_not_read_every_folder(many: Watched) -> None:
    registry = Registry(many)
    with pytest.raises(AdapterNotFound, match=r"no adapter named 'mood'; live: a00, .*, a19 and up to 30 more"):
        registry.resolve("mood")
    assert len(many.scanned) == 20


def test_a_folder_that_cannot_be_read_fails_alone_and_is_tried_again(many: Watched) -> None:
    state = many.root / "a03/registry.json"
    whole = state.read_bytes()
    registry = Registry(many)
    for damaged in ("{", "[]", '{"aliases": 3}'):
        state.write_text(damaged)
        with pytest.raises(AdapterIncompatible, match=r"registry\.json of adapter 'a03' is damaged"):
            registry.resolve("a03")
        assert "a03" not in [adapter.name for adapter in registry.adapters()]
        assert registry.resolve("a04") == Ref("a04", 1)
    state.write_bytes(whole)
    assert registry.resolve("a03") == Ref("a03", 1)


def test_a_folder_that_the_disk_does_not_give_is_no_fault_of_the_adapter(many: Watched) -> None:
    registry = Registry(many)
    (many.root / "a05").rename(many.root / "away")
    (many.root / "a05").symlink_to("a05")  # a loop: opening it fails for everybody, root included
    with pytest.raises(Unavailable, match="the files of adapter a05 cannot be read now"):
        registry.resolve("a05")
    (many.root / "a05").unlink()
    (many.root / "away").rename(many.root / "a05")
    assert registry.resolve("a05") == Ref("a05", 1)
