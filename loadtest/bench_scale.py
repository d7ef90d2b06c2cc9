"""What it costs to have ten thousand adapters: start-up, memory, the first request to a cold one, upload to answer.

python -m loadtest.bench_scale --repeats 3
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Annotated

import httpx
import psutil
import typer
from rich.console import Console

from loadtest.bench_server import bundle_of, push
from loadtest.copies import TEMPLATE, Folders, build
from loadtest.figures import Figure, table
from loadtest.load import percentile
from loadtest.server import ServerFailed, ServerProcess
from loadtest.swap import UnusableBundle
from loadtest.texts import texts

ROOT = Path(__file__).resolve().parent.parent
MB = 1e6
console, errors = Console(highlight=False), Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of the measurement; the bars are for the defaults.

    ``visited`` adapters get traffic while ``device_bytes`` and ``host_bytes`` hold a tenth of them; ``first`` requests a
    repeat go to cold adapters, beside as many to warm ones; ``crowd`` is how many clients ask for cold adapters at a time.
    """

    adapters: int = 10_000
    visited: int = 3_000
    device_bytes: int = 400_000_000
    host_bytes: int = 200_000_000
    first: int = 300
    crowd: int = 4


REHEARSAL = Scale(200, 100, 600_000, 200_000, 10, 2)


