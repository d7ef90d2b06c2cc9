"""Many text adapters on one encoder: load them into the banks, and run one forward for rows of any mix of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.models.bank import Bank, BankedFactors
from service.models.bank_runs import BankRuns
from service.models.heads import Head, Heads
from service.models.lora import Factors, LoadedFactors, Runs, loaded_bytes
from service.models.packed import Packed
from service.models.text_adapter import TextAdapter, parse_text_adapter
from service.models.text_encoder import TextEncoder
from service.models.values import copied


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoadedTextAdapter:
    """An adapter on the device: its LoRA factors, if it has any, and its head.

    A reference to it is a lease: its memory is freed when the last one is gone, be it a request's or the server's.
    """

    factors: LoadedFactors | BankedFactors | None
    head: Head


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of a batch: token ids, and the adapter it wears (None: the bare base model)."""

    ids: Sequence[int]
    adapter: LoadedTextAdapter | None


Run = tuple[int, int, LoadedTextAdapter]
BANK_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as one forward reads them, sorted by adapter.

    ``places`` has the place of each row. Runs of places wear the same adapter: ``lora`` has those with LoRA factors,
    ``heads`` all with a head. Bare rows lie at the end.
    """

    packed: Packed
    places: Sequence[int]
    lora: Runs | BankRuns
    heads: Heads


class TextClassifier:
    """The encoder, and adapters loaded beside it; the rows of a batch share one forward.

    Where factors lie in a bank, it takes ``bank_bytes``.
    """

    def __init__(self, encoder: TextEncoder, max_rank: int, bank_bytes: int = BANK_BYTES) -> None:
        self.encoder, self.max_rank = encoder, max_rank
        self._bank = Bank(encoder.targets, encoder.device, bank_bytes) if encoder.banked else None

    def parse(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], label_count: int) -> TextAdapter:
        """Check an adapter against this base model; raises :class:`AdapterIncompatible` with all faults."""
        return parse_text_adapter(
            config, tensors, family=self.encoder.family, targets=self.encoder.targets, hidden=self.encoder.hidden,
            label_count=label_count, max_rank=self.max_rank, has_pooler=self.encoder.pools,
        )  # fmt: skip

    def load(self, adapter: TextAdapter) -> LoadedTextAdapter:
        """Copy a checked adapter to the device; running forwards go on meanwhile."""
        device, dense, out = self.encoder.device, adapter.head.dense, adapter.head.out
        return LoadedTextAdapter(self._load(adapter.factors), Head(_to(device, dense) if dense else None, _to(device, out)))

    def nbytes(self, adapter: TextAdapter) -> int:
        """Bytes that :meth:`load` takes on the device for a checked adapter."""
        head: int = sum(4 * tensor.numel() for tensor in (*(adapter.head.dense or ()), *adapter.head.out))
        if self._bank is not None:
            return head + self._bank.nbytes(adapter.factors)
        return head + loaded_bytes(adapter.factors, self.encoder.targets)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Sort rows by adapter and lay their tokens end to end; may run on any thread, beside a forward."""
        order = sorted(range(len(rows)), key=lambda i: _group(rows[i]))
        ordered = [rows[i] for i in order]
        runs = _runs(ordered)
        packed = self.encoder.pack([row.ids for row in ordered])
        heads = Heads.of([(start, stop, worn.head) for start, stop, worn in runs])
        places = sorted(range(len(rows)), key=order.__getitem__)
        return Batch(packed, places, self._lora(runs, packed), heads)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> list[Tensor]:
        """Each row's result, in the order given to :meth:`collate`.

        Float32 logits (labels,), or for a bare row its first-token state (hidden,).
        """
        states, logits = self.encoder.answer(batch.packed, batch.lora, batch.heads)
        worn = batch.heads.each(logits.cpu().unbind())
        results = [*worn, *states[len(worn) :].unbind()]
        return [results[place] for place in batch.places]

    @torch.inference_mode()
    def logits(self, batch: Batch) -> list[list[float]]:
        """Each row's logits as Python's numbers, in the order given to :meth:`collate`; a bare row has none."""
        _, logits = self.encoder.answer(batch.packed, batch.lora, batch.heads)
        rows = batch.heads.each(logits.tolist())
        return [rows[place] if place < len(rows) else [] for place in batch.places]

    def _load(self, factors: Mapping[str, Factors]) -> LoadedFactors | BankedFactors | None:
        if not factors:
            return None
        if self._bank is not None:
            return self._bank.load(factors)
        return LoadedFactors.load(factors, self.encoder.targets, self.encoder.device)

    def _lora(self, runs: Sequence[Run], packed: Packed) -> Runs | BankRuns:
        if self._bank is None:
            return Runs.of([(start, stop, worn.factors) for start, stop, worn in runs if isinstance(worn.factors, LoadedFactors)])
        banked = [(start, stop, worn.factors) for start, stop, worn in runs if isinstance(worn.factors, BankedFactors)]
        return BankRuns.of(self._bank, banked, packed, fixed=self.encoder.captures)


def _group(row: Row) -> tuple[int, int]:
    """A sort key that brings the rows of one adapter together, and the bare ones to the end."""
    return (1, 0) if row.adapter is None else (0, id(row.adapter))


def _runs(rows: Sequence[Row]) -> list[Run]:
    """Runs of the rows that wear an adapter."""
    runs: list[Run] = []
    for i, row in enumerate(rows):
        if row.adapter is None:
            break
        if runs and runs[-1][2] is row.adapter:
            runs[-1] = (runs[-1][0], i + 1, row.adapter)
        else:
            runs.append((i, i + 1, row.adapter))
    return runs


def _to(device: torch.device, layer: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return copied(layer[0], device), copied(layer[1], device)
