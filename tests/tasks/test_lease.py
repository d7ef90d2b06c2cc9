"""A selector gets what it means, even if that is deleted while it is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import AdapterDeleted, AdapterIncompatible
from service.store.alias import Target
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest
from service.store.registry import Registry
from service.store.selector import Ref
from service.tasks.lease import Lessor
from service.tasks.residency import Residency
from service.tasks.shadow import Comparisons


class Loaded:
    """A version, checked or loaded: this test asks only for its labels."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels, self.nbytes = labels, 1


class Loader:
    """Takes whatever a bundle holds, but for empty weights."""

    def parse(self, bundle: Bundle) -> Loaded:
        if not bundle.weights:
            raise AdapterIncompatible(["no weights"])
        return Loaded(bundle.manifest.labels)

    def device_bytes(self, checked: Loaded) -> int:
        return checked.nbytes

    def load(self, checked: Loaded) -> Loaded:
        return Loaded(checked.labels)


class Swapped:
    """A registry whose version 1 of ``mood`` is replaced by version 2 and deleted, just as it is about to be read."""

    def __init__(self, root: Path) -> None:
        self.registry = Registry.open(root)
        for labels, weights in ((("no", "yes"), b"1"), (("bad", "good"), b"2")):
            self.registry.publish("mood", Bundle.assemble({}, weights, Manifest(task=TEXT_CLASSIFICATION, labels=labels)))
        self.registry.set_alias("mood", "live", Target.at(1))
        self.memory = Residency(self.read, device_bytes=10, host_bytes=10)

    def read(self, ref: Ref) -> Bundle:
        if ref.version == 1:
            self.registry.set_alias("mood", "live", Target.at(2))
            self.registry.delete(ref)
        return self.registry.store.read(ref)

    def lease(self, selector: str) -> tuple[Ref, Loaded]:
        lessor: Lessor[Loaded, Loaded] = Lessor(self.registry, self.memory, Comparisons(), TEXT_CLASSIFICATION, Loader())
        lease = lessor.lease(selector)
        return lease.ref, lease.loaded


@pytest.fixture
def swapped(tmp_path: Path) -> Swapped:
    return Swapped(tmp_path)


def test_an_alias_gets_the_version_that_it_points_at_by_now(swapped: Swapped) -> None:
    ref, loaded = swapped.lease("mood")
    assert ref == Ref("mood", 2) and loaded.labels == ("bad", "good")


def test_a_version_by_its_number_is_deleted_then(swapped: Swapped) -> None:
    with pytest.raises(AdapterDeleted, match="version 1 of adapter 'mood' was deleted"):
        swapped.lease("mood:1")


def test_a_version_that_is_still_meant_fails_as_it_did(swapped: Swapped) -> None:
    swapped.registry.publish("mood", Bundle.assemble({}, b"", Manifest(task=TEXT_CLASSIFICATION, labels=("a", "b"))))
    with pytest.raises(AdapterIncompatible, match="no weights"):
        swapped.lease("mood:3")


def test_at_hand_is_what_needs_no_loading_whatever_it_may_lead_to(tmp_path: Path) -> None:
    registry = Registry.open(tmp_path)
    for weights in (b"1", b"2"):
        registry.publish("mood", Bundle.assemble({}, weights, Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes"))))
    registry.set_alias("mood", "live", Target({1: 100}, shadow=2))
    registry.set_alias("mood", "split", Target({1: 99, 2: 1}))
    memory = Residency(registry.store.read, device_bytes=10, host_bytes=10)
    lessor: Lessor[Loaded, Loaded] = Lessor(registry, memory, Comparisons(), TEXT_CLASSIFICATION, Loader())

    def at_hand() -> list[str]:
        selectors = ["mood:1", "mood:2", "mood:3", "mood:x", "mood", "mood@split", "mood@none", "none"]
        return [selector for selector in selectors if lessor.is_at_hand(selector)]

    nothing = ["mood:3", "mood:x", "mood@none", "none"]
    assert at_hand() == nothing
    memory.get(Ref("mood", 1), lessor.loader)
    assert at_hand() == ["mood:1", *nothing]
    memory.get(Ref("mood", 2), lessor.loader)
    assert at_hand() == ["mood:1", "mood:2", "mood:3", "mood:x", "mood", "mood@split", "mood@none", "none"]
