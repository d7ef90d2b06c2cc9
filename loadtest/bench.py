"""``make bench``: what the README claims about speed and memory, measured here, against its bars.

python -m loadtest.bench --only forward,http --repeats 5
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from loadtest import bench_scale
from loadtest.bases import SHAPES
from loadtest.bench_basics import basics
from loadtest.bench_forward import forward
from loadtest.bench_http import WrongAnswers, http
from loadtest.bench_lifecycle import lifecycle
from loadtest.bench_model import Unprepared
from loadtest.bench_overload import overload
from loadtest.bench_peft import peft
from loadtest.bench_training import training
from loadtest.bench_training_jobs import training_jobs
from loadtest.bench_vqa import vqa
from loadtest.plan import HERE, REHEARSAL, Bench, Part, Plan, load_texts
from loadtest.plots import draw
from loadtest.report import ROOT, Report, progress
from loadtest.server import ServerFailed
from loadtest.swap import UnusableBundle
from service.models.linear import Dtype


def scale(bench: Bench) -> Part:
    """What ten thousand adapters cost."""
    bench.say("scale: start-up, memory and first requests with many adapters; this takes minutes")
    sizes = bench_scale.REHEARSAL if bench.plan.rehearsal else bench_scale.Scale()
    return Part(bench_scale.measure(bench.adapters, bench.scratch / "scale", bench.base_model, bench.repeats, sizes))


PARTS: Mapping[str, Callable[[Bench], Part]] = {
    "basics": basics,
    "forward": forward,
    "peft": peft,
    "http": http,
    "overload": overload,
    "scale": scale,
    "lifecycle": lifecycle,
    "vqa": vqa,
    "training": training,
    "training-jobs": training_jobs,
}
errors = Console(stderr=True, highlight=False)


def main(
    only: Annotated[str, typer.Option(help=f"parts to measure, separated by commas: {', '.join(PARTS)}")] = ",".join(PARTS),
    adapters: Annotated[Path, typer.Option(help="folder of adapters; a copy of it is served")] = ROOT / "adapters",
    data: Annotated[
        Path, typer.Option(help="TweetEval folder to take texts from; without it they are made up, as long as tweets are")
    ] = ROOT / "../shared/data/tweeteval/sentiment",
    base_model: Annotated[str, typer.Option(help="base model of basics, scale and vqa; the bars are for the default")] = "minilm",
    shapes: Annotated[str | None, typer.Option(help=f"shapes of forward and peft, of {', '.join(SHAPES)}")] = None,
    dtypes: Annotated[
        str,
        typer.Option(help=f"dtypes of forward, of {', '.join(HERE)} on this processor; the last is that of the other parts"),
    ] = ",".join(HERE),
    repeats: Annotated[int, typer.Option(min=3, help="of every measurement but the start-up")] = 3,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="tiny sizes, whose figures mean nothing")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="exit with 1 when a bar is missed")] = False,
    output: Annotated[Path, typer.Option(help="folder for the JSON report and its plots")] = Path("reports"),
) -> None:
    """Measure forwards, PEFT beside them, HTTP, overload, thousands of adapters, images, training, start-up and memory.

    Each is set against its bar.

    Run it on a machine that does nothing else: the load average before and after is part of the report.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    chosen = _chosen("--only", only, tuple(PARTS))
    kinds = cast("tuple[Dtype, ...]", _chosen("--dtypes", dtypes, HERE))
    plan = REHEARSAL if rehearse else Plan()
    if shapes is not None:
        plan = replace(plan, shapes=_chosen("--shapes", shapes, tuple(SHAPES)))
    report = Report("bench", {"base model": base_model, "dtypes": dtypes, "texts": load_texts(data)[1], "rehearsal": rehearse})
    try:
        with tempfile.TemporaryDirectory() as scratch, progress() as say:
            copy = Path(scratch) / "adapters"
            shutil.copytree(adapters, copy)
            bench = Bench(copy, Path(scratch), data, base_model, kinds, repeats, plan, say)
            for name in chosen:
                report.add(name, PARTS[name](bench))
    except (ServerFailed, Unprepared, UnusableBundle, WrongAnswers, FileNotFoundError) as error:
        _fail(str(error))
    finally:
        if report.parts:
            draw(report.write(output), output)
    raise typer.Exit(1 if strict and not all(figure.met for figure in report.figures) else 0)


def _chosen(option: str, given: str, accepted: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in given.split(","))
    if unknown := [name for name in names if name not in accepted]:
        _fail(f"{option} {unknown[0]}: expected some of {', '.join(accepted)}")
    return names


def _fail(line: str) -> None:
    errors.print(f"[bold red]error:[/] {line}", soft_wrap=True)
    raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
