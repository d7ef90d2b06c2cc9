"""Figures of text adapters, and of encoders with other weights, on labelled data, by the engine that serves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from service.models.sources import locate
from service.models.text_adapter import TextAdapter
from service.models.text_classifier import Row, TextClassifier
from service.models.text_encoder import TextEncoder
from service.tasks.standalone import MAX_RANK
from training.data import DataError, TextData
from training.data_types import REGRESSION
from training.metrics import figures
from training.text_model import batches, tokenise

BATCH = 64
CHOOSES = "validation"  # the split that decides between adapters
Figures = dict[str, dict[str, float]]


def unmeasured(_encoder: TextEncoder, _adapter: TextAdapter) -> Figures:
    """What is measured where there is no data: nothing."""
    return {}


class Measure:
    """The figures that an encoder with an adapter reaches on each split of the data but the training one."""

    def __init__(
        self,
        data: TextData,
        labels: Sequence[str],
        problem_type: str,
        base_model: str,
        max_length: int,
        thresholds: tuple[float, ...] | None = None,
    ) -> None:
        """``labels`` are the adapter's; raises :class:`DataError` when the data is for another problem or has others."""
        check_labels(data, labels, problem_type)
        tokenizer = AutoTokenizer.from_pretrained(locate(base_model, "--base-model"))
        self._type, self._count, self._thresholds = problem_type, len(labels), thresholds
        splits = {name: split for name, split in data.splits.items() if name != "train"}
        self._rows = {name: tokenise(tokenizer, split.texts, max_length) for name, split in splits.items()}
        self._true = {name: [_renumbered(each, data, labels) for each in split.labels] for name, split in splits.items()}
        self.done: Callable[[int], None] = lambda _: None

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def __call__(self, encoder: TextEncoder, adapter: TextAdapter) -> Figures:
        """The figures of every split; :attr:`done` gets the number of rows after each batch."""
        return {
            split: figures(
                self._type, self._true[split], text_logits(encoder, adapter, rows, self.done), self._count, self._thresholds
            )
            for split, rows in self._rows.items()
        }


def text_logits(
    encoder: TextEncoder, adapter: TextAdapter, rows: Sequence[Sequence[int]], done: Callable[[int], None] = lambda _: None
) -> Tensor:
    """Float32 logits, (rows, labels), of rows of token ids; ``done`` gets the number of rows after each batch."""
    classifier = TextClassifier(encoder, MAX_RANK)
    loaded, logits = classifier.load(adapter), torch.empty(len(rows), len(adapter.head.out[1]))
    for chunk in batches(rows, BATCH):
        logits[chunk] = torch.stack(classifier.forward(classifier.collate([Row(rows[i], loaded) for i in chunk])))
        done(len(chunk))
    return logits


def check_labels(data: TextData, labels: Sequence[str], problem_type: str) -> None:
    """Raise :class:`DataError` when the data is for another problem, or has labels that are not among these."""
    if data.problem_type != problem_type:
        raise DataError(f"the data is for {data.problem_type}, the model for {problem_type}")
    unknown = sorted(set(data.labels) - set(labels))
    if unknown:
        raise DataError(f"label {unknown[0]!r} of the data is not the model's; it has {', '.join(labels)}")


def _renumbered(target: Any, data: TextData, labels: Sequence[str]) -> Any:
    """A target of the data with the numbers that ``labels`` gives its labels."""
    if data.problem_type == REGRESSION:
        return target
    if isinstance(target, tuple):
        return tuple(labels.index(data.labels[each]) for each in target)
    return labels.index(data.labels[target])
