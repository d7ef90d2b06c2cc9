"""Visual question answering: decode and tokenise on a CPU thread, then frozen towers for what is new, then the heads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.errors import AdapterIncompatible
from service.models.image_encoder import ImageEncoder
from service.models.sentence_encoder import SentenceEncoder
from service.models.vqa_head import VqaHead
from service.store.bundle import VISUAL_QUESTION_ANSWERING, Bundle
from service.store.registry import Registry
from service.store.selector import Ref
from service.tasks.embedding_cache import EmbeddingCache
from service.tasks.images import decode
from service.tasks.inputs import check_texts
from service.tasks.residency import OnDevice, Residency

IMAGE_TOKENS = 256  # what a new image costs in a batch, beside a question's tokens: about the ratio of their forwards
TOP_ANSWERS = 5


@dataclass(frozen=True, slots=True)
class VqaRequest:
    """An image file's bytes, the questions about it, and the selector of the adapter that answers."""

    image: bytes
    questions: Sequence[str]
    adapter: str
    top_k: int | None = None

    @property
    def rows(self) -> int:
        """One row for each question."""
        return len(self.questions)


@dataclass(frozen=True, slots=True)
class Encodable:
    """An encoder's input, and the content hash under which its embedding is kept; ``embedding`` is set if it was."""

    key: bytes
    content: Tensor | Sequence[int] | None
    embedding: Tensor | None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Resident:
    """A version in memory, the host's or the device's: its answers and its head."""

    answers: tuple[str, ...]
    head: VqaHead

    @property
    def nbytes(self) -> int:
        """What its tensors take."""
        return self.head.nbytes


@dataclass(frozen=True, slots=True)
class VqaItem:
    """One question about one image. Holding ``resident`` is the lease on the version resolved at admission."""

    image: Encodable
    question: Encodable
    tokens: int
    ref: Ref
    resident: Resident
    top_k: int | None


@dataclass(frozen=True, slots=True)
class VqaBatch:
    """Rows that share one forward, and what must be encoded for them, by content hash.

    ``images`` is (new images, 3, height, width), or None when every image is known; ``questions`` are token ids.
    """

    items: Sequence[VqaItem]
    image_keys: Sequence[bytes]
    images: Tensor | None
    question_keys: Sequence[bytes]
    questions: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class VqaAnswer:
    """A row's answer: the best one, and answers with probabilities from the best down."""

    answer: str
    score: float
    answers: list[tuple[str, float]]
    ref: Ref


