"""The heads of a batch: for runs of rows that each have a head of their own, in as few calls as there are layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import linear

from service.models import heads_kernel, kernels
from service.models.kernels import Array

Layer = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)


@dataclass(frozen=True, slots=True)
class Head:
    """The layers from a first-token state to logits: dense, tanh, out. Without ``dense`` the base model's pooler serves.

    In the types of their file, or once loaded in float32 and contiguous.
    """

    dense: Layer | None
    out: Layer


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads of runs of rows: ``bounds`` (runs, 2) has each one's first row and its end.

    ``dense_table`` and ``out_table`` (runs, 3) have the addresses of their layers' weights and biases for the kernel, and how
    many outputs they have, which is none where there is no dense layer; ``has_dense`` tells whether there is any. ``labels``
    has each row in a run and its number of labels, of which ``most`` is the largest.
    """

    bounds: Array
    heads: Sequence[Head]
    dense_table: Array
    out_table: Array
    has_dense: bool
    labels: Sequence[tuple[int, int]]
    most: int

    @classmethod
    def of(cls, runs: Sequence[tuple[int, int, Head]]) -> Heads:
        """Runs given as first row, end and head, in order and apart."""
        heads = [run[2] for run in runs]
        bounds: Array = np.array([run[:2] for run in runs], np.int64).reshape(-1, 2)
        dense = [head.dense for head in heads]
        most = max((len(head.out[1]) for head in heads), default=0)
        labels = [(row, len(head.out[1])) for start, stop, head in runs for row in range(start, stop)]
        return cls(bounds, heads, _table(dense), _table([head.out for head in heads]), any(dense), labels, most)

    def dense(self, pooled: Tensor, states: Tensor) -> None:
        """Where a head has a dense layer, write what it makes of ``states`` (rows, hidden) to its rows of ``pooled``."""
        if self.has_dense:
            self._apply(pooled, states, self.dense_table, [head.dense for head in self.heads])

    def logits(self, pooled: Tensor) -> list[Tensor]:
        """The logits (labels,) of each row in a run, of ``pooled`` (rows, hidden), which has passed the dense layer."""
        if not self.heads:
            return []
        whole = pooled.new_empty(len(pooled), self.most)
        self._apply(whole, pooled, self.out_table, [head.out for head in self.heads], tanh=True)
        rows = whole.cpu().unbind()  # slicing each row costs more than computing it
        return [rows[row] if count == self.most else rows[row][:count] for row, count in self.labels]

    def _apply(self, y: Tensor, x: Tensor, table: Array, layers: Sequence[Layer | None], *, tanh: bool = False) -> None:
        if kernels.available and y.device.type == "cpu":
            heads_kernel.apply(y, x, self.bounds, table, tanh=tanh)
            return
        x = x.tanh() if tanh else x
        for (start, stop), layer in zip(self.bounds.tolist(), layers, strict=True):
            if layer:
                y[start:stop, : len(layer[1])] = linear(x[start:stop], *layer)


def _table(layers: Sequence[Layer | None]) -> Array:
    rows = [(layer[0].data_ptr(), layer[1].data_ptr(), len(layer[1])) if layer else (0, 0, 0) for layer in layers]
    return np.array(rows, np.int64).reshape(-1, 3)
