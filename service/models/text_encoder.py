"""The frozen base model: a BERT-shaped encoder over packed tokens, where every row may wear its own LoRA adapter.

Sequences lie end to end in one (tokens, hidden) tensor, so no linear layer ever multiplies padding; only the attention
itself pads. Weights come from transformers' model of the same name, and the tests hold the outputs equal to its.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, layer_norm, scaled_dot_product_attention
from transformers import AutoConfig, AutoModel
from transformers.activations import ACT2FN
from transformers.utils import logging as hub_logging

from service.errors import StartupError
from service.models.lora import Span, Target, lora_linear
from service.models.sources import fingerprint, locate, unreadable


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between BERT-shaped families.

    ``prefix`` holds the encoder inside the task model; ``dense`` and ``out`` are the head's two layers there;
    ``pools`` says that the base model itself has the first of them; ``offset`` is the first position's index.
    """

    prefix: str
    dense: str
    out: str
    pools: bool
    offset: int


FAMILIES = {
    "bert": Family("bert", "bert.pooler.dense", "classifier", pools=True, offset=0),
    "roberta": Family("roberta", "classifier.dense", "classifier.out_proj", pools=False, offset=2),
    "xlm-roberta": Family("roberta", "classifier.dense", "classifier.out_proj", pools=False, offset=2),
}


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """A base model as loaded: its configuration, float32 tensors by transformers' names, and their fingerprint."""

    config: Any
    tensors: Mapping[str, Tensor]
    fingerprint: str

    @property
    def family(self) -> Family:
        """The row of :data:`FAMILIES` for this model."""
        return FAMILIES[self.config.model_type]


def load_base(name: str, setting: str = "QUICKCHANGE_BASE_MODEL") -> BaseWeights:
    """Load a base model by packaged name, folder or hub id.

    Raises :class:`StartupError`, naming ``setting``, when it cannot be found or its architecture is not supported.
    """
    source = locate(name, setting)
    hub_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type not in FAMILIES:
            raise StartupError(
                f"{setting}={name}: model type {config.model_type!r} is not supported; accepted: {', '.join(FAMILIES)}"
            )
        model, info = AutoModel.from_pretrained(source, config=config, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError):
        raise unreadable(name, setting) from None
    drop = set(info["missing_keys"]) if FAMILIES[config.model_type].pools else {"pooler.dense.weight", "pooler.dense.bias"}
    lost = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if lost:
        raise StartupError(f"{setting}={name}: the model's file lacks {len(lost)} tensors, the first {lost[0]!r}")
    tensors = {key: value for key, value in model.state_dict().items() if key not in drop and value.is_floating_point()}
    return BaseWeights(config, tensors, fingerprint(tensors))


def base_fingerprint(name: str) -> str:
    """The fingerprint of the base model called ``name``."""
    return load_base(name).fingerprint


