"""Many text adapters on one encoder: load them into the banks, and run one forward for rows of any mix of them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from service.models.lora import LoraBanks, Slot, Span, lora_linear
from service.models.text_adapter import Head, TextAdapter, parse_text_adapter
from service.models.text_encoder import TextEncoder


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoadedTextAdapter:
    """An adapter on the device: its slot, or None without LoRA factors, and its head.

    A reference to it is a lease: its slot is freed when the last one is gone, be it a request's or the server's.
    """

    slot: Slot | None
    head: Head


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of a batch: token ids, and the adapter it wears (None: the bare base model)."""

    ids: Sequence[int]
    adapter: LoadedTextAdapter | None


class TextClassifier:
    """The encoder, the LoRA banks, and every loaded adapter's head; the rows of a batch share one forward."""

    def __init__(self, encoder: TextEncoder, max_rank: int) -> None:
        self.encoder, self.max_rank = encoder, max_rank
        self._banks = LoraBanks(encoder.device)

    def parse(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], label_count: int) -> TextAdapter:
        """Check an adapter against this base model; raises :class:`AdapterIncompatible` with all faults."""
        return parse_text_adapter(
            config, tensors, family=self.encoder.family, targets=self.encoder.targets, hidden=self.encoder.hidden,
            label_count=label_count, max_rank=self.max_rank, has_pooler=self.encoder.pooler is not None,
        )  # fmt: skip

    def load(self, adapter: TextAdapter) -> LoadedTextAdapter:
        """Copy a checked adapter to the device; running forwards go on meanwhile."""
        device = self.encoder.device
        slot = self._banks.load(adapter.factors, self.encoder.targets) if adapter.factors else None
        dense = None if adapter.head.dense is None else (adapter.head.dense[0].to(device), adapter.head.dense[1].to(device))
        out = adapter.head.out[0].to(device), adapter.head.out[1].to(device)
        loaded = LoadedTextAdapter(slot, Head(dense, out))
        if slot is not None:
            weakref.finalize(loaded, slot.free).atexit = False
        return loaded

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> list[Tensor]:
        """Each row's result, in order: float32 logits (labels,), or for a bare row its first-token state (hidden,)."""
        order = sorted(range(len(rows)), key=lambda i: _group(rows[i]))
        ordered = [rows[i] for i in order]
        runs = _runs(ordered)
        spans = [Span(start, stop, row.slot) for start, stop, row in runs if row is not None and row.slot is not None]
        states = self.encoder.forward([row.ids for row in ordered], spans)
        pooled = self._pool(states, runs, spans)
        results: list[Tensor] = list(states)
        for start, stop, adapter in runs:
            if adapter is not None:
                results[start:stop] = adapter.head.logits(pooled[start:stop]).cpu()
        return [result for _, result in sorted(zip(order, results, strict=True), key=lambda pair: pair[0])]

    def _pool(self, states: Tensor, runs: Sequence[tuple[int, int, LoadedTextAdapter | None]], spans: Sequence[Span]) -> Tensor:
        pooler = self.encoder.pooler
        pooled = torch.empty_like(states) if pooler is None else lora_linear(states, *pooler, "pooler", spans)
        for start, stop, adapter in runs:
            if adapter is not None and adapter.head.dense is not None:
                pooled[start:stop] = linear(states[start:stop], *adapter.head.dense)
        return pooled.tanh_()


def _group(row: Row) -> tuple[int, int]:
    """A sort key that brings the rows of one adapter together, and the bare ones to the end."""
    return (1, 0) if row.adapter is None else (0, id(row.adapter))


def _runs(rows: Sequence[Row]) -> list[tuple[int, int, LoadedTextAdapter | None]]:
    runs: list[tuple[int, int, LoadedTextAdapter | None]] = []
    for i, row in enumerate(rows):
        if runs and runs[-1][2] is row.adapter:
            runs[-1] = (runs[-1][0], i + 1, row.adapter)
        else:
            runs.append((i, i + 1, row.adapter))
    return runs
