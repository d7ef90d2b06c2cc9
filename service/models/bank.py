"""LoRA factors of all adapters in one tensor that never moves, for devices where torch computes the products.

A *slot* is a line of that tensor, as wide as the encoder's states. It holds one of the ``rank`` vectors of a factor, or
a part of one that is wider. Slots are named one by one, so any free ones will do for an adapter of any rank on any
modules, and a batch brings nothing but their numbers: what was captured of a forward reads other adapters when it is
replayed with other numbers. Slot 0 is zero, and stands for all that an adapter leaves alone.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from service.errors import Overloaded
from service.models.kernels import Array, padded
from service.models.lora import Factors, Target
from service.models.transfer import write
from service.models.values import zeros

LEAST_RANK = 8  # ranks are padded to powers of two from here on
STEP = 8  # numbers of which a slot is a multiple
ALIGNMENT = 16  # bytes


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class BankedFactors:
    """An adapter's factors in a bank, which takes its slots back when the last reference to this is gone.

    ``table`` (modules, rank, 2, slots) has for each module the slots of ``a`` and of ``b``, and 0 for those there are not.
    """

    table: Array


class Bank:
    """Room for the factors of adapters on ``targets`` in so many bytes on a device; all of it is taken at once.

    ``kind`` is the type of the slots; a module that computes in a wider one takes more of them.
    """

    def __init__(self, targets: Mapping[str, Target], device: torch.device, nbytes: int) -> None:
        self.targets = targets
        self.kind = min((target.kind for target in targets.values()), key=lambda kind: kind.itemsize)
        width = padded(min(target.inputs for target in targets.values()), STEP)
        count = 1 + nbytes // (width * self.kind.itemsize)
        self.values = zeros(count * width, device, self.kind).view(count, width)
        # A product over groups reads nothing else.
        self.aligned = all(target.inputs * target.kind.itemsize % ALIGNMENT == 0 for target in targets.values())
        self._widths: Array = np.zeros(len(targets), np.int64)
        for target in targets.values():
            self._widths[target.module] = self._slots(target, max(target.inputs, target.outputs))
        self._free: Array = np.arange(count - 1, 0, -1)
        self._left, self._lock = count - 1, threading.Lock()
        # No lock: a last reference may go anywhere, even while slots are being taken.
        self._returned: deque[Array] = deque()

    def nbytes(self, factors: Mapping[str, Factors]) -> int:
        """Bytes that :meth:`load` takes."""
        sizes = ((pair.a.shape[0], self.targets[name]) for name, pair in factors.items())
        slots = sum(r * (self._slots(target, target.inputs) + self._slots(target, target.outputs)) for r, target in sizes)
        return slots * self.values[0].nbytes

    def load(self, factors: Mapping[str, Factors]) -> BankedFactors:
        """Copy factors, keyed by module name, to free slots; nothing else moves.

        Raises :class:`Overloaded` when there are too few.
        """
        rank = max(LEAST_RANK, *(1 << (pair.a.shape[0] - 1).bit_length() for pair in factors.values()))
        table: Array = np.zeros((len(self.targets), rank, 2, self._widths.max()), np.int64)
        taken = self._take(self.nbytes(factors) // self.values[0].nbytes)
        lines, start = [], 0
        for name, pair in factors.items():
            target, r = self.targets[name], pair.a.shape[0]
            for side, factor in enumerate((pair.a, pair.b.float() * pair.scaling)):
                count = self._slots(target, factor.shape[1])
                lines.append(self._lines(factor.to(target.kind), count))
                table[target.module, :r, side, :count] = taken[start : start + r * count].reshape(r, count)
                start += r * count
        loaded = BankedFactors(table)
        weakref.finalize(loaded, self._returned.append, taken).atexit = False
        write(self.values, torch.from_numpy(taken), torch.cat(lines))
        return loaded

    def changed(self, factors: Sequence[BankedFactors]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each module, whether any of the adapters changes it."""
        found = np.zeros(len(self.targets), np.bool_)
        for one in factors:
            found |= one.table[:, 0, 0, 0] > 0
        return found

    def widest(self, modules: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
        """How many slots the widest vector of these modules takes."""
        return int(self._widths[modules].max(initial=0))

    def read(self, slots: Tensor, width: int, kind: torch.dtype) -> Tensor:
        """The vectors (…, width) that lie in ``slots`` (…, slots of one)."""
        count = -(-width * kind.itemsize // self.values[0].nbytes)
        lines = self.values.index_select(0, slots[..., :count].flatten())
        return lines.view(*slots.shape[:-1], -1).view(kind)[..., :width]

    def _slots(self, target: Target, width: int) -> int:
        return -(-width * target.kind.itemsize // self.values[0].nbytes)

    def _lines(self, factor: Tensor, count: int) -> Tensor:
        """A factor (r, width) as the slots that hold it, so many for each of its vectors."""
        numbers = count * self.values[0].nbytes // factor.itemsize
        return pad(factor, (0, numbers - factor.shape[1])).contiguous().view(self.kind).view(-1, self.values.shape[1])

    def _take(self, count: int) -> Array:
        with self._lock:
            while self._returned:
                back = self._returned.popleft()
                self._free[self._left : self._left + len(back)] = back
                self._left += len(back)
            if count > self._left:
                raise Overloaded("the memory for adapters on the device is full for the moment; ask again")
            self._left -= count
            return self._free[self._left : self._left + count].copy()
