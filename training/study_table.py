"""A study's runs as one row a variant: figures over seeds with their intervals, and its test against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from training.data import DataError, TextData
from training.metrics import HEADLINE, Array, as_array, decided
from training.serving_cost import Cost
from training.statistics import FIGURES, INTERVAL_SAMPLES, PAIRED_SAMPLES, Paired, figure_interval, figure_of, paired_bootstrap
from training.study_grid import Variant

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Figure:
    """The mean and standard deviation of a figure over seeds, and a bootstrap interval of the mean over the split's rows."""

    mean: float
    deviation: float
    low: float
    high: float


@dataclass
class Row:
    """A variant and all that was measured of it; ``paired`` is its headline figure less the reference's."""

    variant: Variant
    results: list[dict[str, Any]]
    logits: list[dict[str, Tensor]]
    figures: dict[str, Figure] = field(default_factory=dict)
    validation: float = 0.0
    paired: Paired | None = None
    corrected_p: float | None = None
    cost: Cost | None = None

    @property
    def first(self) -> dict[str, Any]:
        """The result of its first seed."""
        return self.results[0]

    def mean(self, name: str) -> float:
        """The mean of a result's entry over seeds."""
        return float(np.mean([result[name] for result in self.results]))

    @property
    def differs(self) -> bool:
        """Whether it differs from the reference, after correction."""
        return self.corrected_p is not None and self.corrected_p < SIGNIFICANT


@dataclass
class Table:
    """All rows of a study, the reference among them, measured on ``split``; ``failures`` are runs without a result."""

    data: TextData
    split: str
    headline: str
    rows: list[Row]
    reference: Row
    failures: Mapping[str, str]

    @property
    def best(self) -> Row:
        """The row that does best on validation, so that the test split has no part in the choice."""
        return max(self.rows, key=lambda row: row.validation)

    @property
    def names(self) -> tuple[str, ...]:
        """The figures of this kind of problem."""
        return FIGURES[self.data.problem_type]


def tabulate(
    data: TextData,
    rows: list[Row],
    reference: str | None,
    failures: Mapping[str, str],
    samples: tuple[int, int] = (INTERVAL_SAMPLES, PAIRED_SAMPLES),
) -> Table:
    """Compute every row's figures and its test against ``reference``, a variant's name, or full fine-tuning, or else the best.

    ``samples`` are the bootstrap's, for intervals and for tests. Raises :class:`DataError` for a reference that there is not.
    """
    split = "test" if "test" in data.splits else "validation"
    headline = HEADLINE[data.problem_type]
    for row in rows:
        row.validation = float(np.mean([result["metrics"]["validation"][headline] for result in row.results]))
        row.figures = {name: _figure(data, split, row, name, samples[0]) for name in FIGURES[data.problem_type]}
    table = Table(data, split, headline, rows, _reference(rows, reference), failures)
    _compare(table, samples[1])
    return table


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's method, in the order given."""
    count, corrected, largest = len(p_values), [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def given(data: TextData, split: str, row: Row) -> Array:
    """What each seed's model answers, (rows, seeds, …)."""
    pairs = zip(row.logits, row.results, strict=True)
    return np.stack([decided(data.problem_type, logits[split], result["thresholds"]) for logits, result in pairs], axis=1)


def _true(data: TextData, split: str) -> Array:
    return as_array(data.problem_type, data.splits[split].labels, len(data.labels))


def _over_seeds(data: TextData, name: str) -> Any:
    """A figure as the mean over the seeds of (rows, seeds, …): resampled rows keep all of their seeds together."""
    figure = figure_of(data.problem_type, name, len(data.labels))
    return lambda true, rows: float(np.mean([figure(true, rows[:, seed]) for seed in range(rows.shape[1])]))


def _figure(data: TextData, split: str, row: Row, name: str, samples: int) -> Figure:
    values = [result["metrics"][split][name] for result in row.results]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    over_seeds = _over_seeds(data, name)
    interval = figure_interval(_true(data, split), given(data, split, row), over_seeds, samples=samples)
    return Figure(float(np.mean(values)), deviation, *interval)


def _reference(rows: Sequence[Row], asked: str | None) -> Row:
    if asked is not None:
        found = next((row for row in rows if row.variant.name == asked), None)
        if found is None:
            raise DataError(f"--reference {asked}: no such variant; there is {', '.join(row.variant.name for row in rows)}")
        return found
    return max([row for row in rows if row.variant.is_full] or rows, key=lambda row: row.validation)


def _compare(table: Table, samples: int) -> None:
    data, split = table.data, table.split
    true, reference = _true(data, split), given(data, split, table.reference)
    others = [row for row in table.rows if row is not table.reference]
    for row in others:
        row.paired = paired_bootstrap(true, reference, given(data, split, row), _over_seeds(data, table.headline), samples)
    for row, p_value in zip(others, holm([row.paired.p_value for row in others if row.paired]), strict=True):
        row.corrected_p = p_value
