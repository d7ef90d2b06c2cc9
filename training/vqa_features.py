"""Embeddings of images and questions by the frozen encoders, kept in a cache by the content that was embedded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.errors import QuickchangeError
from service.models.image_encoder import ImageEncoder
from service.models.sentence_encoder import SentenceEncoder
from service.tasks.images import decode
from training.data import DataError
from training.vqa_data import VqaData

MAX_PIXELS = 100_000_000
IMAGE_BATCH, QUESTION_BATCH = 16, 128
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Features:
    """Embeddings of distinct images, (n, d), and questions, (m, e), and each split's rows of them.

    ``rows`` holds (examples, 3) whole numbers a split: image, question, answer (-1 where it is not a known one).
    """

    images: Tensor
    questions: Tensor
    rows: dict[str, Tensor]


def embed(data: VqaData, images: ImageEncoder, sentences: SentenceEncoder, cache: Path, progress: Progress) -> Features:
    """Embed every distinct image and question of ``data``, or take them from ``cache``."""
    examples = [example for split in data.splits.values() for example in split]
    paths = list(dict.fromkeys(example.image for example in examples))
    texts = list(dict.fromkeys(example.question for example in examples))
    image_row, text_row = {path: i for i, path in enumerate(paths)}, {text: i for i, text in enumerate(texts)}
    rows = {
        name: torch.tensor([(image_row[e.image], text_row[e.question], e.answer) for e in split])
        for name, split in data.splits.items()
    }
    return Features(embed_images(images, paths, cache, progress), embed_texts(sentences, texts, cache, progress), rows)


def embed_images(encoder: ImageEncoder, paths: Sequence[Path], cache: Path, progress: Progress) -> Tensor:
    """Embeddings, (n, size), of image files; raises :class:`DataError` naming a file that cannot be read."""

    def inputs() -> Iterable[tuple[str, Tensor]]:
        for path in progress.track(paths, description="images"):
            try:
                pixels = encoder.preprocess(decode(path.read_bytes(), MAX_PIXELS))
            except QuickchangeError as error:
                raise DataError(f"{path.name}: {error}") from None
            # The key is what the network sees, so that a change of cropping or scaling is a change of content.
            yield hashlib.sha256(pixels.numpy().tobytes()).hexdigest(), pixels

    return _embed(
        inputs(), lambda batch: encoder.embed(torch.stack(batch)), IMAGE_BATCH, _file(cache, encoder.name, encoder.fingerprint)
    )


def embed_texts(encoder: SentenceEncoder, texts: Sequence[str], cache: Path, progress: Progress) -> Tensor:
    """Embeddings, (n, size), of texts; equal lengths are embedded together."""
    tokens = encoder.tokenize(texts)
    order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
    inputs = (
        (hashlib.sha256(repr(tokens[i]).encode()).hexdigest(), tokens[i]) for i in progress.track(order, description="questions")
    )
    found = _embed(inputs, encoder.embed, QUESTION_BATCH, _file(cache, encoder.name, encoder.fingerprint))
    return found[torch.tensor(order).argsort()]


def _file(cache: Path, name: str, fingerprint: str) -> Path:
    return cache / f"{name.replace('/', '--')}-{fingerprint.removeprefix('sha256:')[:16]}.safetensors"


def _embed(inputs: Iterable[tuple[str, T]], encode: Callable[[list[T]], Tensor], size: int, file: Path) -> Tensor:
    """Embeddings of ``inputs`` in order; only those whose key ``file`` does not hold are computed, and added to it."""
    known, fresh, keys = _read(file), 0, []
    waiting: dict[str, T] = {}

    def flush() -> None:
        known.update(zip(waiting, encode(list(waiting.values())).cpu().clone(), strict=True))
        waiting.clear()

    for key, content in inputs:
        keys.append(key)
        if key not in known and key not in waiting:
            waiting[key] = content
            fresh += 1
        if len(waiting) == size:
            flush()
    if waiting:
        flush()
    if fresh:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: embedding.clone() for key, embedding in known.items()}, file)
    return torch.stack([known[key] for key in keys])


def _read(file: Path) -> dict[str, Tensor]:
    try:
        held: dict[str, Tensor] = load_file(file) if file.is_file() else {}
    except (SafetensorError, OSError):
        return {}  # a cache that was cut off is made anew
    return held
