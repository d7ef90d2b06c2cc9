"""The figures that go into a manifest, from true labels and what an adapter gave, for every problem type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support, recall_score
from torch import Tensor

from training.data_types import MULTI, REGRESSION, SINGLE

HEADLINE = {SINGLE: "accuracy", MULTI: "macro_f1", REGRESSION: "pearson"}  # the figure that is looked at first
DIGITS = 4
HALF = 0.5  # the threshold of a label that was given none
Array = NDArray[Any]
Figure = Callable[[Array, Array], float]


def classification_metrics(true: Sequence[int], predicted: Sequence[int], label_count: int) -> dict[str, float]:
    """Accuracy, macro-F1 and macro-recall, each from 0 to 1, over all ``label_count`` labels."""
    labels = range(label_count)
    return {
        "accuracy": round(float(accuracy_score(true, predicted)), DIGITS),
        "macro_f1": round(float(f1_score(true, predicted, labels=labels, average="macro", zero_division=0)), DIGITS),
        "macro_recall": round(float(recall_score(true, predicted, labels=labels, average="macro", zero_division=0)), DIGITS),
    }


def figures(
    problem_type: str, true: Sequence[Any], logits: Tensor, label_count: int, thresholds: Sequence[float] | None = None
) -> dict[str, float]:
    """The figures of a problem type, from true targets and logits, (n, labels).

    One label a row: accuracy, macro-F1 and macro-recall. Several: the share of rows whose set is exactly right as
    ``accuracy``, macro-F1 and micro-F1. Values: mean absolute error, root mean squared error, and Pearson's and
    Spearman's correlation, means over the values where there are several.
    """
    if problem_type == SINGLE:
        return classification_metrics(true, logits.argmax(-1).tolist(), label_count)
    targets, given = as_array(problem_type, true, label_count), decided(problem_type, logits, thresholds)
    if problem_type == MULTI:
        named: dict[str, float] = {
            "accuracy": accuracy_score(targets, given),
            "macro_f1": f1_score(targets, given, average="macro", zero_division=0),
            "micro_f1": f1_score(targets, given, average="micro", zero_division=0),
        }
        return {name: round(float(value), DIGITS) for name, value in named.items()}
    columns = [regression_figures(a, b) for a, b in zip(targets.T, given.T, strict=True)]
    return {name: round(float(np.mean([column[name] for column in columns])), DIGITS) for name in columns[0]}


def per_label(
    problem_type: str, true: Sequence[Any], logits: Tensor, labels: Sequence[str], thresholds: Sequence[float] | None = None
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support of each label; of a regression, the figures of each value."""
    targets, given = as_array(problem_type, true, len(labels)), decided(problem_type, logits, thresholds)
    if problem_type == REGRESSION:
        return {
            label: {**{name: round(value, DIGITS) for name, value in regression_figures(a, b).items()}, "support": len(a)}
            for label, a, b in zip(labels, targets.T, given.T, strict=True)
        }
    found = precision_recall_fscore_support(targets, given, labels=range(len(labels)), average=None, zero_division=0)
    rows = zip(*(column.tolist() for column in found), strict=True)
    return {
        label: {"precision": round(p, DIGITS), "recall": round(r, DIGITS), "f1": round(f, DIGITS), "support": int(n)}
        for label, (p, r, f, n) in zip(labels, rows, strict=True)
    }


def as_array(problem_type: str, true: Sequence[Any], label_count: int) -> Array:
    """Targets as an array with a row each: indices (n,), sets of labels (n, labels) of bool, or values (n, values)."""
    if problem_type == SINGLE:
        return np.asarray(true, dtype=np.int64)
    if problem_type == REGRESSION:
        return np.asarray(true, dtype=np.float64).reshape(len(true), label_count)
    chosen = np.zeros((len(true), label_count), dtype=bool)
    for row, labels in enumerate(true):
        chosen[row, list(labels)] = True
    return chosen


def decided(problem_type: str, logits: Tensor, thresholds: Sequence[float] | None = None) -> Array:
    """What the server answers for logits, (n, labels), in the form of :func:`as_array`."""
    if problem_type == SINGLE:
        return logits.argmax(-1).numpy()
    if problem_type == REGRESSION:
        return logits.double().numpy()
    return logits.float().sigmoid().numpy() >= np.asarray(thresholds or [HALF] * logits.shape[1], dtype=np.float32)


def regression_figures(true: Array, given: Array) -> dict[str, float]:
    """Mean absolute error, root mean squared error, and two correlations, which are 0 for what never varies."""
    import torch
    from torchmetrics.functional import mean_absolute_error, mean_squared_error, pearson_corrcoef, spearman_corrcoef

    a, b = torch.from_numpy(given.copy()), torch.from_numpy(true.copy())
    varies = bool(a.min() < a.max() and b.min() < b.max())
    return {
        "mae": float(mean_absolute_error(a, b)),
        "rmse": float(mean_squared_error(a, b, squared=False)),
        "pearson": float(pearson_corrcoef(a, b)) if varies else 0.0,
        "spearman": float(spearman_corrcoef(a, b)) if varies else 0.0,
    }
