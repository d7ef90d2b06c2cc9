"""How sure a figure is: bootstrap intervals, and whether one adapter beats another on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from training.data_types import MULTI, REGRESSION, SINGLE
from training.metrics import Array, Figure

LEVEL = 0.95
INTERVAL_SAMPLES, PAIRED_SAMPLES = 2_000, 10_000


@dataclass(frozen=True, slots=True)
class Paired:
    """What B has more than A of a figure: the difference, its interval, and the p-value of there being none."""

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def bootstrap_interval(
    values: Sequence[Any] | Array,
    statistic: Callable[[Array], Any] = np.mean,
    *,
    samples: int = INTERVAL_SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic over rows, (n, …), such as 1 for right and 0 for wrong."""
    rows = np.asarray(values)
    pick = np.random.default_rng(seed)
    found = [float(statistic(rows[pick.integers(len(rows), size=len(rows))])) for _ in range(samples)]
    return _percentiles(found, level)


def figure_interval(true: Array, predicted: Array, figure: Figure, **options: Any) -> tuple[float, float]:
    """:func:`bootstrap_interval` of a figure of true and predicted rows; ``options`` are its own."""
    return bootstrap_interval(np.arange(len(true)), lambda rows: figure(true[rows], predicted[rows]), **options)


def paired_bootstrap(
    true: Sequence[Any] | Array,
    predicted_a: Sequence[Any] | Array,
    predicted_b: Sequence[Any] | Array,
    metric: Figure,
    samples: int = PAIRED_SAMPLES,
    seed: int = 0,
) -> Paired:
    """How much higher B's figure is than A's on the same rows, each resample scoring both.

    The p-value is two-sided: twice the smaller share of resamples on either side of 0, those at 0 counted on both.
    """
    t, a, b = np.asarray(true), np.asarray(predicted_a), np.asarray(predicted_b)
    pick = np.random.default_rng(seed)
    found = np.empty(samples)
    for sample in range(samples):
        rows = pick.integers(len(t), size=len(t))
        found[sample] = metric(t[rows], b[rows]) - metric(t[rows], a[rows])
    smaller = min((found <= 0).sum(), (found >= 0).sum())
    p_value = min(1.0, 2 * (float(smaller) + 1) / (samples + 1))
    return Paired(float(metric(t, b) - metric(t, a)), *_percentiles(found, LEVEL), p_value)


def figure_of(problem_type: str, name: str, label_count: int = 0) -> Figure:
    """The figure called ``name`` in :func:`training.metrics.figures`, fast enough to be taken ten thousand times.

    It takes rows in the form of :func:`training.metrics.as_array`; macro figures of one label a row need ``label_count``.
    """
    ratio = {"macro_f1": _macro_f1, "macro_recall": _macro_recall, "micro_f1": _micro_f1}
    if problem_type == REGRESSION:
        return REGRESSION_FIGURES[name]
    return accuracy if name == "accuracy" else partial(ratio[name], label_count=label_count)


def accuracy(true: Array, predicted: Array) -> float:
    """The share of rows that are right, of sets of labels as a whole."""
    right = true == predicted
    return float(right.mean() if right.ndim == 1 else right.all(1).mean())


def _macro_f1(true: Array, predicted: Array, label_count: int) -> float:
    hits, given, there = _counts(true, predicted, label_count)
    return float((2 * hits / np.maximum(given + there, 1)).mean())


def _macro_recall(true: Array, predicted: Array, label_count: int) -> float:
    hits, _, there = _counts(true, predicted, label_count)
    return float((hits / np.maximum(there, 1)).mean())


def _micro_f1(true: Array, predicted: Array, label_count: int) -> float:
    hits, given, there = (column.sum() for column in _counts(true, predicted, label_count))
    return float(2 * hits / max(given + there, 1))


def _counts(true: Array, predicted: Array, label_count: int) -> tuple[Array, Array, Array]:
    """For each label how often it is given rightly, given, and true."""
    if true.ndim > 1:
        return (true & predicted).sum(0), predicted.sum(0), true.sum(0)
    counted = (np.bincount(rows, minlength=label_count) for rows in (true[true == predicted], predicted, true))
    hits, given, there = counted
    return hits, given, there


def _error(true: Array, given: Array) -> float:
    return float(np.abs(true - given).mean())


def _root_error(true: Array, given: Array) -> float:
    return float(np.sqrt(((true - given) ** 2).mean(0)).mean())


def _correlation(true: Array, given: Array) -> float:
    a, b = true - true.mean(0), given - given.mean(0)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return float(((a * b).sum(0) / np.where(scale > 0, scale, 1)).mean())


def _rank_correlation(true: Array, given: Array) -> float:
    return _correlation(_ranks(true), _ranks(given))


def _ranks(values: Array) -> Array:
    """The mean rank of each value in its column, equal values sharing theirs."""
    columns = []
    for column in values.T:
        _, place, count = np.unique(column, return_inverse=True, return_counts=True)
        columns.append((np.cumsum(count) - (count - 1) / 2)[place])
    return np.stack(columns, 1)


def _percentiles(found: Sequence[float] | Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


REGRESSION_FIGURES: dict[str, Figure] = {
    "mae": _error,
    "rmse": _root_error,
    "pearson": _correlation,
    "spearman": _rank_correlation,
}
FIGURES = {
    SINGLE: ("accuracy", "macro_f1", "macro_recall"),
    MULTI: ("accuracy", "macro_f1", "micro_f1"),
    REGRESSION: tuple(REGRESSION_FIGURES),
}
LOWER_IS_BETTER = frozenset({"mae", "rmse"})
