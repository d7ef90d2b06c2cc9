"""Say whether adapter B is better than adapter A on the same labelled rows, and where they differ.

python -m training.compare adapters/irony/1 runs/irony DATA --split test
python -m training.compare irony@live irony:3 DATA --server http://127.0.0.1:8000 --require not-worse
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from training.anywhere import AdaptersDir, ApiKey, BaseModel, ImageEncoderName, Places, SentenceEncoderName, ServerUrl, opened
from training.data import DataError
from training.data_flags import LabelColumn, LabelSeparator, SkipBad, TextColumn, read_options
from training.data_types import REGRESSION
from training.evaluate import (
    PLACES,
    READ,
    AsJson,
    Data,
    ReportFolder,
    Seed,
    SplitName,
)
from training.findings import table
from training.report import Report, Table, interval
from training.scored import Scored
from training.scoring import load_rows, score
from training.statistics import FIGURES, LOWER_IS_BETTER, Paired, figure_of, paired_bootstrap
from training.terminal import console, one_line_errors, print_json, progress, show

SHOWN = 20  # rows where the two disagree
PART_SAMPLES = 2_000  # of a slice


class Require(StrEnum):
    """What B must be for the command to succeed."""

    BETTER = "better"
    NOT_WORSE = "not-worse"


@dataclass(frozen=True)
class Comparison:
    """Two adapters' answers to the same rows, and the difference of one figure, B's less A's, in the rows and each slice."""

    figure: str
    a: Scored
    b: Scored
    difference: Paired
    slices: dict[str, Paired]

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no evidence``, of B."""
        if not self.difference.is_significant:
            return "no evidence"
        return "worse" if (self.difference.difference > 0) == (self.figure in LOWER_IS_BETTER) else "better"

    @property
    def sentence(self) -> str:
        """The verdict with its figures."""
        said = {"no evidence": "There is no evidence that B is better or worse than A"}.get(
            self.verdict, f"B is {self.verdict} than A"
        )
        found, (a, b) = self.difference, (scored.figures[self.figure] for scored in (self.a, self.b))
        return (
            f"{said}: {self.figure} {b:.4f} against {a:.4f} on {len(self.a):,} rows, a difference of {found.difference:+.4f} "
            f"(95 % interval {found.low:+.4f} to {found.high:+.4f}, p = {found.p_value:.2g})."
        )

    def meets(self, require: Require) -> bool:
        """Whether B is significantly better, or not significantly worse."""
        return self.verdict == "better" if require is Require.BETTER else self.verdict != "worse"

    def disagreements(self) -> dict[str, list[int]]:
        """The rows where the two answer differently, by who is right; of values, those that lie furthest apart."""
        differ = self.a.given != self.b.given
        if self.a.problem_type == REGRESSION:
            apart = np.abs(self.a.given - self.b.given).sum(1)
            return {"furthest apart": [int(row) for row in apart.argsort(kind="stable")[::-1] if apart[row] > 0][:SHOWN]}
        differ = differ if differ.ndim == 1 else differ.any(1)
        groups = {"only B right": self.b.right, "only A right": self.a.right, "both wrong": ~(self.a.right | self.b.right)}
        return {name: np.flatnonzero(differ & rows).tolist() for name, rows in groups.items()}


def compare(a: Scored, b: Scored, figure: str = "", seed: int = 0) -> Comparison:
    """Compare two adapters by a figure, the headline unless one is named, on rows that both have answered.

    Raises :class:`DataError` for a figure that this kind of problem has not.
    """
    figure = figure or a.headline
    if figure not in FIGURES[a.problem_type]:
        raise DataError(f"--figure {figure}: not a figure of {a.problem_type}; accepted: {', '.join(FIGURES[a.problem_type])}")
    metric = figure_of(a.problem_type, figure, len(a.labels))
    slices = {
        name: paired_bootstrap(a.targets[rows], a.given[rows], b.given[rows], metric, PART_SAMPLES, seed)
        for name, rows in ((name, np.asarray(rows)) for name, rows in a.slices.items())
    }
    return Comparison(figure, a, b, paired_bootstrap(a.targets, a.given, b.given, metric, seed=seed), slices)


def tables(found: Comparison) -> list[Table]:
    """The difference by label and by slice, and the rows where the two disagree, by their place alone."""
    return [made for made in (_by_label(found), _by_slice(found), _rows(found)) if made.rows]


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison whole, for JSON."""
    return {
        "verdict": found.verdict,
        "sentence": found.sentence,
        "figure": found.figure,
        **asdict(found.difference),
        "figures": {"a": found.a.figures, "b": found.b.figures},
        "labels": {"a": found.a.by_label, "b": found.b.by_label},
        "slices": {name: asdict(paired) for name, paired in found.slices.items()},
        "disagreements": found.disagreements(),
    }


