"""Token rows laid end to end, as the text encoder reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.models import kernels
from service.models.kernels import Array
from service.models.transfer import sent_array

FINEST = 8


def rounded_up(count: int) -> int:
    """The next of the few sizes that tensors have: multiples of 8, and from 512 on at most a 32nd apart.

    Libraries make and keep kernels for each size that they meet, which takes milliseconds and memory every time.
    """
    step = max(FINEST, 1 << max(0, count.bit_length() - 6))
    return kernels.padded(count, step)


def power_of_two(count: int) -> int:
    """The next power of two from 8 on: the sizes of what is captured, which takes longer and more memory by far."""
    return max(FINEST, 1 << (count - 1).bit_length())


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a batch's tensors; ``width`` is that of a padded row, or None where attention reads rows as they lie."""

    tokens: int
    rows: int
    width: int | None


@dataclass(frozen=True, slots=True)
class Padding:
    """The indices that lead from packed tokens to the padded form and back.

    ``pad`` (rows · width,) is the packed index of every padded position, ``unpad`` (tokens,) the padded index of every
    token; ``mask`` is (rows, 1, 1, width).
    """

    pad: Tensor
    unpad: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """Token rows laid end to end.

    ``inputs`` has all that the device is told, in one vector, so that one copy brings it there; ``starts`` (rows + 1,) is
    each row's first token on the host, with the number of tokens at the end. Sizes are rounded up; what is added repeats
    the first token or row.
    """

    inputs: Tensor
    shape: Shape
    starts: Array

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts) - 1

    @property
    def tokens(self) -> int:
        """How many tokens they have together."""
        return int(self.starts[-1])

    @property
    def ids(self) -> Tensor:
        """Each token's id."""
        return self.inputs[: self.shape.tokens]

    @property
    def positions(self) -> Tensor:
        """Each token's position."""
        return self.inputs[self.shape.tokens : 2 * self.shape.tokens]

    @property
    def first(self) -> Tensor:
        """Each row's first token."""
        start = 2 * self.shape.tokens
        return self.inputs[start : start + self.shape.rows]

    def padding(self) -> Padding | None:
        """The way to padded rows, where attention needs it, made on the device."""
        if self.shape.width is None:
            return None
        start = 2 * self.shape.tokens + self.shape.rows
        lengths, unpad = self.inputs[start : start + self.shape.rows, None], self.inputs[start + self.shape.rows :]
        places = torch.arange(self.shape.width, device=self.inputs.device)
        # A padded position repeats its row's last token: any finite value does, since the mask hides it.
        pad = self.first[:, None] + torch.minimum(places, lengths - 1)
        return Padding(pad.flatten(), unpad, (places < lengths)[:, None, None, :])

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[int]],
        offset: int,
        device: torch.device,
        *,
        padded: bool,
        rounded: Callable[[int], int] = rounded_up,
    ) -> Packed:
        """Pack token ids; ``offset`` is the first position's index."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        starts = np.concatenate(([0], np.cumsum(lengths)))
        ids = np.fromiter((token for row in rows for token in row), np.int64, int(starts[-1]))
        within = np.arange(len(ids)) - np.repeat(starts[:-1], lengths)
        told, width = [ids, within + offset, starts[:-1]], None
        if padded:
            width = rounded(int(lengths.max()))
            told += [lengths, within + np.repeat(width * np.arange(len(rows)), lengths)]
        whole = np.concatenate([_filled(array, rounded(len(array))) for array in told])
        return cls(sent_array(whole, device), Shape(rounded(len(ids)), rounded(len(rows)), width), starts)


def _filled(array: Array, size: int) -> Array:
    return np.concatenate([array, np.repeat(array[:1], size - len(array))])
