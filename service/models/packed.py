"""Token rows laid end to end, as the text encoder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """Token rows laid end to end, and the indices that lead to the padded form that attention needs and back.

    ``first`` (rows,) is each row's first token; ``pad`` (rows · width,) the packed index of every padded position;
    ``unpad`` (tokens,) the padded index of every token; ``mask`` (rows, 1, 1, width), or None without any padding.
    ``starts`` (rows + 1,) has each row's first token and, at the end, the number of tokens.
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
        ids = np.fromiter((token for row in rows for token in row), np.int64, int(lengths.sum()))
        mask = None if inside.all() else torch.from_numpy(inside)[:, None, None, :].to(device)

        def tensor(array: np.ndarray[Any, Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return cls(
            tensor(ids), tensor(positions), tensor(starts), tensor(pad.ravel()), tensor(np.flatnonzero(inside)), mask,
            bounds,
        )  # fmt: skip