def main(
    adapters: Annotated[Path, typer.Option(help="folder of adapters with a live 'sentiment', which is copied")] = ROOT
    / "adapters",
    base_model: Annotated[str, typer.Option(help="base model; the bars are for the default")] = "minilm",
    repeats: Annotated[int, typer.Option(min=3, help="of every measurement")] = 3,
) -> None:
    """Serve ten thousand copies of an adapter, and measure what their number costs."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        with tempfile.TemporaryDirectory() as scratch, console.status("copying adapters …"):
            figures = measure(adapters, Path(scratch), base_model, repeats)
    except (ServerFailed, UnusableBundle, FileNotFoundError) as error:
        errors.print(f"[bold red]error:[/] {error}", soft_wrap=True)
        raise typer.Exit(2) from None
    console.print(table(figures))


def measure(adapters: Path, scratch: Path, base_model: str, repeats: int, scale: Scale = Scale()) -> list[Figure]:
    """Every figure of the many adapters; everything is written below ``scratch``.

    Raises :class:`FileNotFoundError` or :class:`UnusableBundle` where no live ``sentiment`` is among ``adapters``.
    """
    folders = build(adapters, scratch, scale.adapters)
    starting = start_up(folders, scratch, base_model, repeats)
    settings = {"base_model": base_model, "max_lora_bytes": scale.device_bytes, "max_cpu_lora_bytes": scale.host_bytes}
    log = scratch / "server.log"
    with ServerProcess(folders.one, log, **settings) as server:
        empty = _resident(server)
    with ServerProcess(folders.many, log, **settings) as server:
        words = texts(Random(0))
        grown = memory(server, words, folders.names[: scale.visited], empty, repeats, scale)
        cold, warm = cycle(folders.names[scale.visited :]), folders.names[: scale.crowd]
        first = first_requests(server, words, cold, warm, repeats, scale)
        beside = beside_a_crowd(server, words, cold, warm, repeats, scale)
        with httpx.Client(base_url=server.url, timeout=60) as http:
            pushed = push(http, bundle_of(folders.given, TEMPLATE), next(words), repeats)
    served = Figure(f"{scale.adapters:,} adapters: upload to answer", "ms", 250, [1e3 * s for s in pushed.repeats], stretch=100)
    return [starting, grown, first, served, beside]


def start_up(folders: Folders, scratch: Path, base_model: str, repeats: int) -> Figure:
    """Start-up with all adapters, less that with the given ones, in turns."""
    pairs = []
    for _ in range(repeats):
        pair = []
        for folder in (folders.given, folders.many):
            with ServerProcess(folder, scratch / "server.log", base_model=base_model) as server:
                pair.append(server.seconds_to_ready)
        pairs.append(pair)
    what = f"{len(folders.names):,} more adapters: extra start-up"
    detail = {"without them s": median(pair[0] for pair in pairs), "with them s": median(pair[1] for pair in pairs)}
    return Figure(what, "s", 2.0, [many - few for few, many in pairs], detail, stretch=0.5)


def memory(server: ServerProcess, words: Iterator[str], names: Sequence[str], empty: int, repeats: int, scale: Scale) -> Figure:
    """What the server takes beyond one that has seen no adapter but one, over both budgets, under uniform traffic."""
    client, random, ratios = Client(server), Random(1), []
    budget = scale.device_bytes + scale.host_bytes
    for _ in range(repeats):
        for name in random.choices(names, k=len(names)):
            client.seconds(next(words), name)
        ratios.append((_resident(server) - empty) / budget)
    client.close()
    detail = {"adapters visited": len(names), "budget MB": budget / MB, "at start MB": empty / MB}
    return Figure(f"{scale.adapters:,} adapters: resident memory over budget", "×", 1.1, ratios, detail, stretch=1.0)


def first_requests(
    server: ServerProcess, words: Iterator[str], cold: Iterator[str], warm: Sequence[str], repeats: int, scale: Scale
) -> Figure:
    """p99 of first requests to adapters less that of requests to warm ones, in turns; memory is full, so each evicts some."""
    client, again, found = Client(server), cycle(warm), []
    for name in warm:
        client.seconds(next(words), name)
    for _ in range(repeats):
        pairs = []
        for name in islice(cold, scale.first):
            text = next(words)
            pairs.append((client.seconds(text, name), client.seconds(text, next(again))))
        found.append([1e3 * percentile([pair[i] for pair in pairs], share) for i in (0, 1) for share in (0.5, 0.99)])
    client.close()
    extra = [cold_p99 - warm_p99 for _, cold_p99, _, warm_p99 in found]
    parts = ("cold p50", "cold p99", "warm p50", "warm p99")
    detail = {f"{part} ms": median(times[i] for times in found) for i, part in enumerate(parts)}
    return Figure(f"{scale.adapters:,} adapters: p99 of a first request, extra", "ms", 50, extra, detail, stretch=15)


def beside_a_crowd(
    server: ServerProcess, words: Iterator[str], cold: Iterator[str], warm: Sequence[str], repeats: int, scale: Scale
) -> Figure:
    """p99 of requests to a warm adapter while a crowd of clients asks for cold ones, over that while it asks for warm ones."""
    client, ratios, times = Client(server), [], []
    for _ in range(repeats):
        p99 = []
        for names in (cold, cycle(warm)):
            with crowd(server, words, names, scale.crowd):
                p99.append(1e3 * percentile([client.seconds(next(words), warm[0]) for _ in range(scale.first)], 0.99))
        ratios.append(p99[0] / p99[1])
        times.append(p99)
    client.close()
    detail = {"beside cold ms": median(p99[0] for p99 in times), "beside warm ms": median(p99[1] for p99 in times)}
    return Figure(f"p99 of a warm adapter beside {scale.crowd} clients of cold ones / of warm ones", "×", None, ratios, detail)


@contextmanager
def crowd(server: ServerProcess, words: Iterator[str], names: Iterator[str], count: int) -> Iterator[None]:
    """So many clients that ask for the names in turn for as long as the block lasts; an error of any is raised at its end."""
    ending, lock = threading.Event(), threading.Lock()

    def ask() -> None:
        client = Client(server)
        while not ending.is_set():
            with lock:
                text, name = next(words), next(names)
            client.seconds(text, name)
        client.close()

    with ThreadPoolExecutor(count) as threads:
        asking = [threads.submit(ask) for _ in range(count)]
        try:
            yield
        finally:
            ending.set()
    for one in asking:
        one.result()


class Client:
    """One connection to a server, kept open."""

    def __init__(self, server: ServerProcess) -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.close = self._connection.close

    def seconds(self, text: str, name: str) -> float:
        """The time of a request for one text and adapter, which must be answered by that adapter."""
        body = json.dumps({"text": text, "adapter": name})
        started = time.perf_counter()
        self._connection.request("POST", "/v1/classify", body, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        elapsed = time.perf_counter() - started
        if answer.status != httpx.codes.OK or not answer.headers["x-adapter"].startswith(f"{name}:"):
            raise RuntimeError(f"asked for {name}, the server answered {answer.status} {content[:200]!r}")
        return elapsed


def _resident(server: ServerProcess) -> int:
    resident: int = psutil.Process(server.pid).memory_info().rss
    return resident


if __name__ == "__main__":
    typer.run(main)
