"""What training minimises, for each problem type, on rows that several processes may share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, log_softmax, logsigmoid, mse_loss

from training.calibration import LAST_LAYERS
from training.data import TextData
from training.data_types import MULTI, REGRESSION, SINGLE
from training.metrics import as_array
from training.text_model import CLASS_WEIGHTS, Recipe


class Objective:
    """The loss on the training rows of ``data``.

    Values are learnt at mean 0 and deviation 1, (labels,) each; ``shift`` and ``scale`` lead back to the data's units.
    """

    def __init__(self, data: TextData, recipe: Recipe, device: torch.device) -> None:
        self._problem_type, self._smoothing, self._r_drop = data.problem_type, recipe.label_smoothing, recipe.r_drop
        count = len(data.labels)
        targets = torch.from_numpy(as_array(data.problem_type, data.splits["train"].labels, count))
        self.shift, self.scale = torch.zeros(count), torch.ones(count)
        if self._problem_type == REGRESSION:
            deviation = targets.std(0, correction=0)
            self.shift, self.scale = targets.mean(0).float(), deviation.where(deviation > 0, 1.0).float()
            targets = (targets - self.shift) / self.scale
        self._targets = (targets if self._problem_type == SINGLE else targets.float()).to(device)
        self._weights = self._label_weights(CLASS_WEIGHTS[recipe.class_weights], count)

    def _label_weights(self, power: float, count: int) -> Tensor | None:
        """Single-label: each label's inverse frequency to ``power``, mean 1. Multi-label: rows without it over rows with it."""
        if not power:
            return None
        if self._problem_type == MULTI:
            given = self._targets.sum(0).clamp(min=1)
            return ((len(self._targets) - given).clamp(min=1) / given).pow(power)
        weights = torch.bincount(self._targets, minlength=count).clamp(min=1).float().pow(-power)
        return weights / weights.mean()

    def loss(self, logits: Tensor, mine: Sequence[int], whole: Sequence[int]) -> Tensor:
        """The share of the rows ``mine``, whose logits, (mine, labels), are given, in the mean loss of all rows ``whole``."""
        targets = self._targets[torch.tensor(mine, device=self._targets.device)]
        if self._problem_type == SINGLE:
            total = cross_entropy(logits, targets, weight=self._weights, label_smoothing=self._smoothing, reduction="sum")
            return total / (len(whole) if self._weights is None else self._weights[self._targets[list(whole)]].sum())
        if self._problem_type == MULTI:
            smooth = targets * (1 - self._smoothing) + self._smoothing / 2
            total = binary_cross_entropy_with_logits(logits, smooth, pos_weight=self._weights, reduction="sum")
        else:
            total = mse_loss(logits, targets, reduction="sum")
        return total / (len(whole) * logits.shape[1])

    def loss_of_both(self, one: Tensor, other: Tensor, mine: Sequence[int], whole: Sequence[int]) -> Tensor:
        """As :meth:`loss`, of logits of the same rows under two draws of dropout, and of how much they differ (R-Drop)."""
        mean = (self.loss(one, mine, whole) + self.loss(other, mine, whole)) / 2
        return mean + self._r_drop * self._difference(one, other) / len(whole)

    def _difference(self, one: Tensor, other: Tensor) -> Tensor:
        """The divergences of both directions, halved, summed over rows; of values half the mean squared difference."""
        if self._problem_type == REGRESSION:
            return mse_loss(one, other, reduction="sum") / (2 * one.shape[1])
        if self._problem_type == MULTI:  # each label is a choice of two
            yes_no = [torch.stack([logsigmoid(logits), logsigmoid(-logits)], -1) for logits in (one, other)]
            return self._divergence(yes_no[0], yes_no[1]) / one.shape[1]
        return self._divergence(log_softmax(one, -1), log_softmax(other, -1))

    @staticmethod
    def _divergence(one: Tensor, other: Tensor) -> Tensor:
        there, back = (kl_div(x, y, log_target=True, reduction="sum") for x, y in ((one, other), (other, one)))
        return (there + back) / 2

    def in_units(self, logits: Tensor) -> Tensor:
        """Logits, (rows, labels), as the data's values; of labels as they are."""
        return logits * self.scale + self.shift if self._problem_type == REGRESSION else logits

    def folded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors with the head's last layer giving the data's values; of labels as they are."""
        if self._problem_type != REGRESSION:
            return dict(tensors)
        return {name: self._fold(name, tensor) if name.endswith(LAST_LAYERS) else tensor for name, tensor in tensors.items()}

    def _fold(self, name: str, tensor: Tensor) -> Tensor:
        scale, shift = self.scale.to(tensor.device), self.shift.to(tensor.device)
        return tensor * scale + shift if name.endswith("bias") else tensor * scale[:, None]
