"""Token rows laid end to end, as the text encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.models import kernels
from service.models.kernels import Array

FINEST = 8


def rounded_up(count: int) -> int:
    """The next of the few sizes that tensors have: multiples of 8, and from 512 on at most a 32nd apart.

    Libraries make and keep kernels for each size that they meet, which takes milliseconds and memory every time.
    """
    step = max(FINEST, 1 << max(0, count.bit_length() - 6))
    return kernels.padded(count, step)


@dataclass(frozen=True, slots=True)
class Padding:
    """The indices that lead from packed tokens to the padded form and back.

    ``pad`` (rows · width,) is the packed index of every padded position, ``unpad`` (tokens,) the padded index of every
    token; ``mask`` (rows, 1, 1, width), or None where all rows are as long.
    """

    pad: Tensor
    unpad: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, starts: Array, device: torch.device) -> Padding:
        """The indices for rows that begin at ``starts`` (rows + 1,)."""
        lengths = np.diff(starts)[:, None]
        places = np.arange(int(lengths.max()))
        inside = places < lengths
        # A padded position repeats its row's last token: any finite value does, since the mask hides it.
        pad = starts[:-1, None] + np.minimum(places, lengths - 1)
        mask = None if inside.all() else torch.from_numpy(inside)[:, None, None, :].to(device)
        return cls(_tensor(pad.ravel(), device), _tensor(np.flatnonzero(inside), device), mask)


@dataclass(frozen=True, slots=True)
class Packed:
    """Token rows laid end to end.

    ``ids`` and ``positions`` are those of the tokens; ``first`` (rows,) is each row's first token, and ``starts`` (rows + 1,)
    the same on the host with the number of tokens at the end. The length of the tensors is rounded up; what is added
    repeats the first one. ``padding`` is there where attention needs it.
    """

    ids: Tensor
    positions: Tensor
    first: Tensor
    starts: Array
    padding: Padding | None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts) - 1

    @property
    def tokens(self) -> int:
        """How many tokens they have together."""
        return int(self.starts[-1])

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], offset: int, device: torch.device, *, padded: bool) -> Packed:
        """Pack token ids; ``offset`` is the first position's index."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        starts = np.concatenate(([0], np.cumsum(lengths)))
        ids = np.fromiter((token for row in rows for token in row), np.int64, int(starts[-1]))
        positions = np.arange(len(ids)) - np.repeat(starts[:-1], lengths) + offset

        def filled(array: Array) -> Tensor:
            return _tensor(np.concatenate([array, np.repeat(array[:1], rounded_up(len(array)) - len(array))]), device)

        padding = Padding.of(starts, device) if padded else None
        return cls(filled(ids), filled(positions), filled(starts[:-1]), starts, padding)


def _tensor(array: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
