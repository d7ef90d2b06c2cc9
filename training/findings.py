"""What was found about scored rows as tables and plots, for model cards, terminals and reports alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.data_types import REGRESSION, SINGLE
from training.plots import confusion_matrix, learning_curves, reliability
from training.report import Table, interval, shown
from training.scored import Scored

CONFUSION, RELIABILITY, CURVES = "confusion.png", "reliability.png", "curves.png"
MOST_LABELS = 30  # in a table: those with the most rows
FOUR = 4  # digits of a figure


def tables(scored: Scored) -> list[Table]:
    """Figures with intervals, calibration, labels, slices and the hardest rows, each as far as there is any."""
    found = [figures_table(scored), calibration_table(scored), label_table(scored), slice_table(scored), hardest_table(scored)]
    return [table for table in found if table.rows]


def figures_table(scored: Scored) -> Table:
    """Each figure with its 95 % bootstrap interval."""
    intervals = scored.intervals
    rows = [(name, _figure(value), interval(*intervals[name], FOUR)) for name, value in scored.figures.items()]
    return table(f"Figures of {len(scored):,} rows", ("figure", "value", "95 % interval"), rows)


def calibration_table(scored: Scored) -> Table:
    """The expected calibration error as served, and at the temperature that would suit these rows best."""
    found = scored.calibration
    rows = [] if found is None else [("as served", "1", _figure(found.ece_before))]
    if found is not None:
        rows.append(("best for these rows", f"{found.temperature:.3f}", _figure(found.ece_after)))
    return table("Calibration", ("", "temperature", "expected calibration error"), rows)


def label_table(scored: Scored) -> Table:
    """Precision, recall, F1 and support by label; of many labels those with the most rows."""
    found = scored.by_label
    most = sorted(found, key=lambda label: -found[label]["support"])[:MOST_LABELS]
    columns = list(next(iter(found.values())))
    rows = [(label, *(_figure(found[label][name]) for name in columns)) for label in found if label in most]
    hidden = "" if len(rows) == len(found) else f", the {len(rows)} most frequent of {len(found)}"
    return table(f"By label{hidden}", ("label", *columns), rows)


def slice_table(scored: Scored) -> Table:
    """The headline figure by slice."""
    rows = [
        (name, shown(found["rows"]), _figure(found[scored.headline]), interval(found["low"], found["high"], FOUR))
        for name, found in scored.by_slice.items()
    ]
    return table("By slice", ("slice", "rows", scored.headline, "95 % interval"), rows)


def hardest_table(scored: Scored) -> Table:
    """The rows answered furthest from the truth, by their place in the split alone."""
    last = "error" if scored.problem_type == REGRESSION else "probability"
    rows = [(str(row.index), row.true, row.given, shown(row.probability)) for row in scored.hardest()]
    return table("The hardest rows, counted from 0", ("row", "true", "given", last), rows)


def images(scored: Scored, curve: Sequence[Mapping[str, float]] = ()) -> dict[str, bytes]:
    """The plots of a bundle or a report by file name: confusion and reliability of one label a row, and learning curves."""
    found: dict[str, bytes] = {}
    if scored.problem_type == SINGLE:
        found[CONFUSION] = confusion_matrix(scored.targets.tolist(), scored.given.tolist(), scored.labels)
        found[RELIABILITY] = reliability(scored.logits, scored.targets.tolist())
    if curve:
        found[CURVES] = learning_curves(curve)
    return found


def as_json(scored: Scored) -> dict[str, Any]:
    """Everything in :func:`tables`, whole, for JSON."""
    found = scored.calibration
    return {
        "rows": len(scored),
        "problem_type": scored.problem_type,
        "figures": scored.figures,
        "intervals": scored.intervals,
        "calibration": found.recorded() if found else None,
        "labels": scored.by_label,
        "slices": scored.by_slice,
        "hardest": [
            {"row": row.index, "true": row.true, "given": row.given, "probability": row.probability} for row in scored.hardest()
        ],
    }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of cells that are texts already."""
    return Table(title, tuple(columns), tuple(tuple(row) for row in rows))


def _figure(value: float) -> str:
    return shown(value) if isinstance(value, int) else f"{value:.{FOUR}f}"
