"""``make loadtest``: locust against a running server, a report, a table, and an exit code that says whether it held.

python -m loadtest.run --users 16 --rate 40 --duration 30
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from loadtest.summary import KINDS, SWAP_STEPS, Endpoint, Summary, Thresholds, missed
from loadtest.swap import NAME, SwapBundle, UnusableBundle, clean

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
TEXT_TASK = "text-classification"
DEFAULT_P99 = {"sentiment": 500.0, "classify": 500.0, "vqa": 1500.0, "swap": 3000.0}
GRACE = 60.0  # seconds that locust gets beyond the duration, to start, stop and write its report
console, errors = Console(highlight=False), Console(stderr=True, highlight=False)


class CannotRun(Exception):
    """The load test cannot be made; the text is one line that says why."""


def main(
    host: Annotated[str, typer.Option(help="address of the server")] = "http://127.0.0.1:8000",
    users: Annotated[int, typer.Option(min=2, help="users at a time; one of them swaps an adapter every second")] = 16,
    duration: Annotated[float, typer.Option(min=1, help="seconds")] = 30.0,
    rate: Annotated[float, typer.Option(min=0, help="requests a second to aim at; 0: as fast as the answers come")] = 40.0,
    mix: Annotated[str, typer.Option(help=f"weights of {', '.join(KINDS)}; a weight of 0 leaves a kind out")] = "6,3,1",
    swap_bundle: Annotated[
        Path, typer.Option(help=f"text adapter's bundle to make versions of {NAME!r} from; it must fit the server's base model")
    ] = Path("adapters/irony/1"),
    key: Annotated[str | None, typer.Option(envvar="QUICKCHANGE_API_KEY", help="API key, where the server wants one")] = None,
    failure_ratio: Annotated[float, typer.Option(help="threshold: failed requests at most, as a share of all")] = 0.0,
    min_rate: Annotated[
        float | None, typer.Option(help="threshold: requests a second at least; without it, 0.8 of the rate aimed at")
    ] = None,
    p99: Annotated[
        list[str] | None,
        typer.Option(help=f"threshold: KIND=MS at most; defaults: {' '.join(f'{k}={v:g}' for k, v in DEFAULT_P99.items())}"),
    ] = None,
    output: Annotated[Path, typer.Option(help="folder for the reports")] = Path("reports"),
) -> None:
    """Load a running server with predictions and adapter swaps, and fail when a threshold is missed.

    Exit code 0: every threshold held; 1: one was missed; 2: the test could not be made.
    """
    with one_line_errors(host):
        weights = parse_mix(mix)
        required = [kind for kind, weight in zip(KINDS, weights, strict=True) if weight]
        thresholds = Thresholds(
            failure_ratio, 0.8 * rate if min_rate is None else min_rate, parse_p99(p99 or []), [*required, *SWAP_STEPS]
        )
        SwapBundle.read(swap_bundle)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(base_url=host, headers=headers, timeout=30) as http:
            options: dict[str, Sequence[object]] = {
                "host": [host], "users": [users], "spawn-rate": [users], "run-time": [f"{duration:g}s"], "rate": [rate],
                "mix": weights, "text-adapters": text_adapters(http, required), "swap-bundle": [swap_bundle],
            }  # fmt: skip
            folder = output / f"loadtest-{datetime.now():%Y%m%d-%H%M%S}"
            folder.mkdir(parents=True)
            clean(http)
            try:
                summary = run_locust(options, folder, key, duration)
            finally:
                clean(http)
    raise typer.Exit(judge(summary, thresholds, folder))


@contextmanager
def one_line_errors(host: str) -> Iterator[None]:
    """End the command with one line and exit code 2 when the test could not be made."""
    try:
        yield
        return
    except (CannotRun, UnusableBundle) as error:
        line = str(error)
    except httpx.TransportError:
        line = f"no server answers at {host}; start one with 'make serve', or name it by --host"
    except httpx.HTTPStatusError as error:
        line = f"{error.request.method} {error.request.url}: {error.response.status_code} {error.response.text}"
    errors.print(f"[bold red]error:[/] {line}", soft_wrap=True)
    raise typer.Exit(2)


def parse_mix(mix: str) -> list[float]:
    """The weights in ``6,3,1``."""
    try:
        weights = [float(weight) for weight in mix.split(",")]
    except ValueError:
        weights = []
    if len(weights) != len(KINDS) or min(weights) < 0 or not sum(weights):
        raise CannotRun(f"--mix {mix}: expected a weight for each of {', '.join(KINDS)}, such as 6,3,1")
    return weights


def parse_p99(given: Sequence[str]) -> dict[str, float]:
    """The default thresholds with those given as ``KIND=MS`` over them."""
    bars = dict(DEFAULT_P99)
    for one in given:
        kind, _, limit = one.partition("=")
        if kind not in bars or not limit.replace(".", "", 1).isdigit():
            raise CannotRun(f"--p99 {one}: expected KIND=MS, with a kind out of {', '.join(bars)}")
        bars[kind] = float(limit)
    return bars


def text_adapters(http: httpx.Client, required: Sequence[str]) -> list[str]:
    """The live text adapters; raises :class:`CannotRun` when one that the mix needs is not there."""
    answer = http.get("/v1/adapters")
    if not answer.is_success or "adapters" not in answer.json():
        raise CannotRun(f"{http.base_url} answered {answer.status_code} to GET /v1/adapters; a Quickchange server is expected")
    live = {found["name"]: found["task"] for found in answer.json()["adapters"] if "live" in found["aliases"]}
    texts = [name for name, task in live.items() if task == TEXT_TASK and name != NAME]
    lacking = [name for name in ("sentiment", "vqa") if name in required and name not in live]
    if lacking or not texts:
        raise CannotRun(f"the server has no live adapter {lacking[0] if lacking else 'for texts'!r}; see --mix")
    return texts


def run_locust(options: Mapping[str, Sequence[object]], folder: Path, key: str | None, duration: float) -> Summary:
    """Run locust in a process of its own; its report, tables and log go into ``folder``."""
    summary = folder / "summary.json"
    files = {"html": folder / "report.html", "csv": folder / "locust", "logfile": folder / "locust.log", "summary": summary}
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--exit-code-on-error", "0"]  # the thresholds judge failures
    for name, values in {**options, **{name: [file] for name, file in files.items()}}.items():
        command += [f"--{name}", *map(str, values)]
    environment = {**os.environ, **({"QUICKCHANGE_API_KEY": key} if key else {})}
    with console.status(f"loading the server for {duration:g} s …"), (folder / "locust.out").open("wb") as out:
        try:
            subprocess.run(command, env=environment, stdout=out, stderr=out, timeout=duration + GRACE, check=False)  # noqa: S603  # our own file
        except subprocess.TimeoutExpired:
            raise CannotRun(f"locust did not end; see {folder}") from None
    if not summary.is_file():
        raise CannotRun(f"locust ended without figures; see {folder / 'locust.log'} and locust.out")
    return Summary.read(summary)


def judge(summary: Summary, thresholds: Thresholds, folder: Path) -> int:
    """Print the figures and what was missed; the exit code."""
    console.print(table(summary))
    for error in summary.errors:
        console.print(f"[red]failed:[/] {error}", soft_wrap=True)
    misses = missed(summary, thresholds)
    for miss in misses:
        console.print(f"[bold red]missed:[/] {miss}", soft_wrap=True)
    if not misses:
        console.print("[bold green]every threshold held[/]")
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    return 1 if misses else 0


def table(summary: Summary) -> Table:
    """The figures of each kind of request; times are in milliseconds, and those of the server are median / 95th percentile."""
    made = Table(box=None, pad_edge=False, title="milliseconds; queue and inference: p50/p95 in the server")
    made.add_column("request", no_wrap=True)
    for name in ("count", "failed", "per s", "p50", "p95", "p99", "queue", "inference"):
        made.add_column(name, justify="right", no_wrap=True)
    for endpoint in [*sorted(summary.endpoints, key=_place), summary.total]:
        figures = (endpoint.rate, endpoint.p50, endpoint.p95, endpoint.p99)
        name = "all" if endpoint is summary.total else endpoint.kind
        shown = [f"{figure:.1f}" for figure in figures]
        shown += [_pair(endpoint.server, "queue"), _pair(endpoint.server, "inference")]
        made.add_row(name, str(endpoint.requests), str(endpoint.failures), *shown)
    return made


def _pair(times: Mapping[str, float], name: str) -> str:
    found = [times[f"{name}_{percent}"] for percent in ("p50", "p95") if f"{name}_{percent}" in times]
    return "/".join(f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in found)  # noqa: PLR2004  # three digits say enough


def _place(endpoint: Endpoint) -> int:
    order = [*KINDS, *SWAP_STEPS]
    return order.index(endpoint.kind) if endpoint.kind in order else len(order)


if __name__ == "__main__":
    typer.run(main)
