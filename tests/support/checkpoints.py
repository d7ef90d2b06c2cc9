"""Fully fine-tuned classifiers of the tiny base models, and data that they label."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

WORDS = "a day in the rain is not what we had hoped for but then again who would have known".split()  # noqa: SIM905 - a sentence
RANK = 6  # of most of what training changes


def save_tuned(
    base: Path, folder: Path, labels: Sequence[str] = ("no", "yes"), *, seed: int = 0, linear: float = 0.1, rest: float = 0.0
) -> Path:
    """A classifier whose head is random and whose encoder differs from the base model's by noise.

    ``linear`` is the noise's deviation in the weights of linear layers, ``rest`` in all other parameters.
    """
    with torch.random.fork_rng():  # the library draws the head that the base model does not have
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}
        )
    tokenizer, noise = AutoTokenizer.from_pretrained(base), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_linear = ".layer." in name and "LayerNorm" not in name and name.endswith("weight")
            is_head = name.startswith("classifier.") or ".pooler." in name
            scale = 1.0 if is_head else linear if is_linear else rest
            parameter.add_(scale * (_mostly_of_low_rank if is_linear else torch.randn)(parameter.shape, generator=noise))
        # So that either label is given to some texts.
        ids = tokenizer(sentences(40), padding=True, return_tensors="pt")
        out = getattr(model.classifier, "out_proj", model.classifier)
        out.bias.sub_(model.eval()(**ids).logits.mean(0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _mostly_of_low_rank(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Noise of deviation 1 with most of its energy in a few directions, as what training changes."""
    rows, columns = shape
    b, a = torch.randn(rows, RANK, generator=generator), torch.randn(RANK, columns, generator=generator)
    noise: Tensor = b @ a / RANK**0.5 + 0.05 * torch.randn(shape, generator=generator)
    return noise


def sentences(count: int, seed: int = 0) -> list[str]:
    """Distinct texts of a few words."""
    pick = random.Random(seed)
    return [f"{i} " + " ".join(pick.choices(WORDS, k=pick.randint(2, 12))) for i in range(count)]


def plain_logits(folder: Path, texts: Sequence[str]) -> Tensor:
    """What transformers gives for each text, one at a time: (texts, labels)."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def save_labelled(folder: Path, checkpoint: Path, labels: Sequence[str] = ("no", "yes"), rows: int = 60) -> Path:
    """CSV files for training and validation, labelled as the checkpoint labels them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, seed in (("train", 1), ("val", 2)):
        texts = sentences(rows, seed)
        given = [labels[i] for i in plain_logits(checkpoint, texts).argmax(-1).tolist()]
        lines = [f"{text},{label}\n" for text, label in zip(texts, given, strict=True)]
        (folder / f"{split}.csv").write_text("text,label\n" + "".join(lines), "utf-8")
    return folder
