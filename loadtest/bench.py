"""``make bench``: what the README claims about speed and memory, measured here, against its bars.

python -m loadtest.bench --repeats 5
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Annotated

import httpx
import torch
import typer
from rich.console import Console

from loadtest import bench_server
from loadtest.bench_model import Model, Unprepared, adapter_tax
from loadtest.figures import Figure, table
from loadtest.machine import commit, load_average, machine, versions
from loadtest.server import ServerFailed, ServerProcess
from loadtest.texts import texts

ROOT = Path(__file__).resolve().parent.parent
console, errors = Console(highlight=False), Console(stderr=True, highlight=False)


def main(
    adapters: Annotated[Path, typer.Option(help="folder of adapters; a copy of it is served")] = ROOT / "adapters",
    data: Annotated[
        Path, typer.Option(help="TweetEval folder to take texts from; without it they are made up, as long as tweets are")
    ] = ROOT / "../shared/data/tweeteval/sentiment",
    base_model: Annotated[str, typer.Option(help="base model; the bars are for the default")] = "minilm",
    repeats: Annotated[int, typer.Option(min=3, help="of every measurement but the start-up")] = 5,
    starts: Annotated[int, typer.Option(min=1, help="of the server, each of them timed")] = 3,
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 when a bar is missed")] = False,
    output: Annotated[Path, typer.Option(help="folder for the JSON report")] = Path("reports"),
) -> None:
    """Measure the adapters' cost in a forward, start-up, latency through HTTP, push to first answer, and memory.

    Run it on a machine that does nothing else: the load average before and after is part of the report.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    started, before = datetime.now(UTC), load_average()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "adapters"
            shutil.copytree(adapters, copy)
            figures, source = measure(copy, data, base_model, repeats, starts)
    except (ServerFailed, Unprepared, FileNotFoundError) as error:
        errors.print(f"[bold red]error:[/] {error}", soft_wrap=True)
        raise typer.Exit(2) from None
    report = {
        "started": started.isoformat(timespec="seconds"), "commit": commit(ROOT), "machine": machine(), "versions": versions(),
        "threads": torch.get_num_threads(), "load_average": {"before": before, "after": load_average()},
        "base_model": base_model, "texts": source, "figures": [figure.as_json() for figure in figures],
    }  # fmt: skip
    show(report, figures)
    output.mkdir(parents=True, exist_ok=True)
    file = output / f"bench-{started:%Y%m%d-%H%M%S}.json"
    file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"report: {file}", soft_wrap=True)
    raise typer.Exit(1 if strict and not all(figure.met for figure in figures) else 0)


def measure(adapters: Path, data: Path, base_model: str, repeats: int, starts: int) -> tuple[list[Figure], str]:
    """Every figure, in the order of the README's table, and where the texts came from."""
    with console.status("batches on the model …") as status:
        words, source = load_texts(data)
        model = Model(base_model, adapters)
        tax = adapter_tax(model, words, repeats)
        log = adapters.with_name("server.log")
        to_ready = []
        for _ in range(starts - 1):
            status.update("starting servers …")
            with ServerProcess(adapters, log, base_model=base_model) as server:
                to_ready.append(server.seconds_to_ready)
        with ServerProcess(adapters, log, base_model=base_model) as server, httpx.Client(base_url=server.url, timeout=60) as http:
            to_ready.append(server.seconds_to_ready)
            status.update("requests, pushes, memory …")
            latency = bench_server.http_latency(server, model, words, repeats)
            push = bench_server.push(http, bench_server.bundle_of(adapters, "sentiment"), next(words), repeats)
            memory = bench_server.memory(server, http, words, repeats)
    return [tax, latency, bench_server.ready(to_ready), memory, push], source


def load_texts(data: Path) -> tuple[Iterator[str], str]:
    """Texts without end, shuffled from ``data`` where it is there, and a word on where they come from."""
    file = data / "val_text.txt"
    if not file.is_file():
        return texts(Random(0)), "made up, as long as tweets are"
    lines = [line.strip() for line in file.read_text("utf-8").split("\n") if line.strip()]
    Random(0).shuffle(lines)
    return cycle(lines), f"{data.parent.name}/{data.name}, validation"


def show(report: dict[str, object], figures: list[Figure]) -> None:
    """Print where it was measured, and the table."""
    where = machine()
    console.print(
        f"{where['processor']}, {where['cores']} cores, {report['threads']} threads, commit {report['commit']}, "
        f"texts: {report['texts']}, load average {report['load_average']}",
        soft_wrap=True,
    )
    console.print(table(figures))


if __name__ == "__main__":
    typer.run(main)
