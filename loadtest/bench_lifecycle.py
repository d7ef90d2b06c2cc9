"""What changes of adapters cost: an alias that moves, a list of ten thousand, an upload, a registry that is full."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from loadtest.bench_server import bundle_of
from loadtest.copies import TEMPLATE
from loadtest.figures import Figure
from loadtest.load import percentile
from loadtest.made_up import names
from loadtest.plan import Bench, Part
from loadtest.server import ServerProcess
from loadtest.swap import NAME, SwapBundle
from service.store.change import Found
from service.store.loading import AT_ONCE
from service.store.registry import Registry
from service.store.upkeep import LOCAL

MOVES, UPLOADS = 100, 5  # in a repeat
VERSIONS = 3  # of each registered adapter
PAGE = 500
ADAPTERS, REHEARSED = 10_000, 30
ALIAS = f"/v1/adapters/{NAME}/aliases/live"


def lifecycle(bench: Bench) -> Part:
    """Changes through HTTP beside a registry of ten thousand adapters, and what it adds to the start."""
    size = REHEARSED if bench.plan.rehearsal else ADAPTERS
    bench.say(f"lifecycle: registering {size:,} adapters with {VERSIONS} versions each")
    bundle = bundle_of(bench.adapters, TEMPLATE)
    full = bench.scratch / "lifecycle"
    shutil.copytree(bench.adapters, full)
    register(full, size)
    bench.say("lifecycle: start-up, moves of an alias, lists, uploads")
    starting = start_up(bench, full, size)
    server = ServerProcess(full, bench.scratch / "server.log", base_model=bench.base_model)
    with server, httpx.Client(base_url=server.url, timeout=60) as http:
        uploaded = uploads(http, bundle, count(), bench.repeats)
        moved = moves(http, bench.texts(), bench.repeats)
        listed = lists(http, size, bench.repeats)
    return Part([moved, *listed, uploaded, starting])


def register(folder: Path, size: int) -> None:
    """Register so many adapters, whose versions share the manifest of one that is there; no files of them are needed."""
    registry = Registry.open(folder)
    manifest = registry.manifests(registry.get(TEMPLATE))[registry.resolve(TEMPLATE).version]
    found = [
        Found(name, dict.fromkeys(range(1, VERSIONS + 1), manifest.model_copy(update={"name": name})), frozenset(), {})
        for name in names(size)
    ]
    for start in range(0, size, AT_ONCE):
        with registry.records.change(LOCAL) as changes:
            changes.bring_in(found[start : start + AT_ONCE])
    registry.close()


def start_up(bench: Bench, full: Path, size: int) -> Figure:
    """Start-up with all adapters registered, less that with the given ones, in turns."""
    pairs = []
    for _ in range(bench.repeats):
        pair = []
        for folder in (bench.adapters, full):
            with ServerProcess(folder, bench.scratch / "server.log", base_model=bench.base_model) as server:
                pair.append(server.seconds_to_ready)
        pairs.append(pair)
    detail = {"without them s": median(few for few, _ in pairs), "with them s": median(many for _, many in pairs)}
    return Figure(f"{size:,} registered adapters: extra start-up", "s", 2.0, [many - few for few, many in pairs], detail)


def moves(http: httpx.Client, texts: Iterator[str], repeats: int) -> Figure:
    """p99 from a move's first byte to its answer; the very next request must be answered by the version that was named."""
    versions, found = [version["version"] for version in _get(http, f"/v1/adapters/{NAME}")["versions"]][-2:], []
    for _ in range(repeats):
        seconds = []
        for turn in range(MOVES):
            version = versions[turn % 2]
            started = time.perf_counter()
            http.put(ALIAS, json={"version": version}).raise_for_status()
            seconds.append(time.perf_counter() - started)
            answer = http.post("/v1/classify", json={"text": next(texts), "adapter": NAME}).raise_for_status()
            if answer.json()["version"] != version:
                raise RuntimeError(f"moved to version {version}, answered by {answer.json()['version']}")
        found.append([1e3 * percentile(seconds, share) for share in (0.5, 0.99)])
    detail = {"p50 ms": median(p50 for p50, _ in found)}
    return Figure("p99 from an alias's move to its effect", "ms", 50, [p99 for _, p99 in found], detail)


def lists(http: httpx.Client, size: int, repeats: int) -> list[Figure]:
    """The longest of the pages of a list of all adapters, and all of them."""
    pages, usual, whole = list[float](), list[float](), list[float]()
    gc.freeze()  # a collection of all that this process has loaded takes longer than a page
    for _ in range(repeats):
        seconds, seen = list[float](), 0
        after: str | None = ""
        while after is not None:
            started = time.perf_counter()
            page = _get(http, f"/v1/adapters?limit={PAGE}&after={after}")
            seconds.append(time.perf_counter() - started)
            seen, after = seen + len(page["adapters"]), page["next"]
        if seen < size:
            raise RuntimeError(f"{seen} adapters in the list, of {size}")
        pages.append(1e3 * max(seconds))
        usual.append(1e3 * median(seconds))
        whole.append(sum(seconds))
    what = f"{size:,} adapters with {VERSIONS} versions each"
    page_figure = Figure(f"{what}: a page of {PAGE:,}", "ms", 200, pages, {"median ms": median(usual)})
    return [page_figure, Figure(f"{what}: the whole list", "s", None, whole)]


def uploads(http: httpx.Client, bundle: SwapBundle, serials: Iterator[int], repeats: int) -> Figure:
    """A version of its own each time, from the upload's first byte to the answer 201, which tells that it is durable."""
    found, size = [], 0
    for _ in range(repeats):
        seconds = []
        for serial in (next(serials) for _ in range(UPLOADS)):
            files = {part: (part, data) for part, data in bundle.version(serial).files.items()}
            size = sum(len(data) for _, data in files.values())
            started = time.perf_counter()
            answer = http.post(f"/v1/adapters/{NAME}/versions", files=files)
            seconds.append(time.perf_counter() - started)
            if answer.status_code != httpx.codes.CREATED:
                raise RuntimeError(f"an upload was answered by {answer.status_code} {answer.text[:200]}")
        found.append(1e3 * median(seconds))
    return Figure("upload of an adapter, durable", "ms", 500, found, {"MB": size / 1e6})


def _get(http: httpx.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(path).raise_for_status().json()
    return found
