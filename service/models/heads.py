"""The heads of a batch: for runs of rows that each have a head of their own, in as few calls as there are layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor
from torch.nn.functional import linear

from service.models import heads_kernel, kernels
from service.models.kernels import Array

Layer = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)
Row = TypeVar("Row", Tensor, list[float])


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

    def apply(self, logits: Tensor, pooled: Tensor, states: Tensor) -> None:
        """Write what heads make of each row to ``logits`` (rows, most).

        They read ``pooled`` (rows, hidden), or where they have a dense layer ``states`` (rows, hidden), and ``pooled`` may be
        overwritten there. Rows in no run are left alone.
        """
        if kernels.available and logits.device.type == "cpu":
            if self.has_dense:
                heads_kernel.apply(pooled, states, self.bounds, self.dense_table)
            heads_kernel.apply(logits, pooled, self.bounds, self.out_table, tanh=True)
            return
        for (start, stop), head in zip(self.bounds.tolist(), self.heads, strict=True):
            dense = linear(states[start:stop], *head.dense) if head.dense else pooled[start:stop]
            logits[start:stop, : len(head.out[1])] = linear(dense.tanh(), *head.out)

    def jobs(self, logits: Tensor, pooled: Tensor, states: Tensor) -> tuple[heads_kernel.Job | None, heads_kernel.Job]:
        """The same as the kernel's jobs, one after the other; the first is None where there is nothing to do."""
        dense = heads_kernel.job(pooled, states, self.bounds, self.dense_table) if self.has_dense else None
        return dense, heads_kernel.job(logits, pooled, self.bounds, self.out_table, tanh=True)

    def each(self, rows: Sequence[Row]) -> list[Row]:
        """The logits of each row in a run, one for each of its labels, of rows of ``most``."""
        # Slicing a tensor costs more than computing it.
        return [rows[row] if count == self.most else rows[row][:count] for row, count in self.labels]


def _table(layers: Sequence[Layer | None]) -> Array:
    rows = [(layer[0].data_ptr(), layer[1].data_ptr(), len(layer[1])) if layer else (0, 0, 0) for layer in layers]
    return np.array(rows, np.int64).reshape(-1, 3)
