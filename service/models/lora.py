"""LoRA factors of many adapters, and the product that adds them to a linear layer's output for rows of any mix.

Every adapter's factors lie in one tensor of its own, so loading and unloading moves nothing else and a running forward
needs no lock. They have the type of what they are multiplied by: bfloat16 halves what is read and computed. A batch names
them by address: one call of the kernel (``lora_kernel.c``) adds the products of every run of rows. Without the kernel, and
off the CPU, factors lie in a bank instead (``bank.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from service.models import lora_kernel
from service.models.activations import activated
from service.models.kernels import Array, padded
from service.models.values import zeros

RANKS, TILED_RANKS, COLUMNS = 4, 8, 32  # how many the kernel takes at a time, as in the C file; what is added is zero
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

    ``tiled`` is its site, where the site's kernel reads factors in tiles.
    """

    module: int
    inputs: int
    outputs: int
    kind: torch.dtype
    tiled: Site | None = None

    def ranks(self, count: int) -> int:
        """How many ranks the kernel takes for so many."""
        return padded(count, RANKS if self.tiled is None else TILED_RANKS)

    @property
    def before(self) -> int:
        """The place of the first output in a tile of the site's."""
        return 0 if self.tiled is None else (self.module - self.tiled.first) * self.outputs % COLUMNS

    def nbytes(self, rank: int) -> int:
        """Bytes that factors of a rank take."""
        columns = padded(self.inputs, COLUMNS) + padded(self.before + self.outputs, COLUMNS)
        return self.kind.itemsize * self.ranks(rank) * columns


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's LoRA: ``a`` (r, in) and ``b`` (r, out) in the types of their file, so that y += scaling · x aᵀ b."""

    a: Tensor
    b: Tensor
    scaling: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LoadedFactors:
    """An adapter's factors on the device, in the types that their modules compute in, scaled.

    ``memory`` holds each module's ``a`` (rank, in) and ``b`` (rank, out), or both in tiles, and then every site's ``a`` side by
    side; ``table`` (modules, 3) has their addresses and rank for the kernel, zeros for modules that the adapter leaves alone.
    """

    memory: Tensor
    table: Array

    @classmethod
    def load(cls, factors: Mapping[str, Factors], targets: Mapping[str, Target], device: torch.device) -> LoadedFactors:
        """Copy factors, keyed by module name, to the device."""
        memory = zeros(loaded_bytes(factors, targets), device, torch.uint8)
        table: Array = np.zeros((len(targets), 3), np.int64)
        start = 0

        def take(rank: int, columns: int, kind: torch.dtype) -> Tensor:
            nonlocal start
            start, first = start + rank * padded(columns, COLUMNS) * kind.itemsize, start
            return memory[first:start].view(kind)

        for site in _by_site(factors, targets):
            kind, ranks = site[0][0].kind, [target.ranks(len(pair.a)) for target, pair in site]
            a = _steps(take(sum(ranks), site[0][0].inputs, kind), sum(ranks), tiled=site[0][0].tiled is not None)
            for (target, pair), own, rank in zip(site, a.split_with_sizes(ranks), ranks, strict=True):
                b = take(rank, target.before + target.outputs, kind)
                _write(own, pair.a, target, 0)
                _write(_columns(b, rank, tiled=target.tiled is not None), pair.b.float() * pair.scaling, target, target.before)
                table[target.module] = own.data_ptr(), b.data_ptr(), rank
        return cls(memory, table)


def _by_site(factors: Mapping[str, Factors], targets: Mapping[str, Target]) -> Iterable[Sequence[tuple[Target, Factors]]]:
    """Modules in order, those together whose factors lie side by side.

    Tiles come last: one may reach into the factors after its own, which are to be numbers of its type.
    """
    found = sorted(((targets[name], pair) for name, pair in factors.items()), key=lambda one: (bool(one[0].tiled), one[0].module))
    for _, site in groupby(found, lambda one: one[0].tiled or one[0]):
        yield list(site)


def _steps(place: Tensor, rank: int, *, tiled: bool) -> Tensor:
    """Factors (rank, in) as they lie; in tiles they do in pairs of inputs, of ranks, and are (rank, in / 2, 2)."""
    return place.view(-1, rank, 2).transpose(0, 1) if tiled else place.view(rank, -1)


def _columns(place: Tensor, rank: int, *, tiled: bool) -> Tensor:
    """Factors (rank, out) as they lie; in tiles of outputs they do in pairs of ranks, and are (rank / 2, 2, out / 16, 16)."""
    return place.view(-1, rank // 2, TILE, 2).permute(1, 3, 0, 2) if tiled else place.view(rank, -1)


def _write(to: Tensor, factor: Tensor, target: Target, before: int) -> None:
    """Lay a module's factor where it is to be, in columns from ``before`` on."""
    if target.tiled is None:
        to[: len(factor), : factor.shape[1]] = factor
        return
    # Rows that wear other factors are multiplied by these and zero, so all are to be finite.
    finite = factor.to(to.dtype).nan_to_num(nan=torch.finfo(to.dtype).max)
    rank = target.ranks(len(factor))
    to.copy_(pad(finite, (before, to.numel() // rank - before - factor.shape[1], 0, rank - len(factor))).view(to.shape))


def loaded_bytes(factors: Mapping[str, Factors], targets: Mapping[str, Target]) -> int:
    """Bytes that :meth:`LoadedFactors.load` takes on the device."""
    found = [(targets[name], len(pair.a)) for name, pair in factors.items()]
    return sum(target.nbytes(rank) for target, rank in found) + BEYOND * any(target.tiled is not None for target, _ in found)


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
