"""Probabilities that mean what they say: a temperature for the logits of one label, a threshold for each of several.

Temperature scaling is that of Guo et al., "On Calibration of Modern Neural Networks" (2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import precision_recall_curve
from torch import Tensor

COLDEST, HOTTEST = 0.05, 20.0  # temperatures tried
HALVINGS = 60
BINS = 15
MARGIN = 1e-4  # between a threshold and 0 or 1
LAST_LAYERS = ("classifier.weight", "classifier.bias", "classifier.out_proj.weight", "classifier.out_proj.bias")
VQA_LAST_LAYERS = ("output.weight", "output.bias")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperature that logits are divided by, and the expected calibration error without and with it."""

    temperature: float
    ece_before: float
    ece_after: float

    def recorded(self) -> dict[str, float]:
        """What a manifest's recipe records as ``calibration``."""
        return asdict(self)


def fit_temperature(logits: Tensor, labels: Sequence[int] | Tensor) -> Calibration:
    """The temperature at which logits, (n, labels), give the true labels the highest likelihood.

    It is 1 where every row is right, since then no temperature is too cold.
    """
    raw, true = logits.detach().double().cpu(), torch.as_tensor(labels)

    def is_too_hot(temperature: float) -> bool:
        """The likelihood is concave in the temperature's inverse; the sign of its slope says on which side the best is."""
        expected = (raw * (raw / temperature).softmax(-1)).sum(-1)
        return bool((raw.gather(1, true[:, None])[:, 0] - expected).mean() > 0)

    low, high = COLDEST, HOTTEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if is_too_hot(middle) else (middle, high)
    temperature = 1.0 if torch.equal(raw.argmax(-1), true) else round(high, 6)
    before, after = (expected_calibration_error(raw / scale, true) for scale in (1.0, temperature))
    return Calibration(temperature, before, after)


def expected_calibration_error(logits: Tensor, labels: Sequence[int] | Tensor, bins: int = BINS) -> float:
    """How far the best label's probability is from how often it is right, in the mean over bins of equal width."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    # Probabilities, since logits that happen to lie between 0 and 1 would be taken for them.
    probabilities = logits.detach().double().cpu().softmax(-1)
    found = multiclass_calibration_error(probabilities, torch.as_tensor(labels), logits.shape[1], n_bins=bins)
    return round(float(found), 4)


def fold(tensors: Mapping[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """The tensors of an adapter with its head's last layer divided by the temperature, so that its logits are.

    Divided in float32 and stored in the type that they came in. Raises :class:`ValueError` when no tensor is a last layer.
    """
    found = {name for name in tensors if name.endswith(LAST_LAYERS) or name in VQA_LAST_LAYERS}
    if not found:
        raise ValueError(f"no tensor ends in {', '.join(LAST_LAYERS)}, or is {' or '.join(VQA_LAST_LAYERS)}")
    return {
        name: (tensor.float() / temperature).to(tensor.dtype) if name in found else tensor for name, tensor in tensors.items()
    }


def fit_thresholds(logits: Tensor, true: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """For each label the probability from which on it is given, such that its F1 on these rows is the highest.

    It lies half-way between two probabilities that occur, and as near to 0.5 as F1 allows; 0.5 for a label that no row has.
    """
    probabilities = logits.detach().double().cpu().sigmoid().numpy()
    return tuple(
        _threshold(column, np.array([label in labels for labels in true])) for label, column in enumerate(probabilities.T)
    )


def _threshold(probabilities: Any, has_label: Any) -> float:
    if not has_label.any():
        return 0.5
    precision, recall, occurring = precision_recall_curve(has_label, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    between = (np.concatenate([[0.0], occurring[:-1]]) + occurring) / 2
    best = between[f1[:-1] >= f1[:-1].max() - 1e-12]
    nearest = float(best[np.abs(best - 0.5).argmin()])
    return round(min(max(nearest, MARGIN), 1 - MARGIN), 6)
