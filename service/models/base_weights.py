"""The frozen base model's weights, from wherever it comes, by transformers' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig
from transformers.utils import logging as hub_logging

from service.errors import StartupError
from service.models.sources import fingerprint, locate, unreadable

FILE = "model.safetensors"
FLOATS = ("F64", "F32", "F16", "BF16")  # numbers that are weights as they are, by the file's names for them
POOLER = {"pooler.dense.weight", "pooler.dense.bias"}


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
        if (plain := _plain(Path(source) / FILE, config)) is not None:
            return BaseWeights(config, plain, fingerprint(plain))
        from transformers import AutoModel  # which takes seconds, and reads whatever can be read

        model, info = AutoModel.from_pretrained(source, config=config, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, ImportError, SafetensorError):
        raise unreadable(name, setting) from None
    drop = set(info["missing_keys"]) if FAMILIES[config.model_type].pools else POOLER
    lost = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if lost:
        raise StartupError(f"{setting}={name}: the model's file lacks {len(lost)} tensors, the first {lost[0]!r}")
    tensors = {key: value for key, value in model.state_dict().items() if key not in drop and value.is_floating_point()}
    return BaseWeights(config, tensors, fingerprint(tensors))


def base_fingerprint(name: str) -> str:
    """The fingerprint of the base model called ``name``."""
    return load_base(name).fingerprint


def _plain(file: Path, config: Any) -> Mapping[str, Tensor] | None:
    """The weights in ``file`` where every tensor has its name and shape of today; else None, as that takes transformers."""
    if not file.is_file():
        return None
    family, needed = FAMILIES[config.model_type], _shapes(config)
    with safe_open(file, framework="pt") as stored:
        names = {name.removeprefix(f"{family.prefix}."): name for name in stored.keys()}  # noqa: SIM118  # it is no mapping
        if family.pools and set(names) >= POOLER:
            needed |= {name: (config.hidden_size,) * (2 if name.endswith("weight") else 1) for name in POOLER}
        if not needed.keys() <= names.keys():
            return None
        slices = [(stored.get_slice(names[name]), shape) for name, shape in needed.items()]
        if any(tuple(found.get_shape()) != shape or found.get_dtype() not in FLOATS for found, shape in slices):
            return None
        # Copied, as what is read lies in the file, which may be replaced.
        return {name: stored.get_tensor(names[name]).to(torch.float32, copy=True) for name in needed}


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """What every BERT-shaped encoder has, but for a pooler."""
    hidden, wide = config.hidden_size, config.intermediate_size
    embeddings = {
        "word": config.vocab_size, "position": config.max_position_embeddings, "token_type": config.type_vocab_size,
    }  # fmt: skip
    linear = {
        "attention.self.query": hidden, "attention.self.key": hidden, "attention.self.value": hidden,
        "attention.output.dense": hidden, "intermediate.dense": wide, "output.dense": hidden,
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{kind}_embeddings.weight": (size, hidden) for kind, size in embeddings.items()
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(config.num_hidden_layers)):
        for name, outputs in linear.items():
            inputs = wide if name == "output.dense" else hidden
            shapes |= {f"{layer}.{name}.weight": (outputs, inputs), f"{layer}.{name}.bias": (outputs,)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    return shapes | {f"{norm}.{kind}": (hidden,) for norm in norms for kind in ("weight", "bias")}
