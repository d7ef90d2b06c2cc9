"""Versions come into memory once for all that ask, from the nearest copy, and a failure passes."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from service.errors import AdapterIncompatible, AdapterNotFound, Overloaded, QuickchangeError, Unavailable
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest
from service.store.selector import Ref
from service.tasks import residency as module
from service.tasks.residency import Residency
from tests.support.server import wait_until

ONE = Ref("a", 1)


@dataclass(eq=False)
class Checked:
    """A checked adapter of so many bytes."""

    nbytes: int


@dataclass(eq=False)
class Loaded:
    """It, on the device."""

    checked: Checked


class Disk:
    """A store and a loader that count; a version has 10 bytes, ``errors`` are raised for theirs, ``gate`` holds reads up."""

    def __init__(self) -> None:
        self.reads: list[Ref] = []
        self.errors: dict[Ref, Exception] = {}
        self.loads = 0
        self.gate = threading.Event()
        self.gate.set()

    def read(self, ref: Ref) -> Bundle:
        self.reads.append(ref)
        assert self.gate.wait(10)
        if ref in self.errors:
            raise self.errors[ref]
        return Bundle.assemble({"size": 10}, b"", Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes")))

    def parse(self, bundle: Bundle) -> Checked:
        return Checked(bundle.config["size"])

    def device_bytes(self, checked: Checked) -> int:
        return 2 * checked.nbytes

    def load(self, checked: Checked) -> Loaded:
        self.loads += 1
        return Loaded(checked)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def residency(disk: Disk, device: int = 60, host: int = 100) -> Residency:
    return Residency(disk.read, device_bytes=device, host_bytes=host)


def test_a_version_is_read_and_loaded_once_for_all_that_ask(disk: Disk) -> None:
    memory = residency(disk)
    disk.gate.clear()
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(memory.get, ONE, disk) for _ in range(16)]
        time.sleep(0.05)
        disk.gate.set()
        found = {id(one.result()) for one in asked}
    assert len(found) == 1 and disk.reads == [ONE] and disk.loads == 1
    assert memory.get(ONE, disk) and (memory.device.loads, memory.device.bytes, memory.host.bytes) == (1, 20, 10)


def test_what_left_the_device_comes_back_without_the_store(disk: Disk) -> None:
    memory = residency(disk)
    for _ in range(3):
        for number in range(1, 9):
            assert memory.get(Ref("a", number), disk)
    assert len(disk.reads) == 8 and disk.loads == 24
    assert (memory.device.evictions, memory.device.bytes, memory.host.bytes) == (21, 60, 80)


def test_without_host_memory_it_comes_back_from_the_store(disk: Disk) -> None:
    memory = residency(disk, host=0)
    for number in (1, 2, 3, 4, 1):
        memory.get(Ref("a", number), disk)
    assert len(disk.reads) == 5 and memory.host.bytes == 0


def test_a_version_that_can_never_fit_is_refused(disk: Disk) -> None:
    with pytest.raises(AdapterIncompatible, match="MB on the device, where adapters may take"):
        residency(disk, device=19).get(ONE, disk)


def test_with_everything_in_use_one_more_is_refused_until_a_lease_ends(disk: Disk) -> None:
    memory = residency(disk)
    used = [memory.get(Ref("a", number), disk) for number in (1, 2, 3)]
    for _ in range(2):
        with pytest.raises(Overloaded, match="all in use"):
            memory.get(Ref("a", 4), disk)
    assert memory.get(ONE, disk) is used[0]
    used.pop()
    assert memory.get(Ref("a", 4), disk)
    assert disk.reads == [Ref("a", number) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("error", [AdapterIncompatible(["a", "b"]), AdapterNotFound("gone"), Unavailable("busy")])
def test_a_failure_is_shared_passes_in_a_moment_and_takes_nothing_else_with_it(
    disk: Disk, error: QuickchangeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.3)
    memory = residency(disk)
    disk.errors[ONE] = error
    disk.gate.clear()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(memory.get, ONE, disk) for _ in range(8)]
        time.sleep(0.05)
        disk.gate.set()
        raised = [one.exception() for one in asked]
    for _ in range(50):
        with pytest.raises(type(error)) as again:
            memory.get(ONE, disk)
        raised.append(again.value)
    assert disk.reads == [ONE]
    assert {(type(one), str(one), getattr(one, "faults", ())) for one in raised} == {
        (type(error), str(error), getattr(error, "faults", ()))
    }
    assert memory.get(Ref("a", 2), disk)
    del disk.errors[ONE]
    time.sleep(0.3)
    assert memory.get(ONE, disk)


def test_a_failure_keeps_nothing_of_the_request_that_it_failed(disk: Disk) -> None:
    memory = residency(disk)
    disk.errors[ONE] = AdapterIncompatible(["broken"])

    def ask() -> weakref.ref[Loaded]:
        held = memory.get(Ref("a", 2), disk)
        with pytest.raises(AdapterIncompatible):
            memory.get(ONE, disk)
        return weakref.ref(held)

    held = ask()
    disk.errors.clear()
    memory.drop(Ref("a", 2))
    gc.collect()
    assert held() is None


def test_a_version_that_is_dropped_while_it_is_loaded_answers_those_that_wait_and_is_not_kept(disk: Disk) -> None:
    memory = residency(disk)
    disk.gate.clear()
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(memory.get, ONE, disk) for _ in range(2)]
        wait_until(lambda: disk.reads)
        memory.drop(ONE)
        disk.gate.set()
        assert asked[0].result() is asked[1].result()
    asked.clear()
    gc.collect()
    assert ONE not in memory and (memory.device.bytes, memory.host.bytes) == (0, 0)
    assert memory.get(ONE, disk) and ONE in memory


def test_a_version_parsed_elsewhere_is_kept_in_both_tiers(disk: Disk) -> None:
    memory = residency(disk)
    checked = Checked(10)
    memory.put(ONE, checked, memory.load(checked, disk))
    assert memory.get(ONE, disk).checked is checked and ONE in memory
    memory.device.drop(ONE)
    assert memory.get(ONE, disk).checked is checked and disk.reads == []
    memory.drop(ONE)
    assert ONE not in memory and memory.get(ONE, disk).checked is not checked
