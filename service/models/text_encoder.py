"""The frozen base model: a BERT-shaped encoder over packed tokens, where every row may wear its own LoRA adapter.

Sequences lie end to end in one (tokens, hidden) tensor, so no linear layer ever multiplies padding; only the attention
itself pads. The tests hold the outputs equal to those of transformers' model with the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import embedding, layer_norm

from service.models import encoder_kernel, kernels
from service.models.activations import activated
from service.models.attention import Attention
from service.models.bank_runs import BankRuns, Worn
from service.models.base_weights import BaseWeights
from service.models.graphs import Capture, Graphs, cuda_capture
from service.models.heads import Heads
from service.models.kernel_linear import Bfloat16Linear, Float32Linear, KernelLinear
from service.models.linear import COMPUTED_IN, Dtype, Linear
from service.models.lora import NO_RUNS, Runs, Site, Target
from service.models.packed import Packed, Padding, power_of_two, rounded_up
from service.models.quantized import QuantizedLinear


class TextEncoder:
    """A frozen BERT-shaped encoder that returns each row's first-token state, with per-row LoRA.

    Linear layers, and what lies between them, are computed in ``dtype``; states come out in float32. With int8, ``largest``
    may have the largest absolute value of each input of each site (``calibration.py``). ``targets`` maps every linear
    module, by its name in transformers' model, to its number. ``banked`` says that adapters lie in a bank, as they do where
    torch computes their products. ``capture``, on a GPU there without being given, makes of a forward what computes it again.
    """

    QUERY, KEY, VALUE = "attention.self.query", "attention.self.key", "attention.self.value"
    AFTER: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention": ("attention.output.dense",),
        "up": ("intermediate.dense",),
        "down": ("output.dense",),
    }
    SITES: ClassVar[Mapping[str, tuple[str, ...]]] = {"qkv": (QUERY, KEY, VALUE), **AFTER}
    # Only first tokens leave the last layer, so only they have a query there.
    LAST_SITES: ClassVar[Mapping[str, tuple[str, ...]]] = {"q": (QUERY,), "kv": (KEY, VALUE), **AFTER}

    def __init__(
        self,
        base: BaseWeights,
        device: torch.device,
        dtype: Dtype = "fp32",
        largest: Mapping[str, Tensor] | None = None,
        capture: Capture | None = None,
    ) -> None:
        config = base.config
        self.family, self.fingerprint, self.device, self.dtype = base.family, base.fingerprint, device, dtype
        self.hidden: int = config.hidden_size
        self.layers: int = config.num_hidden_layers
        self.max_length: int = config.max_position_embeddings - self.family.offset
        heads: int = config.num_attention_heads
        self._attention = Attention(heads, self.hidden // heads, device)
        self._eps: float = config.layer_norm_eps
        self._activation: str = config.hidden_act
        self._kind = COMPUTED_IN[dtype]
        self._linears: dict[str, Linear | KernelLinear] = {}
        self._sites: dict[str, Site] = {}
        self.targets: dict[str, Target] = {}
        self._weights = self._others(base.tensors)
        self._join(base.tensors, largest or {})
        self._whole = encoder_kernel.encoder_of(self._linears, self._weights, self.layers, heads, self._activation, self._eps)
        self.banked = not (kernels.available and device.type == "cpu")
        capture = cuda_capture() if capture is None and device.type == "cuda" else capture
        self._graphs = Graphs(self.first_states, capture) if capture is not None else None

    @property
    def captures(self) -> bool:
        """Whether forwards over banked adapters are captured, and so are to have few shapes."""
        return self._graphs is not None

    def _others(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeddings and norms, which stay in float32; off the CPU torch has no norm that mixes types."""
        linears = {f"{module}.{kind}" for modules in self.SITES.values() for module in modules for kind in ("weight", "bias")}
        return {
            name: tensor.to(self.device, self._kind if name.startswith("encoder.") and self.device.type != "cpu" else None)
            for name, tensor in tensors.items()
            if name.split(".", 3)[-1] not in linears and not name.startswith("pooler.")
        }

    def _join(self, tensors: Mapping[str, Tensor], largest: Mapping[str, Tensor]) -> None:
        """Linear layers, those that read the same input joined to one, and the places of their modules."""
        for layer in range(self.layers):
            for site, modules in (self.SITES if layer + 1 < self.layers else self.LAST_SITES).items():
                names = [f"encoder.layer.{layer}.{module}" for module in modules]
                self._add_site(f"{layer}.{site}", names, tensors, self.dtype, largest.get(f"{layer}.{site}"))
        self.pools = "pooler.dense.weight" in tensors
        if self.pools:
            self._add_site("pooler", ["pooler.dense"], tensors, "fp32")

    def _add_site(
        self, site: str, modules: Sequence[str], tensors: Mapping[str, Tensor], dtype: Dtype, largest: Tensor | None = None
    ) -> None:
        weight, bias = (torch.cat([tensors[f"{module}.{kind}"] for module in modules]) for kind in ("weight", "bias"))
        outputs, inputs = len(weight) // len(modules), weight.shape[1]
        if dtype == "int8" and QuantizedLinear.fits(inputs):
            self._linears[site] = QuantizedLinear(weight, bias, largest)
        elif dtype == "bf16" and self.device.type == "cpu" and Bfloat16Linear.fits(inputs):
            self._linears[site] = Bfloat16Linear(weight, bias)
        elif dtype == "fp32" and self.device.type == "cpu" and Float32Linear.fits(inputs):
            self._linears[site] = Float32Linear(weight, bias)
        else:
            self._linears[site] = Linear(weight, bias, dtype, self.device)
        self._sites[site] = Site(len(self.targets), len(modules), inputs, outputs)
        tiled = self._sites[site] if self._linears[site].tiled else None
        for module in modules:
            self.targets[f"{self.family.prefix}.{module}"] = Target(len(self.targets), inputs, outputs, COMPUTED_IN[dtype], tiled)

    def pack(self, rows: Sequence[Sequence[int]]) -> Packed:
        """Token-id rows as :meth:`forward` and :meth:`states` read them; may run on any thread."""
        rounded = power_of_two if self.captures else rounded_up
        padded = self._attention.needs_padding(rows)
        return Packed.of(rows, self.family.offset, self.device, padded=padded, rounded=rounded)

    def forward(self, packed: Packed, runs: Runs | BankRuns) -> Tensor:
        """First-token states, (rows, hidden), in float32; rows in no run get the bare base model."""
        if self._whole is not None and packed.shape.width is None and isinstance(runs, Runs):
            return self._whole(packed, runs)
        if self._graphs is not None and isinstance(runs, BankRuns):
            return self._graphs(packed, runs)[: packed.rows]
        return self.first_states(packed, runs)[: packed.rows]

    def answer(self, packed: Packed, runs: Runs | BankRuns, heads: Heads) -> tuple[Tensor, Tensor]:
        """:meth:`forward`, and what heads make of those states, (rows, labels of the most) in float32."""
        if self._whole is not None and packed.shape.width is None and isinstance(runs, Runs):
            return self._whole.answer(packed, runs, heads)
        states = self.forward(packed, runs)
        pooled = self._linear(states, "pooler", runs.rows()) if self.pools else torch.empty_like(states)
        logits = states.new_empty(len(states), heads.most)
        heads.apply(logits, pooled, states)
        return states, logits

    def first_states(self, packed: Packed, runs: Runs | BankRuns) -> Tensor:
        """The same step by step, with a line for each of the inputs'.

        Over a bank its steps depend on nothing but the shapes of both, and ask the host nothing.
        """
        by_token, by_row, last, padding = runs.over(packed.starts), runs.rows(), self.layers - 1, packed.padding()
        x = self._through(range(last), self._embed(packed), packed, padding, by_token)
        first = x.index_select(0, packed.first)
        queries, others = self._linear(first, f"{last}.q", by_row), self._linear(x, f"{last}.kv", by_token)
        return self._after(self._attention(others, packed, padding, queries), first, last, by_row).float()

    def states(self, packed: Packed) -> Tensor:
        """Every token's state, (tokens, hidden) in float32, row after row, from the bare base model."""
        return self.halfway_and_last(packed)[1]

    def halfway_and_last(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """Every token's state after half of the layers, and its last one; each (tokens, hidden) in float32."""
        if self._whole is not None and packed.shape.width is None:
            return self._whole.halfway_and_last(packed)
        half, last, padding = self.layers // 2, self.layers - 1, packed.padding()
        x = self._through(range(half), self._embed(packed), packed, padding, NO_RUNS)
        halfway = x[: packed.tokens].float()
        x = self._through(range(half, last), x, packed, padding, NO_RUNS)
        joined = torch.cat([self._linear(x, f"{last}.{site}", NO_RUNS) for site in ("q", "kv")], 1)
        return halfway, self._after(self._attention(joined, packed, padding), x, last, NO_RUNS)[: packed.tokens].float()

    def _embed(self, packed: Packed) -> Tensor:
        w = self._weights
        x = embedding(packed.ids, w["embeddings.word_embeddings.weight"])
        x = x + embedding(packed.positions, w["embeddings.position_embeddings.weight"])
        x += w["embeddings.token_type_embeddings.weight"][0]
        return self._norm(x, "embeddings.LayerNorm").to(self._kind)

    def _through(self, layers: range, x: Tensor, packed: Packed, padding: Padding | None, runs: Runs | Worn) -> Tensor:
        """States of all tokens after these layers."""
        for layer in layers:
            context = self._attention(self._linear(x, f"{layer}.qkv", runs), packed, padding)
            x = self._after(context, x, layer, runs)
        return x

    def _after(self, context: Tensor, x: Tensor, layer: int, runs: Runs | Worn) -> Tensor:
        """What a layer makes of its attention's contexts and of its own input, for as many lines."""
        attended = self._linear(context, f"{layer}.attention", runs).add_(x)
        x = self._norm(attended, f"encoder.layer.{layer}.attention.output.LayerNorm")
        wide = self._linear(x, f"{layer}.up", runs, self._activation)
        return self._norm(self._linear(wide, f"{layer}.down", runs).add_(x), f"encoder.layer.{layer}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str, runs: Runs | Worn, activation: str | None = None) -> Tensor:
        site, layer = self._sites[name], self._linears[name]
        if isinstance(runs, Worn):
            return activated(runs.add(layer(x), x, site), activation) if runs.wear(site) else layer(x, activation)
        if not runs.factors or not runs.wear(site):
            return layer(x, activation)
        return layer.adapted(x, site, runs, activation)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (self.hidden,), self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], self._eps)
