"""LoRA factors of many adapters, stacked by rank in banks, and the product that adds them to a linear layer's output.

A linear layer, or several that read the same input (query, key and value), is a *site* of one or more *parts*. A bank
holds one pair of tensors per site, a slot per adapter: ``a`` (slots, parts · rank, in) and ``b`` (slots, parts, rank,
out), with scaling folded into ``b``. Zero padding up to the bank's rank changes no product.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

FIRST_CAPACITY = 4


@dataclass(frozen=True, slots=True)
class Target:
    """Where a LoRA target module lives: its site, which part of it, and the sizes of its input and output."""

    site: str
    part: int
    parts: int
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's LoRA: ``a`` (r, in) and ``b`` (r, out), transposed and scaled, so that y += x aᵀ b."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class SiteTensors:
    """One site of a bank: ``a`` (slots, parts · rank, in) and ``b`` (slots, parts, rank, out)."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """An adapter's place in a bank, and the parts of each site that it changes."""

    bank: LoraBank
    index: int
    parts: Mapping[str, tuple[int, ...]]

    def free(self) -> None:
        """Give the slot back; call it once, when no batch reads it any more."""
        self.bank.free(self.index)


@dataclass(frozen=True, slots=True)
class Span:
    """A run of consecutive rows of a packed tensor, [start, stop), that wear the same adapter."""

    start: int
    stop: int
    slot: Slot


class LoraBank:
    """Stacked factors of every adapter whose rank fits ``rank``; grows by doubling, and forwards take no lock.

    A running forward keeps the mapping it read from :attr:`sites`: growth replaces the mapping, and writes touch only
    slots that no batch reads.
    """

    def __init__(self, rank: int, device: torch.device) -> None:
        self.rank = rank
        self.sites: Mapping[str, SiteTensors] = MappingProxyType({})
        self._device = device
        self._capacity = 0
        self._free: deque[int] = deque()
        self._lock = threading.Lock()

    def load(self, factors: Mapping[str, Factors], targets: Mapping[str, Target]) -> Slot:
        """Copy an adapter's factors, keyed by module name, into a free slot."""
        parts: dict[str, list[int]] = {}
        for name in factors:
            parts.setdefault(targets[name].site, []).append(targets[name].part)
        with self._lock:
            if not self._free:
                self._grow()
            index = self._free.pop()
            self._add_sites({targets[name].site: targets[name] for name in factors})
            for site in self.sites.values():
                site.a[index].zero_()
                site.b[index].zero_()
            for name, pair in factors.items():
                self._write(index, targets[name], pair)
        return Slot(self, index, {site: tuple(sorted(found)) for site, found in parts.items()})

    def free(self, index: int) -> None:
        """Put a slot back on the free list."""
        # No lock: this may run wherever a last reference happens to go, even inside load().
        self._free.append(index)

    def _write(self, index: int, target: Target, pair: Factors) -> None:
        site, r = self.sites[target.site], pair.a.shape[0]
        first = target.part * self.rank
        site.a[index, first : first + r].copy_(pair.a)
        site.b[index, target.part, :r].copy_(pair.b)

    def _add_sites(self, wanted: Mapping[str, Target]) -> None:
        missing = {name: target for name, target in wanted.items() if name not in self.sites}
        if missing:
            added = {name: self._empty(target.parts, target.inputs, target.outputs) for name, target in missing.items()}
            self.sites = MappingProxyType({**self.sites, **added})

    def _empty(self, parts: int, inputs: int, outputs: int) -> SiteTensors:
        return SiteTensors(
            torch.zeros(self._capacity, parts * self.rank, inputs, device=self._device),
            torch.zeros(self._capacity, parts, self.rank, outputs, device=self._device),
        )

    def _grow(self) -> None:
        old, self._capacity = self._capacity, max(FIRST_CAPACITY, 2 * self._capacity)
        grown = {}
        for name, site in self.sites.items():
            larger = self._empty(site.b.shape[1], site.a.shape[2], site.b.shape[3])
            larger.a[:old].copy_(site.a)
            larger.b[:old].copy_(site.b)
            grown[name] = larger
        self.sites = MappingProxyType(grown)
        self._free.extend(range(self._capacity - 1, old - 1, -1))


class LoraBanks:
    """One bank per rank, for the powers of two from 8 up to ``max_rank``, made when the first adapter needs it."""

    SMALLEST = 8

    def __init__(self, max_rank: int, device: torch.device) -> None:
        self.max_rank = max_rank
        self._device = device
        self._banks: dict[int, LoraBank] = {}
        self._lock = threading.Lock()

    def load(self, factors: Mapping[str, Factors], targets: Mapping[str, Target]) -> Slot:
        """Copy an adapter's factors into the smallest bank that its largest rank fits."""
        largest = max((pair.a.shape[0] for pair in factors.values()), default=1)
        rank = max(self.SMALLEST, 1 << (largest - 1).bit_length())
        with self._lock:
            bank = self._banks.setdefault(rank, LoraBank(rank, self._device))
        return bank.load(factors, targets)


def add_lora(x: Tensor, y: Tensor, site: str, spans: Sequence[Span]) -> None:
    """Add each span's low-rank product to its rows of ``y``, in place.

    ``x`` is (rows, in) and ``y`` (rows, parts · out). Consecutive rows share two small products on views of the bank:
    measured against gathering every row's factors for one batched product, this wins on a CPU (docs/performance.md).
    """
    for span in spans:
        parts = span.slot.parts.get(site)
        if parts is None:
            continue
        bank, index = span.slot.bank, span.slot.index
        tensors = bank.sites[site]
        low = x[span.start : span.stop] @ tensors.a[index].T
        rows, b = y[span.start : span.stop], tensors.b[index]
        out, rank = b.shape[2], bank.rank
        for part in parts:
            rows[:, part * out : (part + 1) * out].addmm_(low[:, part * rank : (part + 1) * rank], b[part])
