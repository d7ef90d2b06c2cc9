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

    def __call__(self, joined: Tensor, packed: Packed, *, first_only: bool = False) -> Tensor:
        """Contexts, as many lines as ``joined`` has, or with ``first_only`` those of ``packed.first`` alone; (lines, hidden).

        ``joined`` (tokens, 3 · hidden) has queries, keys and values. Lines beyond the last token or row are zero.
        """
        hidden = self.heads * self.size
        count, lines = (packed.rows, len(packed.first)) if first_only else (packed.tokens, len(joined))
        context = joined.new_empty(lines, hidden)
        context[count:] = 0
        if packed.padding is None:
            attention_kernel.attention(context, joined, self.heads, packed.starts, first_only=first_only)
        else:
            context[:count] = self._by_torch(joined, packed.rows, packed.padding, first_only=first_only)
        return context

    def _by_torch(self, joined: Tensor, rows: int, padding: Padding, *, first_only: bool) -> Tensor:
        query, key, value = joined[padding.pad].view(rows, -1, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        if first_only:
            query = query[:, :, :1]
        context = scaled_dot_product_attention(query, key, value, attn_mask=padding.mask)
        context = context.transpose(1, 2).reshape(-1, self.heads * self.size)
        return context if first_only or padding.mask is None else context[padding.unpad]
