"""What happens beyond capacity: who is answered how fast, who is refused how fast, and how soon all is normal again."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import median

import psutil

from loadtest.bench_http import full_load
from loadtest.client import open_loop
from loadtest.figures import Figure
from loadtest.outcome import OK, REFUSED, Outcome
from loadtest.plan import Bench, Curve, Part
from loadtest.served import asked, served

NORMAL, FLOOD = 0.8, 3.0  # offered load over capacity
CONNECTIONS = 64  # whose closed loop tells the capacity
SLOWER, REFUSED_WITHIN, FLAT, NORMAL_WITHIN = 2.0, 50.0, 1.02, 2.0
WINDOW = 0.5  # seconds, in which things are normal or not
SAMPLE = 0.5  # seconds between looks at memory
FILLED = 0.25  # the share of the flood after which every buffer has been filled once
MB = 1e6


@dataclass(frozen=True, slots=True)
class Flood:
    """One repeat: requests due at a normal load, in the flood and after it, and the server's memory in the flood.

    ``client`` is how many cores the client took on average over all of it.
    """

    capacity: float
    steady: Outcome
    flood: Outcome
    after: Outcome
    memory: Sequence[int]
    client: float


def overload(bench: Bench) -> Part:
    """The overload's figures, and throughput and p99 by offered load, for the first shape that is served."""
    shape, tenants, dtype = bench.plan.served[0], bench.plan.tenants, bench.dtype
    requests = [one.request for one in asked(bench, tenants)]
    with served(bench, shape, tenants, dtype=dtype) as server:
        floods = []
        for repeat in range(bench.repeats):
            bench.say(f"overload: {shape} {dtype}, repeat {repeat + 1} of {bench.repeats}")
            floods.append(_flood(bench, server.pid, server.port, requests, Random(repeat)))
        curves = _by_load(bench, server.port, requests, median(flood.capacity for flood in floods))
    return Part(figures(f"{shape} {dtype}", floods), curves)


def figures(what: str, floods: Sequence[Flood]) -> list[Figure]:
    """The rows of the overload, each with a value for each flood."""
    slower = [one.flood.milliseconds(0.99) / one.steady.milliseconds(0.99) for one in floods]
    cores = len(os.sched_getaffinity(0))
    detail = {
        "p99 ms": median(one.flood.milliseconds(0.99) for one in floods),
        f"p99 ms at {NORMAL:g}×": median(one.steady.milliseconds(0.99) for one in floods),
        "capacity requests/s": median(one.capacity for one in floods),
        "accepted/s": median(one.flood.rate for one in floods),
        "client's share %": 100 * median(one.client / cores for one in floods),
    }
    late = [one.flood.milliseconds(0.99, REFUSED) for one in floods if REFUSED in one.flood.status]
    refused = {"refused": sum(one.flood.count(lambda status: status == REFUSED) for one in floods)}
    note = "" if len(late) == len(floods) else "a flood was not refused"
    broken = [float(sum(part.count(_broken) for part in (one.steady, one.flood, one.after))) for one in floods]
    flat = [max(settled(one.memory)) / settled(one.memory)[0] for one in floods]
    resident = {"MB": median(one.memory[-1] for one in floods) / MB}
    again = [back_to_normal(one.after, one.steady.milliseconds(0.99)) for one in floods]
    what = f"{what}, {FLOOD:g}× capacity"
    return [
        Figure(f"{what}: p99 of the accepted / at {NORMAL:g}×", "×", SLOWER, slower, detail),
        Figure(f"{what}: p99 of a 429", "ms", REFUSED_WITHIN, late or [math.nan], refused, note),
        Figure(f"{what}: answers that are neither 200 nor 429", "", 0, broken),
        Figure(f"{what}: resident memory at its most / after a quarter", "×", FLAT, flat, resident),
        Figure(f"{what}: seconds until normal afterwards", "s", NORMAL_WITHIN, again),
    ]


def settled(memory: Sequence[int]) -> Sequence[int]:
    """The samples from when every buffer has been filled once."""
    return memory[int(FILLED * len(memory)) :]


def back_to_normal(after: Outcome, p99: float) -> float:
    """Seconds until the first of two windows in a row where all are answered, nine in ten within the normal p99."""
    windows = [after.between(i * WINDOW, (i + 1) * WINDOW) for i in range(int(after.seconds / WINDOW))]
    normal = [set(one.status) == {OK} and one.milliseconds(0.9) <= p99 for one in windows]
    return next((i * WINDOW for i, both in enumerate(pairwise(normal)) if all(both)), after.seconds)


def arrivals(rate: float, start: float, seconds: float, random: Random) -> list[float]:
    """Times of a Poisson process of so many a second, from ``start`` on for so long."""
    times, at = [], start + random.expovariate(rate)
    while at < start + seconds:
        times.append(at)
        at += random.expovariate(rate)
    return times


def _broken(status: int) -> bool:
    return status not in (OK, REFUSED)


def _flood(bench: Bench, pid: int, port: int, requests: Sequence[bytes], random: Random) -> Flood:
    """A normal load, three times the capacity, and a normal load again, with no pause between them."""
    plan = bench.plan
    capacity = full_load(port, requests, CONNECTIONS, plan.block).rate
    ends = (plan.steady, plan.steady + plan.flood, plan.steady + plan.flood + plan.after)
    times = [
        *arrivals(NORMAL * capacity, 0.0, plan.steady, random),
        *arrivals(FLOOD * capacity, ends[0], plan.flood, random),
        *arrivals(NORMAL * capacity, ends[1], plan.after, random),
    ]
    with _memory(pid) as samples:
        outcome = open_loop(port, requests, times, ends[2])
    memory = [resident for at, resident in samples if ends[0] <= at < ends[1]]
    steady, flood, after = outcome.between(0.0, ends[0]), outcome.between(ends[0], ends[1]), outcome.between(ends[1], ends[2])
    return Flood(capacity, steady, flood, after, memory, outcome.cpu / outcome.seconds)


@contextmanager
def _memory(pid: int) -> Iterator[list[tuple[float, int]]]:
    """A list that gets seconds from now, and a process's resident bytes then, for as long as the block lasts."""
    samples: list[tuple[float, int]] = []
    started, ending, process = time.perf_counter(), threading.Event(), psutil.Process(pid)

    def sample() -> None:
        while not ending.wait(SAMPLE):
            samples.append((time.perf_counter() - started, process.memory_info().rss))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ending.set()
        thread.join()


def _by_load(bench: Bench, port: int, requests: Sequence[bytes], capacity: float) -> dict[str, Curve]:
    """Answers a second and p99 of the accepted, by offered load; x is in requests a second."""
    random, found = Random(0), []
    for load in bench.plan.loads:
        bench.say(f"overload: {load:g} × capacity offered")
        found.append(open_loop(port, requests, arrivals(load * capacity, 0.0, bench.plan.step, random), bench.plan.step))
        time.sleep(bench.plan.step / 6)
    offered = [load * capacity for load in bench.plan.loads]
    return {
        "throughput-by-load": Curve(offered, {"answered": [one.rate for one in found], "offered": offered}),
        "p99-by-load": Curve(offered, {"accepted": [one.milliseconds(0.99) for one in found]}),
    }
