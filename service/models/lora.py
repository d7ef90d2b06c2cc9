"""LoRA factors of many adapters, stacked by rank in banks, and the product that adds them to a linear layer's output.

A linear layer, or several that read the same input (query, key and value), is a *site* of one or more *parts*. A bank
holds one pair of tensors per site, a slot per adapter: ``a`` (slots, parts · rank, in) and ``b`` (slots, parts · rank,
parts · out), block-diagonal over the parts so that one product serves them all, with scaling folded in. Zero padding up
to the bank's rank changes no product.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import linear

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
    """One module's LoRA: ``a`` (r, in) and ``b`` (r, out) in the types of their file, so that y += scaling · x aᵀ b."""

    a: Tensor
    b: Tensor
    scaling: float = 1.0


@dataclass(frozen=True, slots=True)
class SiteTensors:
    """One site of a bank: ``a`` (slots, parts · rank, in) and ``b`` (slots, parts · rank, parts · out).

    ``down`` and ``up`` are each slot's views of them, ready to multiply by.
    """

    a: Tensor
    b: Tensor
    down: tuple[Tensor, ...]
    up: tuple[Tensor, ...]

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> SiteTensors:
        """The tensors with their views."""
        return cls(a, b, a.transpose(1, 2).unbind(), b.unbind())


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """An adapter's place in a bank, and the sites that it changes."""

    bank: LoraBank
    index: int
    sites: frozenset[str]

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
        return Slot(self, index, frozenset(targets[name].site for name in factors))

    def free(self, index: int) -> None:
        """Put a slot back on the free list."""
        # No lock: this may run wherever a last reference happens to go, even inside load().
        self._free.append(index)

    def _write(self, index: int, target: Target, pair: Factors) -> None:
        site, r = self.sites[target.site], pair.a.shape[0]
        first, column = target.part * self.rank, target.part * target.outputs
        site.a[index, first : first + r].copy_(pair.a)
        site.b[index, first : first + r, column : column + target.outputs].copy_(pair.b).mul_(pair.scaling)

    def _add_sites(self, wanted: Mapping[str, Target]) -> None:
        missing = {name: target for name, target in wanted.items() if name not in self.sites}
        if missing:
            added = {name: self._empty(target.parts, target.inputs, target.outputs) for name, target in missing.items()}
            self.sites = MappingProxyType({**self.sites, **added})

    def _empty(self, parts: int, inputs: int, outputs: int) -> SiteTensors:
        return SiteTensors.of(
            torch.zeros(self._capacity, parts * self.rank, inputs, device=self._device),
            torch.zeros(self._capacity, parts * self.rank, parts * outputs, device=self._device),
        )

    def _grow(self) -> None:
        old, self._capacity = self._capacity, max(FIRST_CAPACITY, 2 * self._capacity)
        grown = {}
        for name, site in self.sites.items():
            larger = SiteTensors.of(*(tensor.new_zeros(self._capacity, *tensor.shape[1:]) for tensor in (site.a, site.b)))
            larger.a[:old].copy_(site.a)
            larger.b[:old].copy_(site.b)
            grown[name] = larger
        self.sites = MappingProxyType(grown)
        self._free.extend(range(self._capacity - 1, old - 1, -1))


class LoraBanks:
    """One bank per rank, for the powers of two from 8 up, made when the first adapter needs it."""

    SMALLEST = 8

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._banks: dict[int, LoraBank] = {}
        self._lock = threading.Lock()

    def load(self, factors: Mapping[str, Factors], targets: Mapping[str, Target]) -> Slot:
        """Copy an adapter's factors into the smallest bank that its largest rank fits."""
        rank = self._rank(factors)
        with self._lock:
            bank = self._banks.setdefault(rank, LoraBank(rank, self._device))
        return bank.load(factors, targets)

    def nbytes(self, factors: Mapping[str, Factors], targets: Mapping[str, Target]) -> int:
        """Bytes of the slot that :meth:`load` would fill."""
        rank = self._rank(factors)
        sites = {targets[name].site: targets[name] for name in factors}.values()
        return 4 * rank * sum(site.parts * (site.inputs + site.parts * site.outputs) for site in sites)

    def _rank(self, factors: Mapping[str, Factors]) -> int:
        largest = max((pair.a.shape[0] for pair in factors.values()), default=1)
        return max(self.SMALLEST, 1 << (largest - 1).bit_length())


def lora_linear(x: Tensor, weight: Tensor, bias: Tensor, site: str, spans: Sequence[Span]) -> Tensor:
    """A linear layer's output, (rows, out), each span's low-rank product included.

    ``x`` is (rows, in); spans are in order and apart. The products come first, on top of the bias, and the layer's own
    product is added to them: its output is then written once more instead of read and written twice. Consecutive rows
    share two small products on views of the bank (docs/performance.md has what else was measured).
    """
    worn = [span for span in spans if site in span.slot.sites]
    if not worn:
        return linear(x, weight, bias)
    y, done = x.new_empty(len(x), len(weight)), 0
    for span in worn:
        if done < span.start:
            y[done : span.start] = bias
        tensors, index = span.slot.bank.sites[site], span.slot.index
        low = x[span.start : span.stop] @ tensors.down[index]
        torch.addmm(bias, low, tensors.up[index], out=y[span.start : span.stop])
        done = span.stop
    if done < len(x):
        y[done:] = bias
    return y.addmm_(x, weight.T)
