"""The report on frozen towers for visual question answering: what each pair gives, what guessing gives, and how sure that is."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.plots import COLOURS, DOTS, STYLE
from training.report import Report, Table, interval
from training.statistics import bootstrap_interval, paired_bootstrap
from training.vqa_data import Example, VqaData
from training.vqa_measure import NO_WORDNET, THRESHOLDS, Similarity, correct, figures
from training.vqa_run import BASELINES

Values = NDArray[np.float64]
ALL = "all"
GUESSING = {"question": "question only", "image": "image only"}
NOTES = (
    "Accuracy is the share of questions whose first answer is given; **any** counts each of several answers as right. "
    "Intervals are 95 % bootstrap intervals over questions, of the mean over seeds: they say nothing of other images.",
    "**Question only** and **image only** are the same heads trained without the other tower: what is reached by guessing from "
    "how answers are distributed. Only what is above them was seen in the picture, or read in the question.",
)
WUPS = (
    "WUPS is that of DAQUAR's authors: the lesser product over both sets of answers of each one's best match, by Wu and Palmer's "
    "similarity in WordNet's nouns, a tenth of it below the threshold."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One pair of towers with one seed: the data it answered, and what its result file holds."""

    name: str
    seed: int
    data: VqaData
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One pair of towers on one split, over its seeds."""

    name: str
    outcomes: Sequence[Outcome]
    split: str

    @property
    def examples(self) -> Sequence[Example]:
        """The questions that it answered."""
        return self.outcomes[0].data.splits[self.split]

    @property
    def right(self) -> Values:
        """The share of seeds with which each question got its first answer, (n,)."""
        return self._mean_right([outcome.result["predicted"][self.split] for outcome in self.outcomes])

    def guessed(self, sees: str) -> Values:
        """The same of the heads that see one tower alone."""
        return self._mean_right([outcome.result["guessed"][sees][self.split] for outcome in self.outcomes])

    def figures(self, alike: Similarity | None) -> dict[str, float]:
        """Means over seeds."""
        found = [figures(outcome.result["predicted"][self.split], self.examples, alike) for outcome in self.outcomes]
        return {name: float(np.mean([figure[name] for figure in found])) for name in found[0]}

    def mean(self, name: str) -> float:
        """A cost's mean over seeds."""
        return float(np.mean([outcome.result[name] for outcome in self.outcomes]))

    def of_kind(self, kind: str) -> NDArray[np.bool_]:
        """Which questions are of a type."""
        return np.array([kind in (ALL, example.kind) for example in self.examples])

    def _mean_right(self, answers: Sequence[Sequence[str]]) -> Values:
        mean: Values = np.mean([correct(given, self.examples) for given in answers], axis=0, dtype=np.float64)
        return mean


def report_of(outcomes: Sequence[Outcome], source: str, alike: Similarity | None) -> tuple[Report, Table]:
    """The report, and its first table for the terminal."""
    report = Report(f"Frozen towers on {source}")
    data = outcomes[0].data
    sizes = ", ".join(f"{len(part):,} {split}" for split, part in data.splits.items())
    report.text(f"{source}: {sizes} questions, {len(data.answers):,} answers, {len({o.seed for o in outcomes})} seeds a pair.")
    report.text(*NOTES, WUPS if alike is not None else NO_WORDNET)
    for split in (name for name in data.splits if name != "train"):
        rows = [Row(name, [o for o in outcomes if o.name == name], split) for name in dict.fromkeys(o.name for o in outcomes)]
        report.heading(f"On {split}")
        _add_overall(report, rows, alike)
        report.plot(bars(rows, [ALL], f"Accuracy on {split}"), f"Accuracy on {split}")
        kinds = sorted({example.kind for example in rows[0].examples})
        _add_kinds(report, rows, kinds)
        report.plot(bars(rows, kinds, f"By type of question, {split}"), f"Accuracy by type of question on {split}")
        report.figures[split] = {row.name: row.figures(alike) | _guessing(row) for row in rows}
    report.heading("Learning")
    report.plot(curves(outcomes), "Learning curves")
    report.text("Held-out accuracy after each epoch is the mean of the members by themselves; nothing is picked by it.")
    return report, next(block for block in report.blocks if isinstance(block, Table))


