"""Embeddings of images and questions by the frozen encoders, each computed once and kept by what was embedded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from service.errors import QuickchangeError
from service.models.image_encoder import ImageEncoder
from service.models.sentence_encoder import SentenceEncoder
from service.tasks.images import decode
from training.data import DataError
from training.vqa_data import VqaData
from training.vqa_store import EmbeddingStore

MAX_PIXELS = 100_000_000
IMAGE_BATCH, QUESTION_BATCH = 16, 128
SHOWN = 3
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Features:
    """Tables of embeddings of images, (n, d), and of questions, (m, e), and each split's rows of them.

    ``rows`` holds (examples, 3) whole numbers a split: image, question, answer (-1 where it is not a known one).
    """

    images: Tensor
    questions: Tensor
    rows: dict[str, Tensor]


def embed(
    data: VqaData, images: ImageEncoder, sentences: SentenceEncoder, cache: Path, progress: Progress, *, skip_bad: bool = False
) -> tuple[VqaData, Features]:
    """Embed what ``cache`` does not hold of ``data``, which comes back without the rows whose image cannot be read.

    There may be such rows only if ``skip_bad``; otherwise :class:`DataError` names their images.
    """
    examples = [example for split in data.splits.values() for example in split]
    pictures, image_row, unreadable = embed_images(images, list(dict.fromkeys(e.image for e in examples)), cache, progress)
    if unreadable and not skip_bad:
        shown = "; ".join(f"{path.name}: {reason}" for path, reason in list(unreadable.items())[:SHOWN])
        raise DataError(f"{len(unreadable)} of {len(image_row) + len(unreadable)} images cannot be read ({shown}); "
                        "--skip-bad leaves out the questions about them")  # fmt: skip
    data = data.without(set(unreadable))
    texts, text_row = embed_texts(sentences, [e.question for split in data.splits.values() for e in split], cache, progress)
    rows = {
        name: torch.tensor([(image_row[e.image], text_row[e.question], e.answer) for e in split])
        for name, split in data.splits.items()
    }
    return data, Features(pictures, texts, rows)


def embed_images(
    encoder: ImageEncoder, paths: Sequence[Path], cache: Path, progress: Progress
) -> tuple[Tensor, dict[Path, int], dict[Path, str]]:
    """A table of embeddings, (n, size), the row of each image file in it, and why the others cannot be read."""
    store = EmbeddingStore(_folder(cache, encoder, _seen_by(encoder)), encoder.size)
    unreadable: dict[Path, str] = {}
    keys: dict[Path, str] = {}

    def inputs() -> Iterable[tuple[str, Tensor]]:
        for path in progress.track(paths, description="images"):
            try:
                data = path.read_bytes()
                key = hashlib.sha256(data).hexdigest()
                if key not in store.rows:
                    yield key, encoder.preprocess(decode(data, MAX_PIXELS))
                keys[path] = key
            except OSError as error:
                unreadable[path] = error.strerror or "cannot be opened"
            except QuickchangeError as error:
                unreadable[path] = str(error)

    _fill(store, inputs(), lambda batch: encoder.embed(torch.stack(batch)), IMAGE_BATCH)
    return store.table(), {path: store.rows[key] for path, key in keys.items()}, unreadable


def embed_texts(encoder: SentenceEncoder, texts: Sequence[str], cache: Path, progress: Progress) -> tuple[Tensor, dict[str, int]]:
    """A table of embeddings, (n, detail), and the row of each text in it; equal lengths are embedded together."""
    distinct = list(dict.fromkeys(texts))
    tokens = encoder.tokenize(distinct)
    keys = [hashlib.sha256(repr(row).encode()).hexdigest() for row in tokens]
    store = EmbeddingStore(_folder(cache, encoder, f"{encoder.detail} of "), encoder.detail)
    order = sorted((i for i in range(len(distinct)) if keys[i] not in store.rows), key=lambda i: len(tokens[i]))
    inputs = ((keys[i], tokens[i]) for i in progress.track(order, description="questions"))
    _fill(store, inputs, encoder.embed_in_detail, QUESTION_BATCH)
    return store.table(), {text: store.rows[key] for text, key in zip(distinct, keys, strict=True)}


def _folder(cache: Path, encoder: ImageEncoder | SentenceEncoder, seen: str) -> Path:
    """Where an encoder's embeddings are: its name, and the hash of its weights and of what it makes of an image or tells."""
    digest = hashlib.sha256(f"{encoder.fingerprint}{seen}{encoder.size}".encode()).hexdigest()
    return cache / f"{Path(encoder.name).name.replace(':', '-')}-{digest[:16]}"


def _seen_by(encoder: ImageEncoder) -> str:
    """A hash of what the network sees of a fixed image, so that another decoding, scaling or cropping is another store."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((1200, 900)).save(file, "JPEG")
    return hashlib.sha256(encoder.preprocess(decode(file.getvalue(), MAX_PIXELS)).numpy().tobytes()).hexdigest()


def _fill(store: EmbeddingStore, inputs: Iterable[tuple[str, T]], encode: Callable[[list[T]], Tensor], size: int) -> None:
    """Encode what the store does not hold, in batches; a batch is kept as soon as it is done."""
    waiting: dict[str, T] = {}

    def flush() -> None:
        if waiting:
            store.add(list(waiting), encode(list(waiting.values())))
            waiting.clear()

    for key, content in inputs:
        waiting[key] = content
        if len(waiting) == size:
            flush()
    flush()
