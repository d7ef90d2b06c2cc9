"""Logits of an encoder and an adapter over many texts, by the engine that serves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from service.models.text_adapter import TextAdapter
from service.models.text_classifier import Row, TextClassifier
from service.models.text_encoder import TextEncoder
from service.tasks.standalone import MAX_RANK
from training.text_model import batches

BATCH = 64


def text_logits(
    encoder: TextEncoder, adapter: TextAdapter, rows: Sequence[Sequence[int]], done: Callable[[int], None] = lambda _: None
) -> Tensor:
    """Float32 logits, (rows, labels), of rows of token ids; ``done`` gets the number of rows after each batch."""
    classifier = TextClassifier(encoder, MAX_RANK)
    loaded, logits = classifier.load(adapter), torch.empty(len(rows), len(adapter.head.out[1]))
    for chunk in batches(rows, BATCH):
        found = classifier.forward(classifier.collate([Row(rows[i], loaded) for i in chunk]))
        logits[chunk] = torch.stack(found)
        done(len(chunk))
    return logits
