"""Plots of a report's curves, one idea each.

python -m loadtest.plots reports/bench-20261123-120000.json --output docs/plots
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

SIZE, DOTS = (6.4, 4.0), 150
MARKERS = "osD^vP*Xh"


@dataclass(frozen=True, slots=True)
class Look:
    """A plot's title and axes; those whose letters are in ``logarithmic`` are, and ``reference`` is a horizontal line."""

    title: str
    x: str
    y: str
    logarithmic: str = ""
    reference: float | None = None


LOOKS = {
    "throughput-by-load": Look("Throughput by offered load", "offered requests/s", "answered requests/s"),
    "p99-by-load": Look("Waiting by offered load", "offered requests/s", "p99 of the answered, ms", "y"),
    "throughput-by-adapters": Look(
        "What adapters cost a forward", "adapters that the rows choose from", "throughput / the bare base model's", "x", 1.0
    ),
    "p99-by-adapters": Look(
        "Waiting by number of adapters, 32 connections", "adapters that the requests choose from", "p99, ms", "x"
    ),
}


def main(
    report: Annotated[Path, typer.Argument(help="JSON report of a benchmark")],
    output: Annotated[Path, typer.Option(help="folder for the plots")] = Path("docs/plots"),
) -> None:
    """Draw the curves of a report."""
    for file in draw(report, output):
        print(file)


def draw(report: Path, output: Path) -> list[Path]:
    """Draw every curve of a report into a file of its name, and return the files."""
    content = json.loads(report.read_text("utf-8"))
    output.mkdir(parents=True, exist_ok=True)
    return [_draw(LOOKS[name], curve, output / f"{name}.png") for name, curve in content["curves"].items()]


def _draw(look: Look, curve: Mapping[str, Any], file: Path) -> Path:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    for marker, (name, line) in zip(MARKERS, curve["y"].items(), strict=False):
        axes.plot(curve["x"], [math.nan if value is None else value for value in line], marker=marker, label=name)
    if look.reference is not None:
        axes.axhline(look.reference, color="grey", linewidth=1, linestyle="--")
    if "x" in look.logarithmic:
        axes.set_xscale("log")
        axes.set_xticks(curve["x"], [f"{value:,g}" for value in curve["x"]])
        axes.minorticks_off()
    if "y" in look.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    elif look.reference is None:
        axes.set_ylim(bottom=0, top=1.1 * axes.get_ylim()[1])
    axes.set(title=look.title, xlabel=look.x, ylabel=look.y)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=DOTS)
    return file


if __name__ == "__main__":
    typer.run(main)