def _by_label(found: Comparison) -> Table:
    a, b = found.a.by_label, found.b.by_label
    name = "pearson" if found.a.problem_type == REGRESSION else "f1"
    rows = [(label, str(a[label]["support"]), *_change(a[label][name], b[label][name])) for label in a if a[label]["support"]]
    return table(f"{name} by label", ("label", "rows", "A", "B", "difference"), rows)


def _change(a: float, b: float) -> tuple[str, str, str]:
    return f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}"


def _by_slice(found: Comparison) -> Table:
    rows = [
        (name, str(len(found.a.slices[name])), f"{paired.difference:+.4f}", interval(paired.low, paired.high, 4))
        for name, paired in found.slices.items()
    ]
    return table(f"{found.figure} by slice, B less A", ("slice", "rows", "difference", "95 % interval"), rows)


def _rows(found: Comparison) -> Table:
    rows = [(name, f"{len(places):,}", _places(places)) for name, places in found.disagreements().items() if places]
    return table("Where they disagree, rows counted from 0", ("", "how many", "rows"), rows)


def _places(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:SHOWN])) + (" …" if len(rows) > SHOWN else "")


def main(
    a: Annotated[str, typer.Argument(metavar="A", help="a bundle's folder, NAME, NAME:VERSION or NAME@ALIAS")],
    b: Annotated[str, typer.Argument(metavar="B", help="the adapter that may be better, named in the same way")],
    data: Data,
    split: SplitName = "validation",
    figure: Annotated[str, typer.Option(help="figure to compare by; else accuracy, macro_f1 or pearson")] = "",
    require: Annotated[Require | None, typer.Option(help="exit with 1 unless B is this")] = None,
    server: ServerUrl = None,
    key: ApiKey = None,
    adapters_dir: AdaptersDir = PLACES.adapters_dir,
    base_model: BaseModel = PLACES.base_model,
    image_encoder: ImageEncoderName = PLACES.image_encoder,
    sentence_encoder: SentenceEncoderName = PLACES.sentence_encoder,
    text_column: TextColumn = READ.text_column,
    label_column: LabelColumn = READ.label_column,
    label_separator: LabelSeparator = READ.label_separator,
    skip_bad: SkipBad = READ.skip_bad,
    seed: Seed = 0,
    as_json_: AsJson = False,
    report: ReportFolder = None,
) -> None:
    """Say in one sentence whether B is better than A on DATA, then where the two differ."""
    options = read_options(text_column, label_column, label_separator=label_separator, skip_bad=skip_bad)
    places = Places(adapters_dir, server, key, base_model, image_encoder, sentence_encoder)
    with one_line_errors():
        with opened(a, places) as first, opened(b, places) as second:
            names, manifests = (first.name, second.name), (first.manifest, second.manifest)
            rows = load_rows(data, split, manifests[0], options, seed)
            scored = [score(adapter, rows, [*manifests[0].labels, *manifests[1].labels], progress) for adapter in (first, second)]
        found = compare(scored[0], scored[1], figure, seed)
    facts = {"a": names[0], "b": names[1], "data": Path(data).name, "split": split}
    if report is not None:
        _report(f"{names[1]} against {names[0]} on {facts['data']}, {split}", found, facts).write(report)
    if as_json_:
        print_json({**facts, **as_json(found)})
    else:
        for sheet in tables(found):
            show(sheet)
        console.print(f"A is {escape(names[0])}, B is {escape(names[1])}. [bold]{escape(found.sentence)}[/]", soft_wrap=True)
    raise typer.Exit(0 if require is None or found.meets(require) else 1)


def _report(title: str, found: Comparison, facts: dict[str, str]) -> Report:
    report = Report(title, figures={**facts, **as_json(found)})
    report.text(f"A is {facts['a']}, B is {facts['b']}. {found.sentence}")
    for sheet in tables(found):
        report.table(sheet.columns, sheet.rows, sheet.title)
    return report


if __name__ == "__main__":
    typer.run(main)
