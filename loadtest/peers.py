"""``make bench-peers``: a server that a user would run instead, measured side by side with ours through HTTP.

python -m loadtest.peers --repeats 5

The peer is Infinity with one merged model; ours serves 64 adapters on a base model of the same shape. While one is measured,
the other is stopped by a signal, so that they never share the cores.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated

import httpx
import typer
from rich.console import Console

from loadtest.bases import SHAPES, write_classifier
from loadtest.bench_http import WrongAnswers, full_load
from loadtest.client import post
from loadtest.figures import Figure
from loadtest.outcome import Outcome
from loadtest.plan import HERE, REHEARSAL, Bench, Part, Plan, load_texts
from loadtest.report import ROOT, Report, progress
from loadtest.served import REQUESTS, asked, served
from loadtest.server import ServerFailed, free_port

INFINITY = ROOT / ".venv/peers/bin/infinity_emb"
SHAPE = "TinyBERT"
PEER, OURS, PLAIN = "Infinity", "ours", "ours in fp32"
Outcomes = Mapping[tuple[str, int], Sequence[Outcome]]
LONGEST_START, LONGEST_STOP = 300.0, 20.0  # it measures itself before it starts
SETTLE = 0.5
errors = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Row:
    """What is compared at so many connections, and its bars."""

    what: str
    connections: int
    value: Callable[[Outcome], float]
    bar: float
    stretch: float
    at_least: bool = False


ROWS = (
    Row("requests/s", 32, lambda outcome: outcome.rate, 3.0, 4.5, at_least=True),
    Row("p99 in ms", 32, lambda outcome: outcome.milliseconds(0.99), 0.5, 0.3),
    Row("p50 in ms", 1, lambda outcome: outcome.milliseconds(0.5), 0.6, 0.4),
)


@dataclass(frozen=True, slots=True)
class Contender:
    """A running server: its process, its port, and the requests to send to it."""

    pid: int
    port: int
    requests: Sequence[bytes]

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for the length of the block, and stop it then."""
        os.kill(self.pid, signal.SIGCONT)
        time.sleep(SETTLE)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGSTOP)


def main(
    data: Annotated[
        Path, typer.Option(help="TweetEval folder to take texts from; without it they are made up, as long as tweets are")
    ] = ROOT / "../shared/data/tweeteval/sentiment",
    infinity: Annotated[Path, typer.Option(help="Infinity's command")] = INFINITY,
    repeats: Annotated[int, typer.Option(min=3, help="of every measurement")] = 3,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="tiny sizes, whose figures mean nothing")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 when a bar is missed")] = False,
    output: Annotated[Path, typer.Option(help="folder for the JSON report")] = Path("reports"),
) -> None:
    """Measure requests/s, p99 and p50 over Infinity's, on one TinyBERT shape: one merged model there, 64 adapters here."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    report = Report("peers", {"dtype": HERE[-1], "texts": load_texts(data)[1], "rehearsal": rehearse})
    try:
        with tempfile.TemporaryDirectory() as scratch, progress() as say:
            plan = REHEARSAL if rehearse else Plan()
            report.add("peers", peers(Bench(Path(scratch), Path(scratch), data, SHAPE, HERE, repeats, plan, say), infinity))
    except (ServerFailed, WrongAnswers) as error:
        errors.print(f"[bold red]error:[/] {error}", soft_wrap=True)
        raise typer.Exit(2) from None
    report.write(output)
    raise typer.Exit(1 if strict and not all(figure.met for figure in report.figures) else 0)


def peers(bench: Bench, infinity: Path) -> Part:
    """Blocks of the two servers in turns; ours also in float32, as Infinity computes, where it would serve in another type."""
    outcomes: dict[tuple[str, int], list[Outcome]] = defaultdict(list)
    with ExitStack() as stack:
        contenders = _start(bench, infinity, stack)
        for repeat in range(bench.repeats):
            for name, contender in contenders.items():
                bench.say(f"{name}, repeat {repeat + 1} of {bench.repeats}")
                with contender.awake():
                    for connections in dict.fromkeys(row.connections for row in ROWS):
                        load = full_load(contender.port, contender.requests, connections, bench.plan.block)
                        outcomes[name, connections].append(load)
    return Part([figure for name in contenders if name != PEER for figure in compare(name, outcomes)])


def _start(bench: Bench, infinity: Path, stack: ExitStack) -> dict[str, Contender]:
    """Start every server, and stop it by a signal until its turn; the peer comes first."""
    mix = asked(bench, bench.plan.tenants)
    found = {PEER: stack.enter_context(_infinity(bench, infinity))}
    dtypes = {OURS: bench.dtype} if bench.dtype == "fp32" else {OURS: bench.dtype, PLAIN: "fp32"}
    for name, dtype in dtypes.items():
        server = stack.enter_context(served(bench, SHAPE, bench.plan.tenants, dtype=dtype))
        found[name] = Contender(server.pid, server.port, [one.request for one in mix])
    for contender in found.values():
        os.kill(contender.pid, signal.SIGSTOP)
        stack.callback(os.kill, contender.pid, signal.SIGCONT)  # a stopped process would not end
    return found


@contextmanager
def _infinity(bench: Bench, infinity: Path) -> Iterator[Contender]:
    """Infinity with one merged classifier, as its own documentation starts it."""
    if not infinity.is_file():
        raise ServerFailed(f"{infinity}: no Infinity there; 'make bench-peers' installs it")
    bench.say("starting Infinity")
    folder, port, log = write_classifier(SHAPES[SHAPE], bench.scratch / "merged"), free_port(), bench.scratch / "infinity.log"
    model = ["--model-id", str(folder), "--served-model-name", "merged", "--engine", "torch", "--device", "cpu"]
    command = [str(infinity), "v2", *model, "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **quiet}, stdout=out, stderr=out)  # noqa: S603  # our own command
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        texts = islice(bench.texts(), REQUESTS)
        yield Contender(process.pid, port, [post("/classify", {"model": "merged", "input": [text]}) for text in texts])
    finally:
        process.terminate()
        try:
            process.wait(LONGEST_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=LONGEST_START).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
    raise ServerFailed(f"Infinity did not start: {' '.join(last)}")


def compare(name: str, outcomes: Outcomes) -> Iterator[Figure]:
    """One of our servers over Infinity's; the bars are for the one that computes as it does by default."""
    for row in ROWS:
        pairs = list(zip(outcomes[name, row.connections], outcomes[PEER, row.connections], strict=True))
        detail = {who: median(row.value(pair[side]) for pair in pairs) for side, who in enumerate((name, PEER))}
        bar, stretch = (row.bar, row.stretch) if name == OURS else (None, None)
        ratios = [row.value(mine) / row.value(theirs) for mine, theirs in pairs]
        what = f"{SHAPE}, {name} / {PEER}: {row.what}, connections: {row.connections}"
        yield Figure(what, "×", bar, ratios, detail, stretch=stretch, at_least=row.at_least)


if __name__ == "__main__":
    typer.run(main)
