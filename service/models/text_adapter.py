"""From a PEFT configuration and its tensors to checked LoRA factors and a head; every fault is found at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from service.errors import AdapterIncompatible
from service.models.base_weights import Family
from service.models.heads import Head
from service.models.lora import Factors, Target
from service.models.lora_options import Ranks, names_in, option_faults
from service.models.values import is_finite

PREFIX = "base_model.model."
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


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

    tensors: dict[str, Tensor]
    faults: list[str] = field(default_factory=list)

    def take(self, name: str, shape: tuple[int | None, ...]) -> Tensor | None:
        """The tensor, if it is there with that shape (None: any size) and holds finite numbers."""
        tensor = self.tensors.pop(PREFIX + name, None)
        if tensor is None:
            self.faults.append(f"no tensor {PREFIX}{name}")
            return None
        before = len(self.faults)
        if len(tensor.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)):
            wanted = ", ".join("*" if size is None else str(size) for size in shape)
            self.faults.append(f"{PREFIX}{name} has shape {tuple(tensor.shape)}; expected ({wanted})")
        if not tensor.is_floating_point():
            self.faults.append(f"{PREFIX}{name} holds {str(tensor.dtype).removeprefix('torch.')}; expected a floating-point type")
        elif not is_finite(tensor):
            self.faults.append(f"{PREFIX}{name} holds a value that is not finite")
        return tensor if len(self.faults) == before else None


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
    reader, ranks = _Reader(dict(tensors)), Ranks(config, max_rank)
    own_dense = not family.pools or not has_pooler or f"{PREFIX}{family.dense}.weight" in tensors
    head = _head(reader, family, hidden, label_count, own_dense)
    # A dense layer of the adapter's own takes the place of the base model's, and of LoRA on that.
    factors = _factors(reader, {name: t for name, t in targets.items() if not own_dense or name != family.dense}, config, ranks)
    unknown = [f"{name} belongs to nothing in this base model" for name in sorted(reader.tensors)]
    faults = [*option_faults(config), *ranks.faults, *reader.faults, *unknown]
    if faults or head is None:
        raise AdapterIncompatible(faults)
    return TextAdapter(factors, head)


def _head(reader: _Reader, family: Family, hidden: int, labels: int, own_dense: bool) -> Head | None:
    weight = bias = None
    if own_dense:
        weight, bias = reader.take(f"{family.dense}.weight", (hidden, hidden)), reader.take(f"{family.dense}.bias", (hidden,))
    out_weight, out_bias = reader.take(f"{family.out}.weight", (labels, hidden)), reader.take(f"{family.out}.bias", (labels,))
    if out_weight is None or out_bias is None or (own_dense and (weight is None or bias is None)):
        return None
    return Head((weight, bias) if weight is not None and bias is not None else None, (out_weight, out_bias))


def _factors(reader: _Reader, targets: Mapping[str, Target], config: Mapping[str, Any], ranks: Ranks) -> dict[str, Factors]:
    found = {match["module"] for name in reader.tensors if (match := FACTOR.fullmatch(name.removeprefix(PREFIX)))}
    factors = {}
    for module in sorted((found | _aimed_at(config, targets)) & set(targets)):
        target = targets[module]
        a = reader.take(f"{module}.lora_A.weight", (None, target.inputs))
        b = reader.take(f"{module}.lora_B.weight", (target.outputs, None))
        told = ranks.of(module)
        if a is None or b is None or told is None:
            continue
        rank, scaling = told
        if a.shape[0] == b.shape[1] == rank:
            factors[module] = Factors(a, b.T, scaling)
        else:
            reader.faults.append(
                f"{module} has lora_A of rank {a.shape[0]} and lora_B of rank {b.shape[1]}; the configuration says {rank}"
            )
    return factors


def _aimed_at(config: Mapping[str, Any], targets: Mapping[str, Target]) -> set[str]:
    """The modules that must have LoRA, as far as the configuration names them one by one."""
    if config.get("layers_to_transform") is not None or config.get("exclude_modules"):
        return set()
    saved = names_in(config, "modules_to_save")
    return {
        module
        for module in targets
        if any(f".{module}".endswith(f".{name}") for name in names_in(config, "target_modules"))
        and not any(f".{name}." in f".{module}." for name in saved)
    }
