"""Low-rank products of many runs of lines at once, in as many calls for any number of runs, which ask nothing of the host.

*Segments* are the runs themselves, one after the other, for a product over groups. *Blocks* are runs cut into pieces of
:data:`BLOCK` lines, for one batched product: their sizes depend on nothing but the batch's shape, so they can be
captured. docs/performance.md has which is faster when.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grouped_mm

from service.models.kernels import Array

BLOCK = 16
# Mean lines of a run from which on segments are the faster ones.
LONG = {torch.float32: 0, torch.bfloat16: 256}


@dataclass(frozen=True, slots=True)
class Cut:
    """How the lines of a tensor are cut; ``run`` (n,) in the inputs is each piece's run, counted from 1, or 0 for none.

    Of blocks, the rest of the inputs are ``gather`` (n, BLOCK), the lines of each, and ``place`` (lines,), where among
    those each line's product is; lines in no run have a zero behind the last. Of segments it is each one's end;
    they cover ``covered`` lines.
    """

    lines: int
    pieces: int
    covered: int | None = None

    @property
    def size(self) -> int:
        """How many inputs there are."""
        return self.pieces * (1 + BLOCK) + self.lines if self.covered is None else 2 * self.pieces

    def run(self, inputs: Tensor) -> Tensor:
        """Each piece's run."""
        return inputs[: self.pieces]

    def lay(self, x: Tensor, inputs: Tensor) -> Tensor:
        """The lines of ``x`` as :meth:`products` reads them."""
        if self.covered is not None:
            return x[: self.covered]
        return x.index_select(0, inputs[self.pieces : self.pieces * (1 + BLOCK)]).view(self.pieces, BLOCK, -1)

    def add(self, y: Tensor, laid: Tensor, a: Tensor, b: Tensor, inputs: Tensor) -> None:
        """Add ``laid`` · aᵀ · b of each piece to its lines of ``y`` (lines, out); ``a`` and ``b`` (pieces, rank, in or out)."""
        if self.covered is not None:
            ends = inputs[self.pieces :].int()
            y[: self.covered] += grouped_mm(grouped_mm(laid, a.transpose(1, 2), offs=ends), b, offs=ends)
            return
        count = self.pieces * BLOCK
        products = y.new_empty(count + 1, y.shape[1])
        products[count:].zero_()
        torch.bmm(torch.bmm(laid, a.transpose(1, 2)), b, out=products[:count].view(self.pieces, BLOCK, -1))
        y += products.index_select(0, inputs[self.pieces * (1 + BLOCK) :][: len(y)])


def long_runs(bounds: Array, kind: torch.dtype) -> bool:
    """Whether runs are so long that segments are the faster ones."""
    return int((bounds[:, 1] - bounds[:, 0]).sum()) >= LONG[kind] * len(bounds)


def segments(bounds: Array, lines: int) -> tuple[Cut, Array]:
    """Runs of consecutive lines, given by first line and end, as segments; gaps between them are segments of no run."""
    run, ends, last = [], [], 0
    for number, (start, stop) in enumerate(bounds.tolist(), 1):
        if start > last:
            run.append(0)
            ends.append(start)
        run.append(number)
        ends.append(stop)
        last = stop
    return Cut(lines, len(run), last), np.array([*run, *ends], np.int64)


def blocks(bounds: Array, lines: int, pieces: int | None = None) -> tuple[Cut, Array]:
    """The same as blocks, of which there may be more than are needed; those that are left over are of no run."""
    starts, lengths = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
    counts = -(-lengths // BLOCK)
    pieces = int(counts.sum()) if pieces is None else pieces
    firsts = np.cumsum(counts) - counts  # each run's first block
    number = np.arange(int(counts.sum())) - np.repeat(firsts, counts)  # of a block in its run
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # of a line in its run
    run, gather = np.zeros(pieces, np.int64), np.zeros((pieces, BLOCK), np.int64)
    run[: len(number)] = np.repeat(np.arange(1, 1 + len(bounds)), counts)
    gather[: len(number)] = np.minimum(
        (np.repeat(starts, counts) + BLOCK * number)[:, None] + np.arange(BLOCK), np.repeat(bounds[:, 1] - 1, counts)[:, None]
    )
    place = np.full(lines, pieces * BLOCK)
    place[np.repeat(starts, lengths) + within] = np.repeat(firsts * BLOCK, lengths) + within
    return Cut(lines, pieces), np.concatenate([run, gather.ravel(), place])


def most_blocks(lines: int, runs: int) -> int:
    """No more blocks come of so many lines in so many runs."""
    return lines // BLOCK + runs
