"""A fully fine-tuned checkpoint beside the base model that it came from: checked, and what fine-tuning has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as hub_logging

from service.models.base_weights import BaseWeights
from service.models.heads import Head
from service.models.sources import PACKAGED_HUB_ID, PACKAGED_MINILM, fingerprint, locate
from training.data import DataError

OPTION = "--base-model"
SAME = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
        "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps")  # fmt: skip
UNRELATED = 1.0  # a difference as large as the weights themselves: two independent models are √2 apart
NORM = ".LayerNorm."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A fully fine-tuned classifier: its encoder's tensors by the base model's names, and its head.

    ``named`` says whether the labels are real names or transformers' ``LABEL_0``; ``fingerprint`` covers every tensor.
    """

    weights: BaseWeights
    head: Head
    labels: tuple[str, ...]
    named: bool
    problem_type: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Differences:
    """What fine-tuning changed in the encoder: ``linear`` (out, in) by module, the rest by the base model's names."""

    linear: Mapping[str, Tensor]
    rest: Mapping[str, Tensor]

    def shares(self) -> dict[str, float]:
        """The share of each kind of parameter in the squared difference; nothing has changed where all are zero."""
        sums = dict.fromkeys(("linear layers", *KINDS), 0.0)
        sums["linear layers"] = sum(squared(change) for change in self.linear.values())
        for name, change in self.rest.items():
            sums[kind(name)] += squared(change)
        total = sum(sums.values())
        return {group: value / total if total else 0.0 for group, value in sums.items()}


KINDS = ("biases", "LayerNorm", "embeddings")


def kind(name: str) -> str:
    """Which of :data:`KINDS` a tensor of the encoder that LoRA cannot change belongs to."""
    if NORM in name:
        return "LayerNorm"
    return "embeddings" if name.startswith("embeddings.") else "biases"


def squared(tensor: Tensor) -> float:
    """The sum of a tensor's squared values."""
    return float(tensor.double().square().sum())


def hub_name(base_model: str) -> str:
    """What a configuration calls the base model: the packaged one by its hub id."""
    return PACKAGED_HUB_ID if base_model in PACKAGED_MINILM else base_model


def read_checkpoint(folder: Path, base_model: str, base: BaseWeights) -> Checkpoint:
    """Read a classifier's folder, as ``save_pretrained`` writes it, and check that ``base`` has the same form.

    Raises :class:`DataError` for a folder without a classifier, and for one of another base model.
    """
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json; expected the folder of a fine-tuned classifier, as save_pretrained writes it")
    hub_logging.set_verbosity_error()
    hub_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder)
        _check_form(folder, config, base_model, base.config)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{folder}: not a model that transformers can read ({type(error).__name__})") from None
    if info["missing_keys"]:
        first = min(info["missing_keys"])
        raise DataError(f"{folder}: its weights lack {first}; expected a fine-tuned {type(model).__name__}, head included")
    _check_vocabulary(folder, base_model)
    tensors, prefix = {name: tensor.detach() for name, tensor in model.state_dict().items()}, base.family.prefix
    weights = BaseWeights(base.config, {name: tensors[f"{prefix}.{name}"] for name in base.tensors}, fingerprint(tensors))
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    return Checkpoint(
        weights,
        Head(_layer(tensors, base.family.dense), _layer(tensors, base.family.out)),
        tuple(names),
        names != [f"LABEL_{i}" for i in range(len(names))],
        config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification"),
        weights.fingerprint,
    )


def compare(folder: Path, checkpoint: Checkpoint, base_model: str, base: BaseWeights, targets: Mapping[str, Any]) -> Differences:
    """What the checkpoint has changed in the encoder, by ``targets``, the modules that LoRA may change, and the rest.

    The base model's pooler is left out: it travels with the head. Raises :class:`DataError` where the two have nothing
    but their form in common.
    """
    prefix = f"{base.family.prefix}."
    modules = {f"{name.removeprefix(prefix)}.weight": name for name in targets if name != base.family.dense}
    linear, rest, size = {}, {}, 0.0
    for name, before in base.tensors.items():
        change = checkpoint.weights.tensors[name] - before
        if name in modules:
            linear[modules[name]], size = change, size + squared(before)
        elif not name.startswith("pooler."):
            rest[name] = change
    apart = (sum(map(squared, linear.values())) / size) ** 0.5
    if apart >= UNRELATED:
        raise DataError(
            f"{folder}: its linear layers are {apart:.0%} of their size away from those of {base_model}: it was not fine-tuned "
            f"from that; name its own base model by {OPTION}"
        )
    return Differences(linear, rest)


def _layer(tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _check_form(folder: Path, config: Any, base_model: str, base: Any) -> None:
    for option in SAME:
        theirs, ours = getattr(config, option, None), getattr(base, option)
        if theirs != ours:
            raise DataError(
                f"{folder}: its {option} is {theirs}, that of {base_model} is {ours}; "
                f"name the base model that it was fine-tuned from by {OPTION}"
            )


def _check_vocabulary(folder: Path, base_model: str) -> None:
    """A folder may lack a tokenizer; one that it has must give every token the number that the base model's gives it."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        return
    try:
        theirs = AutoTokenizer.from_pretrained(folder).get_vocab()
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: its tokenizer cannot be read ({type(error).__name__})") from None
    ours = AutoTokenizer.from_pretrained(locate(base_model, OPTION)).get_vocab()
    if theirs != ours:
        different = sum(ours.get(token) != number for token, number in theirs.items())
        raise DataError(
            f"{folder}: {different or 'some'} of its {len(theirs)} tokens have another number in the vocabulary of {base_model}; "
            f"name the base model that it was fine-tuned from by {OPTION}"
        )
