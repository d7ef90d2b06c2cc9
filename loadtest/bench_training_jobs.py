"""What a training beside them costs the predictions of the same server."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from statistics import median
from typing import Any

import httpx

from loadtest.bench_http import full_load
from loadtest.bench_overload import arrivals
from loadtest.client import open_loop
from loadtest.figures import Figure
from loadtest.outcome import OK, Outcome
from loadtest.plan import Bench, Part
from loadtest.served import asked, served

JOBS = "/v1/training-jobs"
LOAD = 0.3  # of the capacity: predictions then wait for each other seldom, so that p99 tells what the training adds
CONNECTIONS = 8  # whose closed loop tells the capacity
SLOWER = 2.0
ROWS, OPTIONS = 4000, {"epochs": 1000, "batch_size": 32}  # more than any measurement lasts
LONGEST_START = 180.0


def training_jobs(bench: Bench) -> Part:
    """p99 of predictions during a training over p99 without one, at the same arrivals, in turns."""
    shape, tenants = bench.plan.served[0], bench.plan.tenants
    requests = [one.request for one in asked(bench, tenants)]
    settings = {"max_training_jobs": 1, "jobs_dir": bench.scratch / "jobs", "dtype": bench.dtype}
    pairs, speeds = [], []
    with served(bench, shape, tenants, **settings) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        rate = LOAD * full_load(server.port, requests, CONNECTIONS, bench.plan.block).rate
        for repeat in range(bench.repeats):
            bench.say(f"training-jobs: {shape} {bench.dtype}, repeat {repeat + 1} of {bench.repeats}")
            times = arrivals(rate, 0.0, bench.plan.steady, Random(repeat))
            alone = open_loop(server.port, requests, times, bench.plan.steady)
            with training(http, bench) as job:
                beside = open_loop(server.port, requests, times, bench.plan.steady)
                speeds.append(http.get(f"{JOBS}/{job}").raise_for_status().json()["progress"]["texts_per_second"])
            pairs.append((alone, beside))
    return Part([figure(f"{shape} {bench.dtype}", rate, pairs, speeds)])


def figure(what: str, rate: float, pairs: Sequence[tuple[Outcome, Outcome]], speeds: Sequence[float]) -> Figure:
    """The row of the training, with a value for each pair of a measurement without it and one beside it."""
    slower = [beside.milliseconds(0.99) / alone.milliseconds(0.99) for alone, beside in pairs]
    refused = sum(one.count(lambda status: status != OK) for pair in pairs for one in pair)
    detail = {
        "p99 ms": median(beside.milliseconds(0.99) for _, beside in pairs),
        "p99 ms alone": median(alone.milliseconds(0.99) for alone, _ in pairs),
        "p50 ms": median(beside.milliseconds(0.5) for _, beside in pairs),
        "p50 ms alone": median(alone.milliseconds(0.5) for alone, _ in pairs),
        "requests/s": rate,
        "trained texts/s": median(speeds),
    }
    note = f"{refused} answers were not 200" if refused or any(math.isnan(value) for value in slower) else ""
    return Figure(f"{what}: p99 of predictions during a training / without", "×", SLOWER, slower, detail, note)


@contextmanager
def training(http: httpx.Client, bench: Bench) -> Iterator[str]:
    """A training that takes its steps while the block runs; its id. It is cancelled after that."""
    texts = bench.texts()
    rows = [json.dumps({"text": next(texts), "label": ("a", "b")[i % 2]}) for i in range(ROWS)]
    form = {"name": "trained", "options": json.dumps(OPTIONS)}
    files = {"data": ("texts.jsonl", "\n".join(rows).encode())}
    job = http.post(JOBS, data=form, files=files).raise_for_status().json()["id"]
    try:
        _wait(lambda: bool((_job(http, job).get("progress") or {}).get("step")))
        yield job
    finally:
        http.delete(f"{JOBS}/{job}").raise_for_status()
        _wait(lambda: _job(http, job)["state"] == "cancelled")


def _job(http: httpx.Client, job: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"{JOBS}/{job}").raise_for_status().json()
    if found["state"] in ("failed", "succeeded"):
        raise RuntimeError(f"the training {found['state']} during the measurement: {found['error']}")
    return found


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_START
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the training did not get there within {LONGEST_START:g} s")
        time.sleep(0.1)
