"""The runs of a batch whose adapters lie in a bank: what the device is told of them, and the products that they add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from service.models.bank import Bank, BankedFactors
from service.models.kernels import Array
from service.models.lora import Site
from service.models.packed import Packed, power_of_two
from service.models.spread import Cut, blocks, long_runs, most_blocks, segments
from service.models.transfer import sent_array

Run = tuple[int, int, BankedFactors]


@dataclass(frozen=True, slots=True)
class RunsShape:
    """Sizes of what the device is told of a batch's runs, and the modules that any of them changes.

    There are ``slots`` (modules, runs + 1, rank, 2, slots of a vector) numbers of slots; tokens and rows are each cut in a
    way of their own.
    """

    modules: tuple[int, ...]
    slots: tuple[int, ...]
    tokens: Cut
    rows: Cut


@dataclass(frozen=True, slots=True)
class BankRuns:
    """Runs of consecutive rows, each with factors in ``bank``.

    ``inputs`` has all that the device is told, in one vector: the numbers of slots, then how tokens and rows are cut.
    """

    bank: Bank
    inputs: Tensor
    shape: RunsShape

    @classmethod
    def of(cls, bank: Bank, runs: Sequence[Run], packed: Packed, *, fixed: bool) -> BankRuns:
        """Runs given as first row, end and factors, in order and apart.

        With ``fixed``, sizes are rounded up to be few, and depend on nothing but the shape of ``packed`` and the number of runs.
        """
        factors = [run[2] for run in runs]
        bounds: Array = np.array([run[:2] for run in runs], np.int64).reshape(-1, 2)
        count = power_of_two(len(runs)) if fixed and runs else len(runs)
        slots = _slots(bank, factors, count)
        by_token, of_tokens = _cut(bank, packed.starts[bounds], packed.shape.tokens, count, fixed=fixed)
        by_row, of_rows = _cut(bank, bounds, packed.shape.rows, count, fixed=fixed)
        modules = tuple(np.flatnonzero(bank.changed(factors)).tolist())
        told = sent_array(np.concatenate([slots.ravel(), of_tokens, of_rows]), bank.values.device)
        return cls(bank, told, RunsShape(modules, slots.shape, by_token, by_row))

    def over(self, _: Array) -> Worn:
        """The runs over the tokens of their rows."""
        return self._worn(self.shape.tokens, self._start)

    def rows(self) -> Worn:
        """The runs over rows."""
        return self._worn(self.shape.rows, self._start + self.shape.tokens.size)

    @property
    def _start(self) -> int:
        return int(np.prod(self.shape.slots))

    def _worn(self, cut: Cut, start: int) -> Worn:
        inputs = self.inputs[start : start + cut.size]
        slots = self.inputs[: self._start].view(self.shape.slots)
        return Worn(self.bank, self.shape.modules, slots.index_select(1, cut.run(inputs)), cut, inputs)


@dataclass(frozen=True, slots=True)
class Worn:
    """What lines wear: ``slots`` (modules, pieces, rank, 2, slots of a vector) are those of the pieces that they are cut in."""

    bank: Bank
    modules: Sequence[int]
    slots: Tensor
    cut: Cut
    inputs: Tensor

    def wear(self, site: Site) -> bool:
        """Whether any run changes a module of the site."""
        return any(site.first <= module < site.first + site.parts for module in self.modules)

    def add(self, y: Tensor, x: Tensor, site: Site) -> Tensor:
        """Add every run's low-rank products to ``y`` (lines, parts · out) from ``x`` (lines, in); returns ``y``."""
        laid = self.cut.lay(x, self.inputs)
        for place, module in enumerate(self.modules):
            if site.first <= module < site.first + site.parts:
                part = module - site.first
                a = self.bank.read(self.slots[place, :, :, 0], site.inputs, x.dtype)
                b = self.bank.read(self.slots[place, :, :, 1], site.outputs, x.dtype)
                self.cut.add(y[:, part * site.outputs : (part + 1) * site.outputs], laid, a, b, self.inputs)
        return y


def _slots(bank: Bank, factors: Sequence[BankedFactors], runs: int) -> Array:
    """The numbers of slots of these factors, as :class:`RunsShape` has them, with zeros for the run of those in none."""
    changed = bank.changed(factors)
    rank, widest = max((one.table.shape[1] for one in factors), default=0), bank.widest(changed)
    slots: Array = np.zeros((int(changed.sum()), 1 + runs, rank, 2, widest), np.int64)
    for run, one in enumerate(factors, 1):
        slots[:, run, : one.table.shape[1]] = one.table[changed, ..., :widest]
    return slots


def _cut(bank: Bank, bounds: Array, lines: int, runs: int, *, fixed: bool) -> tuple[Cut, Array]:
    if not fixed and bank.aligned and long_runs(bounds, bank.kind):
        return segments(bounds, lines)
    return blocks(bounds, lines, most_blocks(lines, runs) if fixed else None)