def _add_overall(report: Report, rows: Sequence[Row], alike: Similarity | None) -> None:
    measured = [f"wups_{threshold}" for threshold in THRESHOLDS] if alike is not None else []
    several = any(len(example.accepted) > 1 for example in rows[0].examples)
    wups = [name.replace("wups_", "WUPS ") for name in measured]
    columns = ["towers", "accuracy", "95 %", *(["any"] if several else []), *wups, *GUESSING.values(),
               "difference", "its 95 %", "p", "MB", "ms an image", "training s"]  # fmt: skip
    cells = []
    for row in rows:
        found = row.figures(alike)
        extra = [f"{found['accuracy_any']:.4f}"] if several else []
        extra += [f"{found[name]:.4f}" for name in measured] + [f"{row.guessed(sees).mean():.4f}" for sees in BASELINES]
        costs = [f"{row.mean('bytes') / 1e6:.2f}", f"{row.mean('image_ms'):.1f}", f"{row.mean('seconds'):.0f}"]
        shown = [row.name, f"{found['accuracy']:.4f}", interval(*bootstrap_interval(row.right))]
        cells.append([*shown, *extra, *_difference(rows[0], row), *costs])
    report.table(columns, cells, f"Each pair of towers; differences are from {rows[0].name}")


def _difference(first: Row, row: Row) -> list[str]:
    """What the row has more than the first one on the same questions, its interval, and the p-value."""
    if row is first or len(row.examples) != len(first.examples):
        return ["–", "–", "–"]
    paired = paired_bootstrap(np.zeros(len(row.examples)), first.right, row.right, lambda _, right: float(right.mean()))
    return [f"{paired.difference:+.4f}", interval(paired.low, paired.high), f"{paired.p_value:.3f}"]


def _add_kinds(report: Report, rows: Sequence[Row], kinds: Sequence[str]) -> None:
    cells = []
    for row in rows:
        shown = {row.name: row.right, **{f"{row.name}: {GUESSING[sees]}": row.guessed(sees) for sees in BASELINES}}
        for name, right in shown.items():
            cells.append([name, *(f"{right[row.of_kind(kind)].mean():.4f}" for kind in kinds)])
    counts = [f"{kind} ({int(rows[0].of_kind(kind).sum()):,})" for kind in kinds]
    report.table(["towers", *counts], cells, "By type of question")


def _guessing(row: Row) -> dict[str, float]:
    return {f"accuracy_{sees}_only": float(row.guessed(sees).mean()) for sees in BASELINES}


def bars(rows: Sequence[Row], kinds: Sequence[str], title: str) -> bytes:
    """Accuracy of each pair with its interval, by type of question; a line across each bar is what the question alone gives."""
    width = 0.8 / len(rows)
    with mpl.rc_context(cast("Any", STYLE)):
        drawing = Figure(figsize=(7.6, 3.8), layout="constrained")
        axes = drawing.add_subplot()
        for place, row in enumerate(rows):
            chosen = [row.of_kind(kind) for kind in kinds]
            means = np.array([row.right[mask].mean() for mask in chosen])
            low, high = np.array([bootstrap_interval(row.right[mask]) for mask in chosen]).T
            x = np.arange(len(kinds)) + (place - (len(rows) - 1) / 2) * width
            axes.bar(x, means, 0.92 * width, color=COLOURS[place % len(COLOURS)], label=row.name)
            axes.errorbar(x, means, [means - low, high - means], color="#374151", linestyle="", capsize=3, elinewidth=1)
            for sees, style in zip(BASELINES, ("-", ":"), strict=True):
                levels = [row.guessed(sees)[mask].mean() for mask in chosen]
                label = "" if place else GUESSING[sees]
                axes.hlines(levels, x - width / 2, x + width / 2, color="#1f2937", linestyle=style, linewidth=1.4, label=label)
        names = [f"{kind.replace('_', ' ')}\n{int(rows[0].of_kind(kind).sum()):,} questions" for kind in kinds]
        axes.set_xticks(range(len(kinds)), names)
        axes.set(title=title, ylabel="accuracy", ylim=(0, None))
        axes.grid(visible=False, axis="x")
        drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return _png(drawing)


def curves(outcomes: Sequence[Outcome]) -> bytes:
    """Held-out accuracy by epoch, a colour a pair and a line a seed."""
    names = list(dict.fromkeys(outcome.name for outcome in outcomes))
    with mpl.rc_context(cast("Any", STYLE)):
        drawing = Figure(figsize=(7.6, 3.6), layout="constrained")
        axes = drawing.add_subplot()
        for outcome in outcomes:
            points = [(point["epoch"], point["accuracy"]) for point in outcome.result["curve"]]
            is_first = outcome is next(one for one in outcomes if one.name == outcome.name)
            colour = COLOURS[names.index(outcome.name) % len(COLOURS)]
            axes.plot(*zip(*points, strict=True), color=colour, label=outcome.name if is_first else None)
        axes.set(title="Held-out accuracy by epoch", xlabel="epoch", ylabel="accuracy")
        axes.legend()
        return _png(drawing)


def _png(drawing: Figure) -> bytes:
    file = io.BytesIO()
    drawing.savefig(file, dpi=DOTS, format="png", metadata={"Software": None})
    return file.getvalue()
