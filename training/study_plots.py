"""Plots of studies and searches, in the style of all others."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.plots import COLOURS, DOTS, MARKERS, STYLE

Series = Mapping[str, Sequence[tuple[float, float, float]]]  # name → (x, mean, deviation)


def by_rank(series: Series, levels: Mapping[str, float], figure_name: str) -> bytes:
    """A figure by LoRA rank, a line a series with the deviation over seeds; ``levels``, such as full fine-tuning, go across."""
    with _style():
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for marker, colour, (name, points) in zip(MARKERS, COLOURS, series.items(), strict=False):
            ranks, means, deviations = zip(*points, strict=True)
            axes.errorbar(ranks, means, deviations, color=colour, marker=marker, capsize=2, elinewidth=1, label=name)
        for (name, level), line in zip(levels.items(), ("--", ":", "-."), strict=False):
            axes.axhline(level, color=COLOURS[5], linestyle=line, linewidth=1.2, label=name)
        ticks = sorted({point[0] for points in series.values() for point in points})
        axes.set(title=f"{figure_name.capitalize()} by rank", xlabel="LoRA rank", ylabel=figure_name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{rank:g}" for rank in ticks])
        axes.legend()
        return _png(figure)


def history(values: Sequence[tuple[int, float]], pruned: Sequence[tuple[int, float]], figure_name: str) -> bytes:
    """A search's trials, (number, figure), and the best so far; ``pruned`` have the figure at which they were stopped."""
    with _style():
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.add_subplot()
        best = [max(value for _, value in values[: place + 1]) for place in range(len(values))]
        axes.step([number for number, _ in values], best, where="post", color=COLOURS[1], label="best so far")
        axes.plot(*zip(*values, strict=True), color=COLOURS[0], marker="o", linestyle="", label="finished")
        if pruned:
            axes.plot(*zip(*pruned, strict=True), color=COLOURS[5], marker="x", linestyle="", label="stopped early")
        axes.set(title="Trials", xlabel="trial", ylabel=f"validation {figure_name}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        return _png(figure)


def importances(shares: Mapping[str, float]) -> bytes:
    """How much of the figure's variance each choice explains, the most first."""
    names = sorted(shares, key=lambda name: shares[name])
    with _style():
        figure = Figure(figsize=(6.4, 0.8 + 0.4 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh([name.replace("_", " ") for name in names], [shares[name] for name in names], color=COLOURS[0], height=0.6)
        axes.set(title="What decides the figure", xlabel="share of the variance explained")
        return _png(figure)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(cast("Any", STYLE))


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=DOTS, format="png", metadata={"Software": None})
    return file.getvalue()
