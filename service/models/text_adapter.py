"""From a PEFT configuration and its tensors to checked LoRA factors and a head; every fault is found at once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn.functional import linear

from service.errors import AdapterIncompatible
from service.models.lora import Factors, Target
from service.models.text_encoder import Family
from service.models.values import is_finite

PREFIX = "base_model.model."
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Options that cannot change an answer once the tensors are trained.
INERT = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "use_rslora", "modules_to_save",
    "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "megatron_core", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "qalora_group_size", "ensure_weight_tying", "runtime_config", "id2label", "label2id",
    "num_labels",
}  # fmt: skip
INITIAL = (None, True, False, "gaussian", "eva", "orthogonal")  # the others also change the base model's own weights
LONGEST_PATTERN = 200
REPEATS = re.compile(r"[*+?{]")  # a stranger's pattern that repeats could take for ever to match


@dataclass(frozen=True, slots=True)
class Head:
    """The layers from a first-token state to logits: dense, tanh, out. Without ``dense`` the base model's pooler serves.

    ``dense`` and ``out`` are (weight, bias): in the types of their file, or once loaded in float32.
    """

    dense: tuple[Tensor, Tensor] | None
    out: tuple[Tensor, Tensor]

    def logits(self, pooled: Tensor) -> Tensor:
        """Logits, (rows, labels), of states that have passed the dense layer and tanh."""
        return linear(pooled, *self.out)


@dataclass(frozen=True, slots=True)
class TextAdapter:
    """A checked text adapter, on the CPU, in the types of its file: LoRA factors by module name, and its head."""

    factors: Mapping[str, Factors]
    head: Head

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor of it."""
        return [
            *(tensor for pair in self.factors.values() for tensor in (pair.a, pair.b)),
            *(self.head.dense or ()),
            *self.head.out,
        ]


@dataclass
class _Reader:
    """Takes tensors out of the file one by one, so that what is left over at the end is a fault as well."""

    config: Mapping[str, Any]
    tensors: dict[str, Tensor]
    faults: list[str] = field(default_factory=list)

    def take(self, name: str, shape: tuple[int | None, ...]) -> Tensor | None:
        """The tensor, if it is there with that shape (None: any size) and holds finite numbers."""
        tensor = self.tensors.pop(PREFIX + name, None)
        if tensor is None:
            self.faults.append(f"no tensor {PREFIX}{name}")
            return None
        if len(tensor.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)):
            wanted = ", ".join("*" if size is None else str(size) for size in shape)
            self.faults.append(f"{PREFIX}{name} has shape {tuple(tensor.shape)}; expected ({wanted})")
            return None
        if not tensor.is_floating_point():
            self.faults.append(f"{PREFIX}{name} holds {str(tensor.dtype).removeprefix('torch.')}; expected a floating-point type")
            return None
        if not is_finite(tensor):
            self.faults.append(f"{PREFIX}{name} holds a value that is not finite")
            return None
        return tensor


def parse_text_adapter(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    family: Family,
    targets: Mapping[str, Target],
    hidden: int,
    label_count: int,
    max_rank: int,
    has_pooler: bool,
) -> TextAdapter:
    """Check an adapter against the base model and take every tensor of it.

    Raises :class:`AdapterIncompatible` with all faults: unsupported options, missing, unknown or misshapen tensors,
    values that are not finite, a rank over ``max_rank``, a head that does not fit the labels.
    """
    reader = _Reader(config, dict(tensors))
    reader.faults += _option_faults(config)
    head = _head(reader, family, hidden, label_count, has_pooler)
    factors = _factors(reader, targets, max_rank)
    reader.faults += [f"{name} belongs to nothing in this base model" for name in sorted(reader.tensors)]
    if reader.faults or head is None:
        raise AdapterIncompatible(reader.faults)
    return TextAdapter(factors, head)


