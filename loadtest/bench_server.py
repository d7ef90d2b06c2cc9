"""What the whole server costs: start-up, one request's latency, memory, and the time from a push to its first answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import httpx
import psutil

from loadtest.bench_model import Model
from loadtest.figures import Figure
from loadtest.images import drawing
from loadtest.server import ServerProcess
from loadtest.swap import NAME, SwapBundle
from loadtest.texts import question
from loadtest.timing import seconds

TEXTS, WARM_UP, SETTLE = 25, 5, 0.1
PUSHES_EACH, IMAGES = 3, 12
GB = 1e9


def ready(seconds_to_ready: Sequence[float]) -> Figure:
    """Start-up, from the process's first instruction to the first ready answer."""
    return Figure("start of the process to ready", "s", 20.0, seconds_to_ready)


def http_latency(server: ServerProcess, model: Model, texts: Iterator[str], repeats: int) -> Figure:
    """One text a request against the bare forward of the same text, in blocks so that the two never compete for cores."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    ratios, http_ms, bare_ms = [], [], []
    for _ in range(repeats):
        block = list(islice(texts, TEXTS))
        by_http = _typical([seconds(lambda text=text: _ask(connection, text)) for text in _warm(block)])  # type: ignore[misc]  # mypy cannot type a lambda's default
        time.sleep(SETTLE)
        bare = _typical([model.seconds(model.batch([text], [None])) for text in _warm(block)])
        time.sleep(SETTLE)
        ratios.append(by_http / bare)
        http_ms.append(1e3 * by_http)
        bare_ms.append(1e3 * bare)
    connection.close()
    return Figure(
        "one text through HTTP / bare forward", "×", 2.0, ratios, {"http ms": median(http_ms), "bare ms": median(bare_ms)}
    )


def _warm(block: Sequence[str]) -> list[str]:
    return [*block[:WARM_UP], *block]


def _typical(times: Sequence[float]) -> float:
    return median(times[WARM_UP:])


def _ask(connection: HTTPConnection, text: str) -> None:
    body = json.dumps({"text": text})
    connection.request("POST", "/v1/sentiment", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != httpx.codes.OK:
        raise RuntimeError(f"the server answered {answer.status} {answer.read()[:200]!r}")
    answer.read()


def push(http: httpx.Client, bundle: SwapBundle, text: str, repeats: int) -> Figure:
    """Upload of a new version, and the first request that it answers; each time the answer must be its own."""
    blocks = [range(start, start + PUSHES_EACH) for start in range(0, repeats * PUSHES_EACH, PUSHES_EACH)]
    times = [median(_push(http, bundle, text, serial) for serial in block) for block in blocks]
    return Figure("push of an adapter to its first answer", "s", 1.0, times)


def _push(http: httpx.Client, bundle: SwapBundle, text: str, serial: int) -> float:
    version = bundle.version(serial)
    files = {part: (part, data) for part, data in version.files.items()}
    started = time.perf_counter()
    published = http.post(f"/v1/adapters/{NAME}/versions", files=files, data={"alias": "live"})
    answer = http.post("/v1/classify", json={"text": text, "adapter": NAME})
    elapsed = time.perf_counter() - started
    wanted = (f"{NAME}:{published.raise_for_status().json()['version']}", version.label)
    found = (answer.raise_for_status().headers["x-adapter"], answer.json()["label"])
    if found != wanted:
        raise RuntimeError(f"expected {wanted}, got {found}")
    return elapsed


def memory(server: ServerProcess, http: httpx.Client, texts: Iterator[str], repeats: int) -> Figure:
    """Resident memory of the server after texts for every adapter, one by one and in full batches, and new images."""
    live = {adapter["name"]: adapter["task"] for adapter in http.get("/v1/adapters").json()["adapters"] if adapter["aliases"]}
    random, resident = Random(1), []
    for _ in range(repeats):
        for name, task in live.items():
            if task == "text-classification":
                _classify(http, name, texts)
            else:
                _look(http, name, random)
        resident.append(_resident(server.pid) / GB)
    note = "" if any(task != "text-classification" for task in live.values()) else "no adapter for images is live"
    return Figure("resident memory after traffic to everything", "GB", 1.5, resident, {"adapters": len(live)}, note)


def _classify(http: httpx.Client, name: str, texts: Iterator[str]) -> None:
    contents: list[dict[str, Any]] = [{"text": next(texts)}, {"texts": list(islice(texts, 64))}]
    for content in contents:
        http.post("/v1/classify", json={**content, "adapter": name}).raise_for_status()


def _look(http: httpx.Client, name: str, random: Random) -> None:
    for _ in range(IMAGES):
        form = {"question": question(random), "adapter": name}
        http.post("/v1/vqa", files={"image": ("image.jpg", drawing(random))}, data=form).raise_for_status()


def _resident(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


def bundle_of(adapters: Path, name: str) -> SwapBundle:
    """A live adapter's bundle, as the template of the versions that are pushed."""
    version = json.loads((adapters / name / "registry.json").read_bytes())["aliases"]["live"]
    return SwapBundle.read(adapters / name / str(version))
