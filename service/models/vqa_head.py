"""The head of a visual question answering adapter: image and question embeddings, joined, reduced with ReLU, to answers.

Standardising and scaling the embeddings is folded into the first layer when a head is exported, so a head is two
linear layers; and perhaps a third from the image straight to the answers, weighed by the question: a prior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from service.errors import AdapterIncompatible
from service.models.loaded_vqa_head import FLOAT, LoadedPrior, LoadedVqaHead, layer, layer_bytes
from service.models.values import copied, is_finite
from service.wording import shown

TASK_TYPE = "VQA"
MAX_HIDDEN = 8192
KNOWN = {"peft_type", "task_type", "hidden_size", "answers", "image_encoder", "sentence_encoder"}

PRIOR = ("prior.weight", "prior.bias", "gate.weight", "gate.bias")

Shape = tuple[int | None, ...]


class Tower(NamedTuple):
    """What a head must fit of a frozen encoder: any of these widths of its embeddings, and its fingerprint.

    A head that reads fewer numbers than there are reads the first ones.
    """

    sizes: Sequence[int]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Prior:
    """What the image alone says of every answer: ``weight`` (answers, image), ``bias`` (answers,).

    It counts as much as the question makes it, by ``gate_weight`` (1, question) and ``gate_bias`` (1,).
    """

    weight: Tensor
    bias: Tensor
    gate_weight: Tensor
    gate_bias: Tensor


@dataclass(frozen=True, slots=True)
class VqaHead:
    """A head: ``hidden_weight`` (hidden, image + question), ``output_weight`` (answers, hidden), their biases, and any prior.

    They have the types of their file; :meth:`to` makes of them a head that answers.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    output_weight: Tensor
    output_bias: Tensor
    prior: Prior | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> VqaHead:
        """The head of these tensors, by their names in its file."""
        hidden, hidden_bias, output, output_bias = (tensors[name] for name in _shapes(0, 0, 0))
        prior = Prior(*(tensors[name] for name in PRIOR)) if PRIOR[0] in tensors else None
        return cls(hidden, hidden_bias, output, output_bias, prior)

    @classmethod
    def parse(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], labels: tuple[str, ...], image: Tower, sentence: Tower
    ) -> VqaHead:
        """Check an adapter against the server's towers, and take its tensors.

        Raises :class:`AdapterIncompatible` listing everything that is wrong with it.
        """
        hidden = config.get("hidden_size")
        is_size = type(hidden) is int and 0 < hidden <= MAX_HIDDEN
        seen, asked = _read_size(config, "image_encoder", image), _read_size(config, "sentence_encoder", sentence)
        shapes = _shapes(seen + asked, hidden if is_size else None, len(labels))
        if any(name in tensors for name in PRIOR):
            shapes |= _prior_shapes(seen, asked, len(labels))
        faults = _config_faults(config, labels)
        faults += _tower_faults(config, "image_encoder", image) + _tower_faults(config, "sentence_encoder", sentence)
        if not is_size:
            faults.append(f"hidden_size is {shown(hidden)}; expected a whole number from 1 to {MAX_HIDDEN}")
        faults += _name_faults(tensors, shapes) + _tensor_faults(tensors, shapes)
        if faults:
            raise AdapterIncompatible(faults)
        return cls.of(tensors)

    def to(self, device: torch.device) -> LoadedVqaHead:
        """The head on ``device``, ready to answer."""
        loaded = None
        if (prior := self.prior) is not None:
            gate = copied(prior.gate_weight, device), copied(prior.gate_bias, device)
            loaded = LoadedPrior(layer(prior.weight, prior.bias, device), gate)
        hidden = layer(self.hidden_weight, self.hidden_bias, device)
        output = layer(self.output_weight, self.output_bias, device)
        return LoadedVqaHead(hidden, output, self.hidden_weight.shape[1], loaded)

    def nbytes_on(self, device: torch.device) -> int:
        """What :meth:`to` takes there."""
        layers = [(self.hidden_weight, self.hidden_bias), (self.output_weight, self.output_bias)]
        if (prior := self.prior) is None:
            return sum(layer_bytes(*one, device) for one in layers)
        gate = FLOAT * (prior.gate_weight.numel() + prior.gate_bias.numel())
        return gate + sum(layer_bytes(*one, device) for one in (*layers, (prior.weight, prior.bias)))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of it, by its name in a file."""
        prior, layers = self.prior, (self.hidden_weight, self.hidden_bias, self.output_weight, self.output_bias)
        found = dict(zip(_shapes(0, 0, 0), layers, strict=True))
        if prior is None:
            return found
        parts = (prior.weight, prior.bias, prior.gate_weight, prior.gate_bias)
        return found | dict(zip(PRIOR, parts, strict=True))


def _shapes(inputs: int, hidden: int | None, answers: int) -> dict[str, Shape]:
    """The tensors of both layers and their shapes (None: any size), in the order of the fields of :class:`VqaHead`."""
    return {
        "hidden.weight": (hidden, inputs),
        "hidden.bias": (hidden,),
        "output.weight": (answers, hidden),
        "output.bias": (answers,),
    }


def _prior_shapes(image: int, question: int, answers: int) -> dict[str, Shape]:
    """The tensors of a prior and their shapes, in the order of the fields of :class:`Prior`."""
    return dict(zip(PRIOR, ((answers, image), (answers,), (1, question), (1,)), strict=True))


def _config_faults(config: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    faults = []
    if config.get("peft_type") is not None:
        faults.append(f"peft_type is {shown(config['peft_type'])}; a {TASK_TYPE} adapter has none (null)")
    if config.get("task_type") != TASK_TYPE:
        faults.append(f"task_type is {shown(config.get('task_type'))}; expected {TASK_TYPE!r}")
    answers = config.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        faults.append("answers is not a list of strings")
    elif len(answers) != len(labels):
        faults.append(f"answers has {len(answers)} entries, but the manifest has {len(labels)} labels")
    elif tuple(answers) != tuple(labels):
        place = next(i for i, (answer, label) in enumerate(zip(answers, labels, strict=True)) if answer != label)
        faults.append(
            f"answers and the manifest's labels differ, first at {place}: {shown(answers[place])} and {shown(labels[place])}"
        )
    unknown = sorted(key for key, value in config.items() if value is not None and key not in KNOWN)
    return faults + [f"option {shown(key)} is not known; a {TASK_TYPE} adapter has {', '.join(sorted(KNOWN))}" for key in unknown]


def _tower_faults(config: Mapping[str, Any], role: str, tower: Tower) -> list[str]:
    described = config.get(role)
    if not isinstance(described, dict):
        return [f"{role} is missing; expected its name, fingerprint and size"]
    faults = []
    if described.get("size") not in tower.sizes:
        faults.append(f"{role}.size is {shown(described.get('size'))}; this server's has {' or '.join(map(str, tower.sizes))}")
    if described.get("fingerprint") != tower.fingerprint:
        theirs = f"{shown(described.get('name'))} ({shown(described.get('fingerprint'))})"
        faults.append(f"{role} is {theirs}; this server's has the fingerprint {tower.fingerprint!r}")
    return faults


def _read_size(config: Mapping[str, Any], role: str, tower: Tower) -> int:
    """How much of a tower's embeddings the head says that it reads, or, where that cannot be, the least that it may."""
    described = config.get(role)
    size = described.get("size") if isinstance(described, dict) else None
    return next((known for known in tower.sizes if known == size), tower.sizes[0])


def _name_faults(tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> list[str]:
    faults = [f"tensor {name!r} is missing" for name in shapes if name not in tensors]
    return faults + [f"tensor {name!r} belongs to nothing in a {TASK_TYPE} head" for name in sorted(set(tensors) - set(shapes))]


def _tensor_faults(tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> list[str]:
    faults = []
    for name, shape in shapes.items():
        if (tensor := tensors.get(name)) is None:
            continue
        if len(tensor.shape) != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)):
            wanted = str(shape).replace("None", "*")
            faults.append(f"tensor {name!r} has the shape {tuple(tensor.shape)}; expected {wanted}")
        if not tensor.is_floating_point():
            faults.append(
                f"tensor {name!r} has the type {str(tensor.dtype).removeprefix('torch.')}; expected a floating point type"
            )
        elif not is_finite(tensor):
            faults.append(f"tensor {name!r} has values that are not finite")
    return faults
