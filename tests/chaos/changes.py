"""The changes during which a process is killed, and the adapters that they begin with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.errors import AdapterIncompatible
from service.store.alias import Target
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest
from service.store.layout import WEIGHTS
from service.store.registry import Registry
from service.store.selector import Ref

ADAPTERS = "adapters"  # the folder's name
ALIASES = ("live", "old")  # of mood
DAMAGED = Ref("sad", 1)


def bundle(weights: bytes) -> Bundle:
    """A version that nothing but its few bytes tells from others."""
    return Bundle.assemble({"r": 8}, weights, Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes")), "# card")


def begin(registry: Registry, folder: Path) -> None:
    """Fill an empty registry over a folder: four versions, one of them deleted, two aliases, and another adapter, damaged."""
    for number in range(1, 5):
        registry.publish("mood", bundle(b"%d" % number))
    for alias, version in (("live", 1), ("live", 2), ("old", 1)):
        registry.set_alias("mood", alias, Target.at(version))
    registry.delete(Ref("mood", 3))
    registry.publish(DAMAGED.name, bundle(b"sad"))
    (folder / ADAPTERS / DAMAGED.name / str(DAMAGED.version) / WEIGHTS).write_bytes(b"x")
    with suppress(AdapterIncompatible):
        registry.read(DAMAGED)


def litter(folder: Path) -> None:
    """Leave what interrupted changes leave, and put a complete version beside it."""
    mood = folder / ADAPTERS / "mood"
    for number in (3, 7):
        shutil.copytree(mood / "1", mood / str(number))
    (mood / "9").mkdir()
    shutil.copy(mood / "1/adapter_config.json", mood / "9")
    (mood / "1/.incoming-manifest.json").write_text("{")


def forget(folder: Path) -> None:
    """Lose the database; and the damaged version, of which only the database knew that it is."""
    (folder / ADAPTERS / "registry.db").unlink(missing_ok=True)
    shutil.rmtree(folder / ADAPTERS / DAMAGED.name)


@dataclass(frozen=True)
class Change:
    """One change; ``prepare`` is what happens to the files before, and ``fresh`` one that begins without a database."""

    run: Callable[[Registry], object]
    prepare: Callable[[Path], None] = lambda _: None
    fresh: bool = False


CHANGES = {
    "publish": Change(lambda registry: registry.publish("mood", bundle(b"5"))),
    "publish of a first version": Change(lambda registry: registry.publish("glad", bundle(b"1"))),
    "publish in place of a damaged one": Change(lambda registry: registry.publish(DAMAGED.name, bundle(b"sad"))),
    "alias move": Change(lambda registry: registry.set_alias("mood", "live", Target.at(4))),
    "alias split": Change(lambda registry: registry.set_alias("mood", "live", Target({1: 90, 2: 10}, shadow=4))),
    "rollback": Change(lambda registry: registry.roll_back("mood", "live")),
    "removal of an alias": Change(lambda registry: registry.remove_alias("mood", "old")),
    "delete": Change(lambda registry: registry.delete(Ref("mood", 4))),
    "garbage collection": Change(Registry.collect, litter),
    "start from the files alone": Change(lambda _: None, forget, fresh=True),
}
