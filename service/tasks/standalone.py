"""The server's own tasks over a local folder of adapters, for whatever checks or scores bundles without a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from service.models.base_weights import load_base
from service.models.calibration import text_encoder
from service.models.image_encoder import load_image_encoder
from service.models.linear import Dtype
from service.models.sentence_encoder import load_sentence_encoder
from service.models.text_classifier import TextClassifier
from service.models.tokenizer import TextTokenizer
from service.store.registry import Registry
from service.tasks.residency import Residency
from service.tasks.text_classification import TextClassification
from service.tasks.vqa import VisualQuestionAnswering

T = TypeVar("T")
CPU = torch.device("cpu")
MAX_RANK, MAX_CHARS, MAX_PIXELS, CACHE = 1024, 1_000_000, 100_000_000, 10_000
MEMORY = 10**9  # bytes of loaded adapters


def text_task(base_model: str, registry: Registry, dtype: Dtype = "fp32", max_rank: int = MAX_RANK) -> TextClassification:
    """Text classification on this thread, over the adapters of ``registry``, up to this LoRA rank."""
    tokenizer = TextTokenizer(base_model)
    classifier = TextClassifier(text_encoder(load_base(base_model), tokenizer, CPU, dtype), max_rank, MEMORY)
    return TextClassification(classifier, tokenizer, registry, _here, residency(registry), max_chars=MAX_CHARS)


def vqa_task(image_encoder: str, sentence_encoder: str, registry: Registry) -> VisualQuestionAnswering:
    """Visual question answering on this thread, over the adapters of ``registry``."""
    return VisualQuestionAnswering(
        load_image_encoder(image_encoder, CPU),
        load_sentence_encoder(sentence_encoder, CPU),
        registry,
        _here,
        residency(registry),
        max_chars=MAX_CHARS,
        max_pixels=MAX_PIXELS,
        cache_size=CACHE,
        device=CPU,
    )


def residency(registry: Registry) -> Residency:
    """Adapters in memory, without copies to load again."""
    return Residency(registry.read, device_bytes=MEMORY, host_bytes=0)


def _here(call: Callable[[], T], /) -> T:
    return call()
