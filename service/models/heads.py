"""The heads of a batch: for runs of rows that each have a head of their own, in as few calls as there are layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from service.models import heads_kernel, kernels

Layer = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)
Array = np.ndarray[Any, np.dtype[np.int64]]
NO_LAYER: Layer = (torch.empty(0), torch.empty(0))


@dataclass(frozen=True, slots=True)
class Head:
    """The layers from a first-token state to logits: dense, tanh, out. Without ``dense`` the base model's pooler serves.

    In the types of their file, or once loaded in float32 and contiguous.
    """

    dense: Layer | None
    out: Layer


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads of runs of rows: ``bounds`` (runs, 2) has each one's first row and its end."""

    bounds: Array
    heads: Sequence[Head]

    @classmethod
    def of(cls, runs: Sequence[tuple[int, int, Head]]) -> Heads:
        """Runs given as first row, end and head, in order and apart."""
        return cls(np.array([run[:2] for run in runs], np.int64).reshape(-1, 2), [run[2] for run in runs])

    def dense(self, pooled: Tensor, states: Tensor) -> None:
        """Where a head has a dense layer, write what it makes of ``states`` (rows, hidden) to its rows of ``pooled``."""
        if any(head.dense for head in self.heads):
            _apply(pooled, states, self.bounds, [head.dense for head in self.heads])

    def logits(self, pooled: Tensor) -> list[Tensor]:
        """Each run's logits, (its rows, its labels), of ``pooled`` (rows, hidden), which has passed the dense layer and tanh."""
        if not self.heads:
            return []
        counts = [len(head.out[1]) for head in self.heads]
        whole = pooled.new_empty(len(pooled), max(counts))
        _apply(whole, pooled, self.bounds, [head.out for head in self.heads])
        whole = whole.cpu()
        return [whole[start:stop, :count] for (start, stop), count in zip(self.bounds.tolist(), counts, strict=True)]


def _apply(y: Tensor, x: Tensor, bounds: Array, layers: Sequence[Layer | None]) -> None:
    if kernels.available and y.device.type == "cpu":
        table = [(w.data_ptr(), b.data_ptr(), len(b)) for w, b in (layer or NO_LAYER for layer in layers)]
        heads_kernel.apply(y, x, bounds, np.array(table, np.int64))
        return
    for (start, stop), layer in zip(bounds.tolist(), layers, strict=True):
        if layer:
            y[start:stop, : len(layer[1])] = linear(x[start:stop], *layer)
