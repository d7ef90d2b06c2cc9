"""Requests that behave badly on purpose: long ones, slow ones, and rows that a model cannot answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest
from service.tasks.text_classification import GOLDEN
from tests.support.bundles import peft_adapter
from training.bundles import weights_bytes

LONG = {"texts": ["word " * 10_000] * 60, "adapter": "sentiment"}  # seconds of tokenising


def request_bytes(path: str, body: Any, *headers: str) -> bytes:
    """A POST request as it goes over the wire."""
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: a", "content-type: application/json", f"content-length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def overflowing_bundle(base: Path, bad: str, good: Sequence[str]) -> Bundle:
    """A well-formed adapter of finite numbers whose logits overflow for the text ``bad`` but not for the ``good`` ones.

    Its dense layer tells ``bad`` from the others (+1 and -1 after tanh), and its last one turns +1 into 4.5e38.
    """
    config, tensors = peft_adapter(base, 2, seed=0, r=1, target_modules=("query",), modules_to_save=["pooler"])
    model, tokenizer = AutoModel.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        texts = [bad, *good, *GOLDEN]
        states = torch.cat([model(**tokenizer(text, return_tensors="pt")).last_hidden_state[:, 0] for text in texts])
    wanted = torch.tensor([[1.0]] + [[-1.0]] * (len(texts) - 1))
    direction = torch.linalg.lstsq(states, wanted, driver="gelsd").solution.T
    head = {
        "bert.pooler.dense.weight": 50 * direction.expand(32, 32),
        "bert.pooler.dense.bias": torch.zeros(32),
        "classifier.weight": torch.tensor([[2.5e38 / 32], [0.0]]).expand(2, 32),
        "classifier.bias": torch.tensor([2e38, 0.0]),
    }
    plain = {name: torch.zeros_like(tensor) for name, tensor in tensors.items() if "lora" in name}
    weights = {**plain, **{f"base_model.model.{name}": tensor for name, tensor in head.items()}}
    return Bundle.assemble(config, weights_bytes(weights), Manifest(task=TEXT_CLASSIFICATION, labels=("a", "b")))
