"""Plots of a training, as the bytes of PNG files: one calm style, made without a display."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix as count_pairs
from torch import Tensor

from training.calibration import BINS, expected_calibration_error

DOTS = 130
MOST_LABELS = 25  # of a confusion matrix: the most frequent ones
MOST_NUMBERED = 15  # labels up to which the cells have their counts written in
LONGEST = 18  # characters of a label
COLOURS = ("#3b6ea5", "#d1793b", "#4f9d69", "#9c5fa3", "#b8474a", "#6b7280", "#c2a33b", "#3f9fa8")
MARKERS = "osD^vP*X"
STYLE: dict[str, Any] = {
    "axes.edgecolor": "#9aa1ab",
    "axes.grid": True,
    "axes.labelcolor": "#374151",
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": "#1f2937",
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.parse_math": False,  # labels are other people's words, dollar signs and all
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A place in :func:`size_against_accuracy`: megabytes, accuracy from 0 to 1, perhaps its interval, and a group."""

    name: str
    megabytes: float
    accuracy: float
    interval: tuple[float, float] | None = None
    group: str = ""


def learning_curves(curve: Sequence[Mapping[str, float]]) -> bytes:
    """Losses on the left and every other figure on the right, by epoch."""
    names = [name for name in dict.fromkeys(name for point in curve for name in point) if name != "epoch"]
    losses = [name for name in names if "loss" in name]
    others = [name for name in names if name not in losses]
    with _style():
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes, title, shown in ((left, "Loss", losses), (right, "On validation", others)):
            for marker, name in zip(MARKERS, shown, strict=False):
                points = [(point["epoch"], point[name]) for point in curve if name in point]
                axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, label=name.replace("_", " "))
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if shown:
                axes.legend()
        return _png(figure)


def confusion_matrix(true: Sequence[int], predicted: Sequence[int], labels: Sequence[str]) -> bytes:
    """How often each true label, a row, was given as which label, a column; the shade is the share of its row.

    Of many labels the most frequent are shown.
    """
    frequent = np.bincount(np.asarray(true), minlength=len(labels)).argsort(kind="stable")[::-1][:MOST_LABELS]
    chosen = sorted(frequent.tolist())
    counts = count_pairs(true, predicted, labels=range(len(labels)))[np.ix_(chosen, chosen)]
    shares = counts / np.maximum(np.bincount(np.asarray(true), minlength=len(labels))[chosen, None], 1)
    names = [_short(labels[label]) for label in chosen]
    side = 2.2 + 0.42 * len(chosen) if len(chosen) > 4 else 4.2  # noqa: PLR2004 - inches
    with _style(**{"axes.grid": False}):
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        if len(chosen) <= MOST_NUMBERED:
            _write_counts(axes, counts, shares)
        hidden = "" if len(chosen) == len(labels) else f", the {len(chosen)} most frequent of {len(labels)}"
        axes.set(title=f"True against given labels{hidden}", xlabel="given", ylabel="true")
        return _png(figure)


def reliability(logits: Tensor, labels: Sequence[int]) -> bytes:
    """How often the best label is right, by its probability, beside the diagonal on which the two agree."""
    probability, given = (column.numpy() for column in logits.detach().double().cpu().softmax(-1).max(-1))
    right = given == np.asarray(labels)
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, BINS - 1)
    rows = np.bincount(place, minlength=BINS)
    share = np.bincount(place, weights=right, minlength=BINS) / np.maximum(rows, 1)
    middles, width = (edges[:-1] + edges[1:]) / 2, 0.92 / BINS
    with _style():
        figure = Figure(figsize=(4.4, 4.8), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color="#9aa1ab", linestyle="--", linewidth=1)
        above.bar(middles, share, width=width, color=COLOURS[0])
        above.set(title=f"Reliability, ECE {expected_calibration_error(logits, labels):.3f}", ylabel="share right", ylim=(0, 1))
        below.bar(middles, rows / max(len(right), 1), width=width, color=COLOURS[5])
        below.set(xlabel="probability of the label given", ylabel="share of rows", xlim=(0, 1))
        return _png(figure)


def size_against_accuracy(points: Sequence[Point]) -> bytes:
    """Accuracy by the size of what is stored, on a logarithmic scale; a colour a group."""
    with _style():
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for marker, colour, group in zip(MARKERS, COLOURS, dict.fromkeys(point.group for point in points), strict=False):
            for point in (point for point in points if point.group == group):
                low, high = point.interval or (point.accuracy, point.accuracy)
                error = [[max(point.accuracy - low, 0)], [max(high - point.accuracy, 0)]]
                axes.errorbar(point.megabytes, point.accuracy, error, color=colour, marker=marker, capsize=2, elinewidth=1)
                axes.annotate(_short(point.name), (point.megabytes, point.accuracy), xytext=(5, 5), textcoords="offset points")
            if group:
                axes.plot([], [], color=colour, marker=marker, linestyle="", label=group)
        axes.set(title="Size against accuracy", xlabel="stored megabytes", ylabel="accuracy", xscale="log")
        axes.margins(0.12)
        axes.xaxis.set_major_formatter("{x:g}")
        if any(point.group for point in points):
            axes.legend()
        return _png(figure)


def _write_counts(axes: Axes, counts: Any, shares: Any) -> None:
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "#374151"  # noqa: PLR2004 - half-way to the darkest
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


@contextmanager
def _style(**changes: Any) -> Iterator[None]:
    with mpl.rc_context(cast("Any", STYLE | changes)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a label in a script that the font lacks
        yield


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=DOTS, format="png", metadata={"Software": None})
    return file.getvalue()
