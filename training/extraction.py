"""A full checkpoint as adapters of several ranks: what each keeps, what none can carry, and which one is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from service.models.sources import locate
from service.models.text_adapter import TextAdapter
from service.models.text_classifier import TextClassifier
from service.models.text_encoder import BaseWeights, TextEncoder, load_base
from service.tasks.standalone import CPU, MAX_RANK
from training.bundles import halve
from training.checkpoint import KINDS, OPTION, Checkpoint, compare, hub_name, kind, read_checkpoint
from training.data import DataError, TextData
from training.low_rank import Change, Ranks, cut, energy_kept, for_energy, peft_config, peft_tensors, uniform
from training.metrics import HEADLINE, figures
from training.text_logits import text_logits
from training.text_model import tokenise

CHOOSES = "validation"  # the split that decides between ranks
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One adapter cut from a checkpoint, as its file stores it; ``figures`` by split, where there is data."""

    name: str
    ranks: Ranks
    energy: float
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    figures: Figures

    @property
    def largest(self) -> int:
        """The highest rank of any module."""
        return max(self.ranks.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors as stored."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Extraction:
    """A checkpoint, its base model, and the changes between them, decomposed once for all ranks."""

    def __init__(self, folder: Path, base_model: str, *, half: bool = True) -> None:
        """Raises :class:`DataError` for a folder that is no classifier fine-tuned from this base model."""
        self.base = load_base(base_model, OPTION)
        self.encoder = TextEncoder(self.base, CPU)
        self.checkpoint: Checkpoint = read_checkpoint(folder, base_model, self.base)
        self.differences = compare(folder, self.checkpoint, base_model, self.base, self.encoder.targets)
        self._base_name, self._half = hub_name(base_model), half

    @cached_property
    def changes(self) -> dict[str, Change]:
        """The singular values and vectors of every linear layer's change."""
        return {module: Change.of(change) for module, change in self.differences.linear.items()}

    def at_rank(self, rank: int, measure: Callable[[TextEncoder, TextAdapter], Figures]) -> Candidate:
        """The adapter with this rank in every layer."""
        return self._candidate(f"rank {rank}", uniform(self.changes, rank), measure)

    def at_energy(self, energy: float, measure: Callable[[TextEncoder, TextAdapter], Figures]) -> Candidate:
        """The adapter that keeps this share of the squared change by the smallest ranks, each layer's its own."""
        return self._candidate(f"energy {energy:g}", for_energy(self.changes, energy), measure)

    def full(self, measure: Callable[[TextEncoder, TextAdapter], Figures]) -> Figures:
        """The figures of the checkpoint itself, which its head on its own encoder gives."""
        return measure(TextEncoder(self.checkpoint.weights, CPU), TextAdapter({}, self.checkpoint.head))

    def without(self, kinds: Sequence[str], measure: Callable[[TextEncoder, TextAdapter], Figures]) -> Figures:
        """The figures of the checkpoint with the base model's own parameters of these kinds."""
        theirs = self.checkpoint.weights.tensors
        mixed = {name: before if self._is_of(name, kinds) else theirs[name] for name, before in self.base.tensors.items()}
        weights = BaseWeights(self.base.config, mixed, self.base.fingerprint)
        return measure(TextEncoder(weights, CPU), TextAdapter({}, self.checkpoint.head))

    def _is_of(self, name: str, kinds: Sequence[str]) -> bool:
        return name in self.differences.rest and kind(name) in kinds

    def _candidate(self, name: str, ranks: Ranks, measure: Callable[[TextEncoder, TextAdapter], Figures]) -> Candidate:
        factors, family = cut(self.changes, ranks), self.base.family
        config = peft_config(self._base_name, factors, pools=family.pools)
        tensors = peft_tensors(factors, self.checkpoint.head, family)
        stored = halve(tensors) if self._half else tensors
        adapter = TextClassifier(self.encoder, MAX_RANK).parse(config, stored, len(self.checkpoint.labels))
        return Candidate(name, ranks, energy_kept(self.changes, ranks), config, stored, measure(self.encoder, adapter))


class Measure:
    """Figures of an encoder with an adapter on each split of ``data`` but the training one."""

    def __init__(
        self, data: TextData, checkpoint: Checkpoint, base_model: str, max_length: int, done: Callable[[int], None]
    ) -> None:
        """Raises :class:`DataError` when the data's labels are not the checkpoint's."""
        _check_labels(data, checkpoint)
        tokenizer = AutoTokenizer.from_pretrained(locate(base_model, OPTION))
        self._type, self._count, self._done = checkpoint.problem_type, len(checkpoint.labels), done
        self._rows, self._true = {}, {}
        for name, split in data.splits.items():
            if name != "train":
                self._rows[name] = tokenise(tokenizer, split.texts, max_length)
                self._true[name] = [_renumbered(target, data, checkpoint) for target in split.labels]

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def __call__(self, encoder: TextEncoder, adapter: TextAdapter) -> Figures:
        """The figures of every split."""
        with torch.inference_mode():
            return {
                split: figures(self._type, self._true[split], text_logits(encoder, adapter, rows, self._done), self._count)
                for split, rows in self._rows.items()
            }


def unmeasured(_encoder: TextEncoder, _adapter: TextAdapter) -> Figures:
    """What is measured where there is no data: nothing."""
    return {}


def smallest(candidates: Sequence[Candidate], full: Figures, problem_type: str, tolerance: float) -> Candidate | None:
    """The first candidate that loses at most ``tolerance`` of the headline figure on validation; None where none does."""
    headline = HEADLINE[problem_type]
    lowest = full[CHOOSES][headline] - tolerance
    return next((each for each in candidates if each.figures[CHOOSES][headline] >= lowest), None)


def not_carried(extraction: Extraction) -> list[str]:
    """The kinds of parameters that fine-tuning changed and no adapter can carry."""
    shares = extraction.differences.shares()
    return [name for name in KINDS if shares[name]]


def _check_labels(data: TextData, checkpoint: Checkpoint) -> None:
    if data.problem_type != checkpoint.problem_type:
        raise DataError(f"the data is for {data.problem_type}, the checkpoint for {checkpoint.problem_type}")
    if not checkpoint.named and len(data.labels) != len(checkpoint.labels):
        raise DataError(f"the data has {len(data.labels)} labels, the checkpoint {len(checkpoint.labels)}, without names")
    unknown = sorted(set(data.labels) - set(checkpoint.labels)) if checkpoint.named else []
    if unknown:
        raise DataError(f"label {unknown[0]!r} of the data is not the checkpoint's; it has {', '.join(checkpoint.labels)}")


def _renumbered(target: Any, data: TextData, checkpoint: Checkpoint) -> Any:
    """A target of the data with the checkpoint's numbers of labels; values, and labels without names, stay as they are."""
    if not checkpoint.named or checkpoint.problem_type == "regression":
        return target
    if isinstance(target, tuple):
        return tuple(checkpoint.labels.index(data.labels[each]) for each in target)
    return checkpoint.labels.index(data.labels[target])
