"""Token rows laid end to end, as the text encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

FINEST = 8


def rounded_up(count: int) -> int:
    """The next of the few sizes that tensors have: multiples of 8, and from 512 on at most a 32nd apart.

    Libraries make and keep kernels for each size that they meet, which takes milliseconds and memory every time.
    """
    step = max(FINEST, 1 << max(0, count.bit_length() - 6))
    return -(-count // step) * step


@dataclass(frozen=True, slots=True)
class Packed:
    """Token rows laid end to end, and the indices that lead to the padded form that attention needs and back.

    ``pad`` (rows · width,) is the packed index of every padded position, ``unpad`` (tokens,) the padded index of every
    token, ``first`` (rows,) each row's first token; ``mask`` (rows, 1, 1, width), or None where all rows are as long.
    ``starts`` (rows + 1,) has each row's first token and, at the end, the number of tokens. Where rows or tokens are a
    tensor's first dimension, but for ``pad``, their number is rounded up; what is added repeats the first one.
    """

    ids: Tensor
    positions: Tensor
    first: Tensor
    pad: Tensor
    unpad: Tensor
    mask: Tensor | None
    starts: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts) - 1

    @property
    def tokens(self) -> int:
        """How many tokens they have together."""
        return int(self.starts[-1])

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], offset: int, device: torch.device) -> Packed:
        """Pack token ids; ``offset`` is the first position's index."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        bounds = np.concatenate(([0], np.cumsum(lengths)))
        starts = bounds[:-1]
        width = int(lengths.max())
        inside = np.arange(width) < lengths[:, None]
        # A padded position repeats its row's last token: any finite value does, since the mask hides it.
        pad = starts[:, None] + np.minimum(np.arange(width), lengths[:, None] - 1)
        positions = np.broadcast_to(np.arange(width) + offset, inside.shape)[inside]
        ids = np.fromiter((token for row in rows for token in row), np.int64, int(bounds[-1]))
        mask = None if inside.all() else torch.from_numpy(inside)[:, None, None, :].to(device)

        def tensor(array: np.ndarray[Any, Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        def filled(array: np.ndarray[Any, Any]) -> Tensor:
            return tensor(np.concatenate([array, np.repeat(array[:1], rounded_up(len(array)) - len(array))]))

        return cls(
            filled(ids), filled(positions), filled(starts), tensor(pad.ravel()), filled(np.flatnonzero(inside)), mask, bounds
        )
