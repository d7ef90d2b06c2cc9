"""Adapters whose answers tell which version gave them.

A version wears the LoRA and head of one of a few templates, whose answers PEFT computes in float32, and in lower precisions
the engine one by one, and a head bias that no other version has: its probabilities are then known exactly, and they and its
labels are its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from service.models.linear import Dtype
from service.store.bundle import TEXT_CLASSIFICATION
from service.store.layout import CONFIG
from tests.support.bundles import ALL_LINEAR, QUERY_VALUE, text_bundle
from tests.support.reference import lone_scores, text_scores

Array = np.ndarray[Any, np.dtype[np.float64]]
TEXTS = (
    "good",
    "no, not this again",
    "This is not what anybody had expected of it, but it works.",
    "@user 🙂 http 12:30 …",
    "so it goes",
    "a rather long one " * 7,
    "Why would anyone buy two of them?",
    "Lovely weather for a Monday, said nobody; and yet here we all are.",
)
TEMPLATES = 16
LABELS = 4
STEP, DIGITS = 0.05, 32  # of the bias: a version's serial number in this base, a digit for each label but the last
BIAS = "classifier.bias"


@dataclass(frozen=True, slots=True)
class Version:
    """What a version answers: its labels, and the logarithms of their probabilities for every text, (texts, labels)."""

    labels: tuple[str, ...]
    log_scores: Array


@dataclass(frozen=True, slots=True)
class Template:
    """LoRA and a head of some rank and kind; ``logits`` (texts, labels), each row up to a number of its own."""

    config: bytes
    tensors: Mapping[str, Array]
    logits: Array

    @classmethod
    def make(cls, base: Path, folder: Path, seed: int, dtype: Dtype) -> Template:
        """A template for the base model in ``base``, served in ``dtype``; ``folder`` is PEFT's to read it from."""
        labels = [str(number) for number in range(LABELS)]
        kind = ALL_LINEAR if seed % 2 else QUERY_VALUE
        bundle = text_bundle(base, labels, seed=seed, r=(1, 4, 8, 16)[seed // 2 % 4], target_modules=kind, scale=0.2)
        found = text_scores(base, bundle, folder, TEXTS) if dtype == "fp32" else lone_scores(base, bundle, dtype, TEXTS)
        logits = np.log([[scores[label] for label in labels] for scores in found])
        return cls(bytes(bundle.contents[CONFIG]), load(bytes(bundle.weights)), logits)


class Maker:
    """Makes versions for one base model in one precision.

    Two serial numbers below ``DIGITS`` to the third give two answers to any text.
    """

    def __init__(self, base: Path, scratch: Path, dtype: Dtype = "fp32") -> None:
        self._templates = [Template.make(base, scratch / f"template-{seed}", seed, dtype) for seed in range(TEMPLATES)]

    def version(self, name: str, serial: int) -> tuple[Version, dict[str, bytes]]:
        """What the version answers, and the parts of its upload; ``name`` and ``serial`` are in its labels."""
        template, shift = self._templates[serial % TEMPLATES], _bias(serial)
        labels = tuple(f"{name} {serial} {number}" for number in range(LABELS))
        tensors = {
            key: value + shift.astype(value.dtype) if key.endswith(BIAS) else value for key, value in template.tensors.items()
        }
        parts = {
            "adapter_config": template.config,
            "adapter_model": save(tensors, {"format": "pt"}),
            "manifest": json.dumps({"task": TEXT_CLASSIFICATION, "labels": labels}).encode(),
        }
        return Version(labels, _log_softmax(template.logits + shift)), parts


def _bias(serial: int) -> Array:
    digits = [serial // DIGITS**place % DIGITS for place in range(LABELS - 1)]
    return np.array([*digits, 0]) * STEP


def _log_softmax(logits: Array) -> Array:
    return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
