"""Self-attention over packed rows: by a kernel of our own on the CPU, and elsewhere by torch's over padded rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from service.models import attention_kernel, kernels
from service.models.packed import Packed, Padding


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention with so many heads on a device."""

    heads: int
    size: int
    device: torch.device

    def needs_padding(self, rows: Sequence[Sequence[int]]) -> bool:
        """Whether these rows must be packed with their padding."""
        fits = self.size <= attention_kernel.MAX_SIZE and max(map(len, rows)) <= attention_kernel.MAX_LENGTH
        return not (kernels.available and self.device.type == "cpu" and fits)

    def __call__(self, joined: Tensor, packed: Packed, padding: Padding | None, queries: Tensor | None = None) -> Tensor:
        """Contexts (tokens, hidden) from ``joined`` (tokens, 3 · hidden): queries, keys and values.

        With ``queries`` (rows, hidden), of each row's first token alone, ``joined`` (tokens, 2 · hidden) has keys and values,
        and the result is (rows, hidden). There is a line for each of the inputs'; those beyond the last token or row are
        finite where the inputs are. ``padding`` is the batch's own.
        """
        if padding is not None:
            return self._by_torch(joined, padding, queries)
        asking, count = (joined, packed.tokens) if queries is None else (queries, packed.rows)
        context = joined.new_empty(len(asking), self.heads * self.size)
        context[count:] = 0
        attention_kernel.attention(context, joined, self.heads, packed.starts, queries)
        return context

    def _by_torch(self, joined: Tensor, padding: Padding, queries: Tensor | None) -> Tensor:
        rows = len(padding.mask)
        parts = joined.index_select(0, padding.pad).chunk(3 if queries is None else 2, 1)
        parts = parts if queries is None else (queries, *parts)
        query, key, value = (part.reshape(rows, -1, self.heads, self.size).transpose(1, 2) for part in parts)
        context = scaled_dot_product_attention(query, key, value, attn_mask=padding.mask)
        context = context.transpose(1, 2).reshape(-1, self.heads * self.size)
        return context if queries is not None else context.index_select(0, padding.unpad)
