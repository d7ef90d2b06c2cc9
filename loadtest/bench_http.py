"""What is left of the forward's speed behind HTTP, and how late a health check gets under full load."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import median

from loadtest import made_up
from loadtest.bench_forward import load_adapters, load_classifier, token_batches
from loadtest.client import Probe, closed_loop, get, probed
from loadtest.figures import Figure
from loadtest.outcome import OK, Outcome
from loadtest.plan import Bench, Curve, Part
from loadtest.served import Asked, asked, served
from service.models.linear import Dtype
from service.models.text_classifier import LoadedTextAdapter, Row, TextClassifier
from service.models.tokenizer import TextTokenizer

CONNECTIONS = (32, 64)
LEFT, LEFT_STRETCH = 0.6, 0.8
LATEST_CHECK = 20.0  # ms
SETTLE, WARM = 0.1, 0.25
CHECK = Probe(get("/health/live"))
ANSWER_BYTES = 300


class WrongAnswers(Exception):
    """The server did not answer everything with 200; the text says what it answered."""


def http(bench: Bench) -> Part:
    """HTTP over offline throughput by shape, health checks meanwhile, and what the number of adapters changes."""
    figures = [figure for shape in bench.plan.served for figure in _over_offline(bench, shape, bench.dtype)]
    return Part([*figures, own_cost(bench)], {"p99-by-adapters": _by_adapters(bench, bench.plan.served[0], bench.dtype)})


def full_load(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Outcome:
    """A closed loop, after a short one to warm up; raises :class:`WrongAnswers`."""
    closed_loop(port, requests, connections, WARM * seconds)
    return _right(closed_loop(port, requests, connections, seconds))


def _right(outcome: Outcome) -> Outcome:
    found = sorted(set(outcome.status) - {OK})
    if found:
        raise WrongAnswers(f"a server answered with {', '.join(map(str, found))} under full load; expected 200 alone")
    return outcome


def _over_offline(bench: Bench, shape: str, dtype: Dtype) -> list[Figure]:
    tenants, plan = bench.plan.tenants, bench.plan
    mix = asked(bench, tenants)
    requests = [one.request for one in mix]
    offline = Offline(bench, shape, dtype, mix)
    rates: list[float] = []
    loads: dict[int, list[Outcome]] = defaultdict(list)
    checks: list[float] = []
    with served(bench, shape, tenants, dtype=dtype) as server:
        for repeat in range(bench.repeats):
            bench.say(f"HTTP: {shape} {dtype}, repeat {repeat + 1} of {bench.repeats}")
            rates.append(offline.rate(plan.block))
            for connections in CONNECTIONS:
                time.sleep(SETTLE)
                loads[connections].append(full_load(server.port, requests, connections, plan.block))
            checks.append(_right(probed(server.port, requests, connections, plan.block, CHECK)[1]).milliseconds(0.99))
    what = f"{shape} {dtype}, {tenants} adapters"
    left = [
        Figure(
            f"{what}: HTTP requests/s at {connections} connections / offline forward", "×", LEFT,
            [load.rate / rate for load, rate in zip(found, rates, strict=True)],
            {**summary(found), "offline texts/s": median(rates)}, stretch=LEFT_STRETCH, at_least=True,
        )
        for connections, found in loads.items()
    ]  # fmt: skip
    return [*left, Figure(f"{what}: p99 of /health/live under {CONNECTIONS[-1]} connections", "ms", LATEST_CHECK, checks)]


def summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Medians over the repeats; the client's share is of all cores' time."""
    cores = len(os.sched_getaffinity(0))
    return {
        "requests/s": median(one.rate for one in outcomes),
        "p50 ms": median(one.milliseconds(0.5) for one in outcomes),
        "p99 ms": median(one.milliseconds(0.99) for one in outcomes),
        "client's share %": 100 * median(one.cpu / one.seconds / cores for one in outcomes),
    }


class Offline:
    """The same texts through the same adapters without any server: tokenised before, in batches under the token budget."""

    def __init__(self, bench: Bench, shape: str, dtype: Dtype, mix: Sequence[Asked]) -> None:
        folder = bench.base(shape)
        self._classifier: TextClassifier = load_classifier(folder, dtype)
        loaded = load_adapters(self._classifier, made_up.SERVED, bench.plan.tenants)
        adapters: dict[str, LoadedTextAdapter] = dict(zip(made_up.names(bench.plan.tenants), loaded, strict=True))
        worn = iter(adapters[one.adapter] for one in mix)
        batches = token_batches((one.text for one in mix), TextTokenizer(str(folder)), bench.plan.tokens)
        self._batches = [[Row(ids, next(worn)) for ids in batch] for batch in batches]

    def rate(self, seconds: float) -> float:
        """Texts a second over so many seconds."""
        done, batches = 0, cycle(self._batches)
        self._run(next(batches))
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            done += self._run(next(batches))
        return done / elapsed

    def _run(self, rows: Sequence[Row]) -> int:
        self._classifier.forward(self._classifier.collate(rows))
        return len(rows)


def own_cost(bench: Bench) -> Figure:
    """What the client costs, against a server that computes nothing."""
    requests = [one.request for one in asked(bench, bench.plan.tenants)]
    with null_server() as port:
        outcomes = [closed_loop(port, requests, CONNECTIONS[0], bench.plan.block / 4) for _ in range(bench.repeats)]
    cost = [1e6 * one.cpu / len(one) for one in outcomes]
    what = "the client's own processor time a request, against a server that does nothing"
    return Figure(what, "µs", None, cost, {"requests/s": median(one.rate for one in outcomes)})


@contextmanager
def null_server() -> Iterator[int]:
    """The port of a server that computes nothing."""
    command = [sys.executable, "-m", "loadtest.null_server", str(ANSWER_BYTES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603  # our own file
        try:
            yield int(process.stdout.readline() if process.stdout else b"")
        finally:
            process.terminate()


def _by_adapters(bench: Bench, shape: str, dtype: Dtype) -> Curve:
    """p99 and throughput at 32 connections by how many adapters the requests choose from, all of them loaded."""
    outcomes: dict[int, list[Outcome]] = defaultdict(list)
    with served(bench, shape, max(bench.plan.live), dtype=dtype) as server:
        for repeat in range(bench.repeats):
            for live in bench.plan.live:
                bench.say(f"HTTP: {shape} {dtype}, {live} adapters, repeat {repeat + 1} of {bench.repeats}")
                requests = [one.request for one in asked(bench, live)]
                outcomes[live].append(full_load(server.port, requests, CONNECTIONS[0], bench.plan.block))
    found = [summary(outcomes[live]) for live in bench.plan.live]
    return Curve(bench.plan.live, {f"{shape} {dtype}": [one["p99 ms"] for one in found]})