@dataclass(frozen=True, slots=True)
class Packed:
    """Token rows laid end to end, and the indices that lead to the padded form that attention needs and back.

    ``first`` (rows,) is each row's first token; ``pad`` (rows · width,) the packed index of every padded position;
    ``unpad`` (tokens,) the padded index of every token; ``mask`` (rows, 1, 1, width), or None without any padding.
    ``lengths`` has each row's tokens.
    """

    ids: Tensor
    positions: Tensor
    first: Tensor
    pad: Tensor
    unpad: Tensor
    mask: Tensor | None
    lengths: Sequence[int]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.lengths)

    def over_tokens(self, spans: Sequence[Span]) -> list[Span]:
        """Spans over rows as spans over their tokens."""
        bounds = [0, *accumulate(self.lengths)]
        return [Span(bounds[span.start], bounds[span.stop], span.slot) for span in spans]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], offset: int, device: torch.device) -> Packed:
        """Pack token ids; ``offset`` is the first position's index."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        width = int(lengths.max())
        inside = np.arange(width) < lengths[:, None]
        # A padded position repeats its row's last token: any finite value does, since the mask hides it.
        pad = starts[:, None] + np.minimum(np.arange(width), lengths[:, None] - 1)
        positions = np.broadcast_to(np.arange(width) + offset, inside.shape)[inside]
        ids = np.fromiter((token for row in rows for token in row), np.int64, int(lengths.sum()))
        mask = None if inside.all() else torch.from_numpy(inside)[:, None, None, :].to(device)

        def tensor(array: np.ndarray[Any, Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return cls(
            tensor(ids), tensor(positions), tensor(starts), tensor(pad.ravel()), tensor(np.flatnonzero(inside)), mask,
            lengths.tolist(),
        )  # fmt: skip


class TextEncoder:
    """A frozen BERT-shaped encoder that returns each row's first-token state, with per-row LoRA.

    ``targets`` maps every linear module, by its name in transformers' model, to its place in the LoRA banks.
    """

    SITES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention": ("attention.output.dense",),
        "up": ("intermediate.dense",),
        "down": ("output.dense",),
    }

    def __init__(self, base: BaseWeights, device: torch.device) -> None:
        config = base.config
        self.family, self.fingerprint, self.device = base.family, base.fingerprint, device
        self.hidden: int = config.hidden_size
        self.layers: int = config.num_hidden_layers
        self.max_length: int = config.max_position_embeddings - self.family.offset
        self._heads: int = config.num_attention_heads
        self._eps: float = config.layer_norm_eps
        self._activation = ACT2FN[config.hidden_act]
        self._weights = self._fuse(base.tensors)
        self.targets = self._targets()

    def _fuse(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        fused = {name: tensor.to(self.device) for name, tensor in tensors.items() if not name.startswith("encoder.")}
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}."
            for site, modules in self.SITES.items():
                for kind in ("weight", "bias"):
                    joined = torch.cat([tensors[f"{prefix}{module}.{kind}"] for module in modules])
                    fused[f"{layer}.{site}.{kind}"] = joined.to(self.device)
            for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
                for kind in ("weight", "bias"):
                    fused[f"{layer}.{norm}.{kind}"] = tensors[f"{prefix}{norm}.{kind}"].to(self.device)
        return fused

    def _targets(self) -> dict[str, Target]:
        targets = {}
        for layer in range(self.layers):
            for site, modules in self.SITES.items():
                outputs, inputs = self._weights[f"{layer}.{site}.weight"].shape
                for part, module in enumerate(modules):
                    name = f"{self.family.prefix}.encoder.layer.{layer}.{module}"
                    targets[name] = Target(f"{layer}.{site}", part, len(modules), inputs, outputs // len(modules))
        if self.pooler is not None:
            targets[self.family.dense] = Target("pooler", 0, 1, self.hidden, self.hidden)
        return targets

    @property
    def pooler(self) -> tuple[Tensor, Tensor] | None:
        """Weight and bias of the base model's own pooler, where it has one."""
        weight = self._weights.get("pooler.dense.weight")
        return None if weight is None else (weight, self._weights["pooler.dense.bias"])

    def pack(self, rows: Sequence[Sequence[int]]) -> Packed:
        """Token-id rows as :meth:`forward` and :meth:`states` read them; may run on any thread."""
        return Packed.of(rows, self.family.offset, self.device)

    def forward(self, packed: Packed, spans: Sequence[Span], over_tokens: Sequence[Span]) -> Tensor:
        """First-token states, (rows, hidden); each of ``spans`` covers rows with one adapter, ``over_tokens`` their tokens.

        Rows under no span get the bare base model.
        """
        x = self._embed(packed)
        for layer in range(self.layers - 1):
            x = self._feed_forward(self._attend(x, packed, layer, over_tokens), layer, over_tokens)
        # Only the first tokens leave the last layer, so only they pass through what follows its attention.
        x = self._attend(x, packed, self.layers - 1, over_tokens, first_over=spans)
        return self._feed_forward(x, self.layers - 1, spans)

    def states(self, packed: Packed) -> Tensor:
        """Every token's state, (tokens, hidden), row after row, from the bare base model."""
        x = self._embed(packed)
        for layer in range(self.layers):
            x = self._feed_forward(self._attend(x, packed, layer, ()), layer, ())
        return x

    def _embed(self, packed: Packed) -> Tensor:
        w = self._weights
        x = embedding(packed.ids, w["embeddings.word_embeddings.weight"])
        x = x + embedding(packed.positions, w["embeddings.position_embeddings.weight"])
        x += w["embeddings.token_type_embeddings.weight"][0]
        return self._norm(x, "embeddings.LayerNorm")

    def _attend(
        self, x: Tensor, packed: Packed, layer: int, spans: Sequence[Span], first_over: Sequence[Span] | None = None
    ) -> Tensor:
        """Attention with its residual; with ``first_over``, spans over rows, for each row's first token alone."""
        joined = self._linear(x, f"{layer}.qkv", spans)
        padded = joined if packed.mask is None else joined[packed.pad]
        query, key, value = padded.view(packed.rows, -1, 3, self._heads, self.hidden // self._heads).permute(2, 0, 3, 1, 4)
        if first_over is not None:
            query, x, spans = query[:, :, :1], x[packed.first], first_over
        context = scaled_dot_product_attention(query, key, value, attn_mask=packed.mask)
        context = context.transpose(1, 2).reshape(-1, self.hidden)
        if first_over is None and packed.mask is not None:
            context = context[packed.unpad]
        return self._norm(self._linear(context, f"{layer}.attention", spans).add_(x), f"{layer}.attention.output.LayerNorm")

    def _feed_forward(self, x: Tensor, layer: int, spans: Sequence[Span]) -> Tensor:
        wide = self._activation(self._linear(x, f"{layer}.up", spans))
        return self._norm(self._linear(wide, f"{layer}.down", spans).add_(x), f"{layer}.output.LayerNorm")

    def _linear(self, x: Tensor, site: str, spans: Sequence[Span]) -> Tensor:
        return lora_linear(x, self._weights[f"{site}.weight"], self._weights[f"{site}.bias"], site, spans)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (self.hidden,), self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], self._eps)
