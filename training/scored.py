"""Rows with their true targets and what an adapter gave for them, and everything that is asked of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from training.calibration import Calibration, fit_temperature
from training.data_types import MULTI, REGRESSION, SINGLE
from training.metrics import DIGITS, HEADLINE, Array, as_array, decided, figures, per_label
from training.statistics import FIGURES, bootstrap_interval, figure_interval, figure_of

NEVER = -1e4  # the logit of a label that an adapter does not have
TINIEST = 1e-30  # a probability whose logarithm is still a number
HARDEST = 10
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Hard:
    """A row that was answered far from the truth: its place, both answers, and the probability, or error, of the one given."""

    index: int
    true: str
    given: str
    probability: float | None


@dataclass(frozen=True)
class Scored:
    """True targets, logits, (n, labels) as served, the thresholds of several labels, and named slices of the rows."""

    problem_type: str
    labels: tuple[str, ...]
    true: Sequence[Any]
    logits: Tensor
    thresholds: tuple[float, ...] | None = None
    slices: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.true)

    @cached_property
    def targets(self) -> Array:
        """The true targets as :func:`training.metrics.as_array` gives them."""
        return as_array(self.problem_type, self.true, len(self.labels))

    @cached_property
    def given(self) -> Array:
        """What was answered, in the same form."""
        return decided(self.problem_type, self.logits, self.thresholds)

    @property
    def headline(self) -> str:
        """The name of the figure that is looked at first."""
        return HEADLINE[self.problem_type]

    @cached_property
    def right(self) -> Array:
        """Whether each row is right, of several labels all of them; nothing is where values are given."""
        equal = self.targets == self.given
        return np.asarray(equal if equal.ndim == 1 else equal.all(1))

    @cached_property
    def figures(self) -> dict[str, float]:
        """The figures of all rows."""
        return figures(self.problem_type, self.true, self.logits, len(self.labels), self.thresholds)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % bootstrap interval of each figure."""
        return {name: self._interval(name) for name in FIGURES[self.problem_type]}

    @cached_property
    def by_label(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and support of each label."""
        return per_label(self.problem_type, self.true, self.logits, self.labels, self.thresholds)

    @cached_property
    def by_slice(self) -> dict[str, dict[str, float]]:
        """The rows, the headline figure and its interval of each slice."""
        return {name: self._part(list(rows))._headline() for name, rows in self.slices.items()}

    @cached_property
    def calibration(self) -> Calibration | None:
        """The calibration error as it is and at the temperature best for these rows, where each has one label."""
        return fit_temperature(self.logits, list(self.true)) if self.problem_type == SINGLE else None

    def hardest(self, count: int = HARDEST) -> list[Hard]:
        """The rows with the highest loss that were answered wrongly, the worst first."""
        losses = self._losses()
        worst = losses.argsort(descending=True, stable=True).tolist()
        wrong = [row for row in worst if self.problem_type == REGRESSION or not self.right[row]]
        return [self._hard(row, float(losses[row])) for row in wrong[:count]]

    def name_of(self, answer: Any) -> str:
        """A row of :attr:`targets` or :attr:`given` in words."""
        if self.problem_type == SINGLE:
            return self.labels[int(answer)]
        if self.problem_type == MULTI:
            return ", ".join(label for label, has in zip(self.labels, answer, strict=True) if has) or "none"
        return ", ".join(f"{value:.4g}" for value in answer)

    def _interval(self, name: str) -> Interval:
        if name == "accuracy":  # a mean of rights and wrongs
            return _rounded(bootstrap_interval(self.right))
        return _rounded(figure_interval(self.targets, self.given, figure_of(self.problem_type, name, len(self.labels))))

    def _part(self, rows: list[int]) -> Scored:
        true = [self.true[row] for row in rows]
        return Scored(self.problem_type, self.labels, true, self.logits[rows], self.thresholds)

    def _headline(self) -> dict[str, float]:
        low, high = self._interval(self.headline)
        return {"rows": len(self), self.headline: self.figures[self.headline], "low": low, "high": high}

    def _losses(self) -> Tensor:
        raw = self.logits.double()
        if self.problem_type == SINGLE:
            return cross_entropy(raw, torch.from_numpy(self.targets), reduction="none")
        if self.problem_type == MULTI:
            truth = torch.from_numpy(self.targets).double()
            return binary_cross_entropy_with_logits(raw, truth, reduction="none").mean(1)
        return torch.from_numpy(np.abs(self.targets - self.given).mean(1))

    def _hard(self, row: int, loss: float) -> Hard:
        true, given = self.name_of(self.targets[row]), self.name_of(self.given[row])
        if self.problem_type == SINGLE:
            return Hard(row, true, given, round(float(self.logits[row].double().softmax(-1).max()), DIGITS))
        return Hard(row, true, given, round(loss, DIGITS) if self.problem_type == REGRESSION else None)


def logits_of_scores(scores: Sequence[Mapping[str, float]], labels: Sequence[str], problem_type: str) -> Tensor:
    """Logits, (n, labels) in float64, that lead to the scores which a server gave by label; one without is never given."""
    if problem_type == REGRESSION:
        return torch.tensor([[row[label] for label in labels] for row in scores], dtype=torch.float64)
    given = torch.tensor([[row.get(label, 0.0) for label in labels] for row in scores], dtype=torch.float64)
    has = torch.tensor([[label in row for label in labels] for row in scores])
    logits = given.clamp(min=TINIEST).log()
    if problem_type == MULTI:
        logits = logits - (1 - given).clamp(min=TINIEST).log()
    return torch.where(has, logits, NEVER)


def _rounded(interval: Interval) -> Interval:
    return round(interval[0], DIGITS), round(interval[1], DIGITS)
