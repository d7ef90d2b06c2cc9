"""A server process under recognisable traffic, and what it takes of the machine before and after."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtest.server import ServerProcess
from service.models.linear import COMPUTED_IN, Dtype
from tests.soak.recognisable import Maker
from tests.soak.traffic import Count, Traffic

ADAPTERS, KEPT = 24, 3  # versions of each that exist at a time
DEVICE_BYTES, HOST_BYTES = 800_000, 400_000
WARM = 3  # one part in so many of the traffic comes first, again: then Python and the libraries have what they keep
GROWTH = 0.02  # of the resident memory, up or down
SETTLING = 10.0  # seconds for a server to close what its clients have left
# Obstore's runtime begins a thread whenever its others are busy writing files, and ends it after ten idle seconds.
COMES_AND_GOES = "tokio-rt-worker"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process takes: resident memory in bytes, descriptors by what they lead to, threads but for the object store's."""

    resident: int
    descriptors: tuple[str, ...]
    threads: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        """The process as it is once two looks in a row find the same descriptors and threads."""
        process, end = psutil.Process(pid), time.monotonic() + SETTLING
        before: tuple[tuple[str, ...], int] = ((), 0)
        while (now := (_descriptors(process), len(_threads(pid)))) != before and time.monotonic() < end:
            before = now
            time.sleep(0.5)
        return cls(process.memory_info().rss, *now)


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a run found; ``loads`` and ``evictions`` are the device's during the counted traffic."""

    count: Count
    before: Footprint
    after: Footprint
    loads: int
    evictions: int

    @property
    def growth(self) -> float:
        """Resident memory that came, as a share of what there was."""
        return self.after.resident / self.before.resident - 1

    @property
    def faults(self) -> list[str]:
        """All that should not be, in words."""
        found = list(self.count.faults)
        if abs(self.growth) > GROWTH:
            found.append(f"resident memory changed by {100 * self.growth:+.1f} %; at most {100 * GROWTH:g} % is accepted")
        for change, more, less in (("opened", self.after, self.before), ("closed", self.before, self.after)):
            changed = Counter(more.descriptors) - Counter(less.descriptors)
            found += [f"{count} descriptors {change}: {what}" for what, count in changed.items()]
        if self.after.threads != self.before.threads:
            found.append(f"{self.after.threads} threads, {self.before.threads} before")
        return found


def soak(base: Path, scratch: Path, requests: int, rounds: int, say: Callable[[str], None], dtype: Dtype = "fp32") -> Soaked:
    """Serve the base model in ``base`` to at least so many requests during at least so many rounds, after fewer to warm up.

    It computes in ``dtype``. Everything is written below ``scratch``; ``say`` is told how it goes.
    """
    say("making adapters, and their answers")
    maker = Maker(base, scratch, dtype)
    device_bytes = DEVICE_BYTES * COMPUTED_IN[dtype].itemsize // COMPUTED_IN["fp32"].itemsize  # for as many versions
    settings = {"base_model": base, "dtype": dtype, "max_lora_bytes": device_bytes, "max_cpu_lora_bytes": HOST_BYTES}
    with ServerProcess(scratch / "adapters", scratch / "server.log", **settings) as server:
        traffic = Traffic(server.port, maker, [f"tenant-{number:02}" for number in range(ADAPTERS)], KEPT)
        traffic.fill()
        warm = traffic.run(requests // WARM, rounds // WARM, lambda text: say(f"warming up: {text}"))
        before, start = Footprint.of(server.pid), _device(server)
        count = traffic.run(requests, rounds, say)
        after, end = Footprint.of(server.pid), _device(server)
    for fault in warm.faults:
        count.fault(f"while warming up: {fault}")
    return Soaked(count, before, after, end["loads"] - start["loads"], end["evictions"] - start["evictions"])


def _descriptors(process: psutil.Process) -> tuple[str, ...]:
    """What each of a process's descriptors leads to, sorted: a file, or a kind of what is none, with a connection's state."""
    states = {connection.fd: connection.status for connection in process.net_connections()}
    found = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # one that has just been closed
            kind = re.sub(r":\[\d+\]", "", str(link.readlink()))
            found.append(f"{kind} {states.get(int(link.name), '')}".strip())
    return tuple(sorted(found))


def _threads(pid: int) -> list[str]:
    """The names of a process's threads that are there to stay."""
    names = []
    for file in Path(f"/proc/{pid}/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
            names.append(file.read_text("ascii", "replace").strip())
    return [name for name in names if name != COMES_AND_GOES]


def _device(server: ServerProcess) -> dict[str, int]:
    """Adapter versions that came to the device and that were evicted from it, since the server's start."""
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)
    samples = {(sample.name, sample.labels.get("memory")): sample.value for family in families for sample in family.samples}
    return {what: int(samples[f"quickchange_adapter_{what}_total", "device"]) for what in ("loads", "evictions")}
