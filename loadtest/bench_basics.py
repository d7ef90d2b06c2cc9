"""The shipped adapters on the default server: their cost in a batch, start-up, latency, memory, push to first answer."""

from __future__ import annotations

from functools import partial

import httpx

from loadtest import bench_server
from loadtest.bench_model import Model, adapter_tax
from loadtest.plan import Bench, Part
from loadtest.server import ServerProcess


def basics(bench: Bench) -> Part:
    """The figures of the README's first table, in its order."""
    words, base_model = bench.texts(), bench.base_model
    bench.say("basics: batches on the model")
    model = Model(base_model, bench.adapters)
    tax = adapter_tax(model, words, bench.repeats)
    to_ready = []
    start = partial(ServerProcess, bench.adapters, bench.scratch / "basics.log", base_model=base_model)
    for number in range(1, bench.plan.starts):
        bench.say(f"basics: start {number} of {bench.plan.starts}")
        with start() as server:
            to_ready.append(server.seconds_to_ready)
    bench.say("basics: the last start, requests, pushes, memory")
    server = start()
    with server, httpx.Client(base_url=server.url, timeout=60) as http:
        to_ready.append(server.seconds_to_ready)
        latency = bench_server.http_latency(server, model, words, bench.repeats)
        push = bench_server.push(http, bench_server.bundle_of(bench.adapters, "sentiment"), next(words), bench.repeats)
        memory = bench_server.memory(server, http, words, bench.repeats)
    return Part([tax, latency, bench_server.ready(to_ready), memory, push])