class VisualQuestionAnswering:
    """The task behind ``/v1/vqa``; ``on_device`` runs a call on the device thread."""

    def __init__(
        self,
        images: ImageEncoder,
        sentences: SentenceEncoder,
        registry: Registry,
        on_device: OnDevice,
        residency: Residency,
        *,
        max_chars: int,
        max_pixels: int,
        cache_size: int,
        device: torch.device,
    ) -> None:
        self._images, self._sentences, self._registry, self._on_device = images, sentences, registry, on_device
        self._max_chars, self._max_pixels, self._device = max_chars, max_pixels, device
        self.image_cache, self.question_cache = EmbeddingCache(cache_size), EmbeddingCache(cache_size)
        self.residency = residency

    def prepare(self, request: VqaRequest) -> list[VqaItem]:
        """Resolve the adapter, decode the image unless its embedding is known, tokenise the questions.

        Raises :class:`AdapterNotFound`, :class:`InvalidInput`, :class:`TooLarge` or :class:`UnsupportedMedia`.
        """
        ref = self._registry.resolve_for(VISUAL_QUESTION_ANSWERING, request.adapter)
        resident = self.residency.get(ref, self)
        check_texts("question", request.questions, self._max_chars)
        image = self._image(request.image)
        rows = self._sentences.tokenize(request.questions)
        questions = [self._question(row) for row in rows]
        costs = [len(row) + (IMAGE_TOKENS if image.embedding is None and not place else 0) for place, row in enumerate(rows)]
        return [VqaItem(image, q, cost, ref, resident, request.top_k) for q, cost in zip(questions, costs, strict=True)]

    def collate(self, items: Sequence[VqaItem]) -> VqaBatch:
        """Find what is new in a batch, each image and question once, and stack the new images."""
        images, questions = _new([item.image for item in items]), _new([item.question for item in items])
        stacked = torch.stack(list(images.values())) if images else None
        return VqaBatch(items, list(images), stacked, list(questions), list(questions.values()))

    def forward(self, batch: VqaBatch) -> list[VqaAnswer | Exception]:
        """Answers of a batch, in order: what is new is embedded, then each row's head runs."""
        new_images = () if batch.images is None else self._images.embed(batch.images.to(self._device))
        new_questions = self._sentences.embed(batch.questions) if batch.questions else ()
        images = _embeddings([item.image for item in batch.items], batch.image_keys, new_images, self.image_cache)
        questions = _embeddings([item.question for item in batch.items], batch.question_keys, new_questions, self.question_cache)
        answers: list[VqaAnswer | Exception] = []
        with torch.inference_mode():
            for item, image, question in zip(batch.items, images, questions, strict=True):
                logits = item.resident.head.logits(image[None], question[None])[0]
                answers.append(_answer(item, logits.cpu()))
        return answers

    def parse(self, bundle: Bundle) -> Resident:
        """Check a bundle against the towers; raises :class:`AdapterIncompatible` with all faults."""
        image, sentence = (self._images.size, self._images.fingerprint), (self._sentences.size, self._sentences.fingerprint)
        head = VqaHead.parse(bundle.config, bundle.tensors, bundle.manifest.labels, image, sentence)
        return Resident(bundle.manifest.labels, head)

    def device_bytes(self, checked: Resident) -> int:
        """What :meth:`load` will take on the device."""
        return checked.nbytes

    def load(self, checked: Resident) -> Resident:
        """Copy a checked version to the device."""
        return Resident(checked.answers, checked.head.to(self._device))

    def try_out(self, resident: Resident) -> None:
        """Answer a golden question with a version; raises :class:`AdapterIncompatible` when its logits are not finite."""
        image, question = (
            torch.zeros(1, self._images.size, device=self._device),
            torch.zeros(1, self._sentences.size, device=self._device),
        )
        logits = self._on_device(lambda: resident.head.logits(image, question))
        if not bool(torch.isfinite(logits).all()):
            raise AdapterIncompatible(["its logits for a plain image and question are not finite"])

    def _image(self, data: bytes) -> Encodable:
        key = hashlib.sha256(data).digest()
        known = self.image_cache.get(key)
        return Encodable(key, None if known is not None else self._images.preprocess(decode(data, self._max_pixels)), known)

    def _question(self, ids: Sequence[int]) -> Encodable:
        key = repr(ids).encode()
        return Encodable(key, ids, self.question_cache.get(key))


def _new(wanted: Sequence[Encodable]) -> dict[bytes, Any]:
    """The input, by its key, of every entry that has no embedding yet."""
    known = {entry.key for entry in wanted if entry.embedding is not None}
    return {entry.key: entry.content for entry in wanted if entry.key not in known}


def _embeddings(
    wanted: Sequence[Encodable], keys: Sequence[bytes], new: Tensor | tuple[()], cache: EmbeddingCache
) -> list[Tensor]:
    """An embedding for each entry; the new ones, one for each of ``keys``, are kept in the cache."""
    known = {entry.key: entry.embedding for entry in wanted if entry.embedding is not None}
    for key, embedding in zip(keys, new, strict=True):
        # A clone, so that one kept row does not keep its whole batch alive.
        known[key] = embedding.clone()
        cache.put(key, known[key])
    return [known[entry.key] for entry in wanted]


def _answer(item: VqaItem, logits: Tensor) -> VqaAnswer | Exception:
    if not bool(torch.isfinite(logits).all()):
        return AdapterIncompatible([f"adapter {item.ref} gave logits that are not finite for this image and question"])
    scores, places = logits.softmax(-1).topk(min(item.top_k or TOP_ANSWERS, len(item.resident.answers)))
    answers = [(item.resident.answers[place], score) for place, score in zip(places.tolist(), scores.tolist(), strict=True)]
    return VqaAnswer(answers[0][0], answers[0][1], answers, item.ref)