def _option_faults(config: Mapping[str, Any]) -> list[str]:
    if config.get("peft_type") != "LORA":
        return [f"peft_type {config.get('peft_type')!r} is not supported; expected 'LORA'"]
    faults = []
    if config.get("task_type") not in ("SEQ_CLS", None):
        faults.append(f"task_type {config['task_type']!r} is not supported; expected 'SEQ_CLS'")
    if config.get("init_lora_weights", True) not in INITIAL:
        faults.append(f"init_lora_weights {config['init_lora_weights']!r} changes the base model, which all adapters share")
    if config.get("bias", "none") != "none":
        faults.append(f"bias {config['bias']!r} is not supported; expected 'none'")
    others = sorted(key for key, value in config.items() if value and key not in INERT | {"init_lora_weights", "bias"})
    return faults + [f"option {key} is not supported" for key in others]


def _head(reader: _Reader, family: Family, hidden: int, labels: int, has_pooler: bool) -> Head | None:
    own_dense = not family.pools or not has_pooler or f"{PREFIX}{family.dense}.weight" in reader.tensors
    weight = bias = None
    if own_dense:
        weight, bias = reader.take(f"{family.dense}.weight", (hidden, hidden)), reader.take(f"{family.dense}.bias", (hidden,))
    out_weight, out_bias = reader.take(f"{family.out}.weight", (labels, hidden)), reader.take(f"{family.out}.bias", (labels,))
    if out_weight is None or out_bias is None or (own_dense and (weight is None or bias is None)):
        return None
    return Head((weight, bias) if weight is not None and bias is not None else None, (out_weight, out_bias))


def _factors(reader: _Reader, targets: Mapping[str, Target], max_rank: int) -> dict[str, Factors]:
    found = {match["module"] for name in reader.tensors if (match := FACTOR.fullmatch(name.removeprefix(PREFIX)))}
    factors = {}
    for module in sorted(found & set(targets)):
        target = targets[module]
        a = reader.take(f"{module}.lora_A.weight", (None, target.inputs))
        b = reader.take(f"{module}.lora_B.weight", (target.outputs, None))
        if a is None or b is None:
            continue
        rank, scaling = _scaling(reader, module)
        if not a.shape[0] == b.shape[1] == rank:
            reader.faults.append(
                f"{module} has lora_A of rank {a.shape[0]} and lora_B of rank {b.shape[1]}; the configuration says {rank}"
            )
        elif not 1 <= rank <= max_rank:
            reader.faults.append(f"{module} has rank {rank}; this server accepts 1 to {max_rank}")
        else:
            factors[module] = Factors(a, b.T, scaling)
    return factors


def _scaling(reader: _Reader, module: str) -> tuple[int, float]:
    """Rank and scaling of a module, by PEFT's rules: ``lora_alpha / r``, or ``/ sqrt(r)`` with ``use_rslora``."""
    config = reader.config
    rank = _by_pattern(reader, "rank_pattern", module, config.get("r", 8))
    alpha = _by_pattern(reader, "alpha_pattern", module, config.get("lora_alpha", 8))
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        reader.faults.append(f"{module} has r {rank!r} and lora_alpha {alpha!r}; expected a whole number from 1 and a number")
        return 1, 1.0
    return rank, alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _by_pattern(reader: _Reader, option: str, module: str, default: Any) -> Any:
    patterns = reader.config.get(option) or {}
    if not isinstance(patterns, dict):
        return _pattern_fault(reader, f"{option} is not an object of module names and numbers", default)
    for pattern, value in patterns.items():
        if REPEATS.search(pattern) or len(pattern) > LONGEST_PATTERN:
            return _pattern_fault(
                reader, f"{option} has the key {pattern[:80]!r}; module names without * + ? {{ are accepted", default
            )
        try:
            matched = re.match(rf"(.*\.)?({pattern})$", module)
        except re.error:
            return _pattern_fault(reader, f"{option} has the key {pattern!r}, which is no module name", default)
        if matched:
            return value
    return default


def _pattern_fault(reader: _Reader, fault: str, default: Any) -> Any:
    if fault not in reader.faults:
        reader.faults.append(fault)
    return default
