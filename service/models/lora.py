"""LoRA factors of many adapters, and the product that adds them to a linear layer's output for rows of any mix.

Every adapter's factors lie in one tensor of its own, so loading and unloading moves nothing else and a running forward
needs no lock. They have the type of what they are multiplied by: bfloat16 halves what is read and computed. A batch names
them by address: one call of the kernel (``lora_kernel.c``) adds the products of every run of rows. Without the kernel, and
off the CPU, factors lie in a bank instead (``bank.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from service.models import lora_kernel
from service.models.activations import activated
from service.models.kernels import Array, padded
from service.models.values import zeros

RANKS, COLUMNS = 4, 32  # how many the kernel takes at a time, as in the C file; what is added is zero
TILE = 16  # outputs, and pairs of inputs, of a tile of factors
BEYOND = 1024  # bytes that a tile may reach beyond the last factor


@dataclass(frozen=True, slots=True)
class Site:
    """A linear layer, or several that read the same input and were joined: modules ``first`` to ``first + parts``.

    ``inputs`` and ``outputs`` are the sizes of each of them.
    """

    first: int
    parts: int
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Target:
    """A module that LoRA may change: its number among the encoder's, the sizes of its input and output, and their type.

    ``tiled`` is the place of the first output in a tile of its site's, where the site's kernel reads factors in tiles.
    """

    module: int
    inputs: int
    outputs: int
    kind: torch.dtype
    tiled: int | None = None


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's LoRA: ``a`` (r, in) and ``b`` (r, out) in the types of their file, so that y += scaling · x aᵀ b."""

    a: Tensor
    b: Tensor
    scaling: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LoadedFactors:
    """An adapter's factors on the device, in the types that their modules compute in, scaled.

    ``memory`` holds each module's ``a`` (rank, in) and ``b`` (rank, out), or both in tiles; ``table`` (modules, 3) has their
    addresses and rank for the kernel, zeros for modules that the adapter leaves alone.
    """

    memory: Tensor
    table: Array

    @classmethod
    def load(cls, factors: Mapping[str, Factors], targets: Mapping[str, Target], device: torch.device) -> LoadedFactors:
        """Copy factors, keyed by module name, to the device."""
        memory = zeros(loaded_bytes(factors, targets), device, torch.uint8)
        table: Array = np.zeros((len(targets), 3), np.int64)
        start = 0
        # A tile may reach into the factors after its own, which are to be numbers of its type.
        for name, pair in sorted(factors.items(), key=lambda one: targets[one[0]].tiled is not None):
            target, rank, places = targets[name], padded(pair.a.shape[0], RANKS), []
            for factor, lay, first in ((pair.a, _steps, 0), (pair.b.float() * pair.scaling, _columns, target.tiled or 0)):
                columns = padded(first + factor.shape[1], COLUMNS)
                place = memory[start : start + rank * columns * target.kind.itemsize].view(target.kind)
                places.append(place.data_ptr())
                start += place.nbytes
                if target.tiled is None:
                    place.view(rank, columns)[: len(factor), : factor.shape[1]] = factor
                    continue
                # Rows that wear other factors are multiplied by these and zero, so all are to be finite.
                finite = factor.to(target.kind).nan_to_num(nan=torch.finfo(target.kind).max)
                whole = pad(finite, (first, columns - first - factor.shape[1], 0, rank - len(factor)))
                lay(place, rank).copy_(whole.view(lay(place, rank).shape))
            table[target.module] = *places, rank
        return cls(memory, table)


def _steps(place: Tensor, rank: int) -> Tensor:
    """Factors (rank, in) where they lie in pairs of inputs, of ranks: (rank, in / 2, 2)."""
    return place.view(-1, rank, 2).transpose(0, 1)


def _columns(place: Tensor, rank: int) -> Tensor:
    """Factors (rank, out) where they lie in tiles of outputs, of pairs of ranks: (rank / 2, 2, out / 16, 16)."""
    return place.view(-1, rank // 2, TILE, 2).permute(1, 3, 0, 2)


def loaded_bytes(factors: Mapping[str, Factors], targets: Mapping[str, Target]) -> int:
    """Bytes that :meth:`LoadedFactors.load` takes on the device."""
    sizes = ((pair.a.shape[0], targets[name]) for name, pair in factors.items())
    return sum(
        target.kind.itemsize
        * padded(r, RANKS)
        * (padded(target.inputs, COLUMNS) + padded((target.tiled or 0) + target.outputs, COLUMNS))
        for r, target in sizes
    ) + BEYOND * any(targets[name].tiled is not None for name in factors)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of consecutive rows that wear the same factors: ``bounds`` (runs, 2) has each one's first row and its end.

    ``table`` (runs, modules, 3) has what the kernel reads; ``worn`` tells for each module whether any run changes it.
    """

    bounds: Array
    factors: Sequence[LoadedFactors]
    table: Array
    worn: Sequence[bool]

    @classmethod
    def of(cls, runs: Sequence[tuple[int, int, LoadedFactors]]) -> Runs:
        """Runs given as first row, end and factors, in order and apart."""
        factors = [run[2] for run in runs]
        table: Array = np.stack([one.table for one in factors]) if factors else np.zeros((0, 0, 3), np.int64)
        bounds: Array = np.array([run[:2] for run in runs], np.int64).reshape(-1, 2)
        return cls(bounds, factors, table, [bool(ranks.any()) for ranks in table[:, :, 2].T])

    def over(self, starts: Array) -> Runs:
        """The same runs over the tokens of their rows; ``starts`` (rows + 1,) has every row's first token, and the end."""
        return Runs(starts[self.bounds], self.factors, self.table, self.worn)

    def rows(self) -> Runs:
        """The same runs, which are of rows until :meth:`over` makes them runs of tokens."""
        return self

    def wear(self, site: Site) -> bool:
        """Whether any run changes a module of the site."""
        return any(self.worn[site.first : site.first + site.parts])


NO_RUNS = Runs.of(())


def add_products(y: Tensor, x: Tensor, site: Site, runs: Runs, activation: str | None = None) -> Tensor:
    """Add every run's low-rank products to ``y`` (rows, parts · out), then activate all of it, in place where that can be.

    ``x`` is (rows, in), of the same type, as the runs' factors for the site are; ``activation`` is one of transformers'
    names. Returns the result.
    """
    gelu = activation == "gelu"
    lora_kernel.add(y, x, site.first, site.parts, runs.bounds, runs.table, gelu=gelu)
    return y if gelu else activated(y, activation)
