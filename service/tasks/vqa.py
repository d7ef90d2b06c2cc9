"""Visual question answering: decode and tokenise on a CPU thread, then frozen towers for what is new, then the heads."""

from __future__ import annotations

import binascii
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter

import torch
from torch import Tensor

from service.errors import AdapterIncompatible, InvalidInput
from service.models.image_encoder import ImageEncoder
from service.models.loaded_vqa_head import LoadedVqaHead
from service.models.sentence_encoder import SentenceEncoder
from service.models.vqa_head import Tower, VqaHead
from service.store.bundle import VISUAL_QUESTION_ANSWERING, Bundle
from service.store.registry import Registry
from service.store.selector import Ref
from service.tasks.embedding_cache import EmbeddingCache, Encodable, not_encoded
from service.tasks.fit import fitting
from service.tasks.images import decode
from service.tasks.inputs import check_texts
from service.tasks.lease import Lessor
from service.tasks.residency import OnDevice, Residency
from service.tasks.shadow import Comparisons, Shadow

IMAGE_TOKENS = 64  # what a new image costs in a batch, beside a question's tokens: about the ratio of their forwards
TOP_ANSWERS = 5


@dataclass(frozen=True, slots=True)
class VqaRequest:
    """An image file's bytes, or base64 of them; the questions about it, and the selector of the adapter that answers."""

    image: bytes | str
    questions: Sequence[str]
    adapter: str
    top_k: int | None = None
    routing_key: str | None = None

    @property
    def rows(self) -> int:
        """One row for each question."""
        return len(self.questions)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Checked:
    """A version that fits the encoders, in host memory: its answers and its head."""

    answers: tuple[str, ...]
    head: VqaHead

    @property
    def nbytes(self) -> int:
        """What its tensors take."""
        return sum(tensor.nbytes for tensor in self.head.tensors.values())


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Resident:
    """A version on the device: its answers and its head."""

    answers: tuple[str, ...]
    head: LoadedVqaHead


@dataclass(frozen=True, slots=True)
class VqaItem:
    """One question about one image. Holding ``resident`` is the lease on the version resolved at admission."""

    image: Encodable[Tensor]
    question: Encodable[Sequence[int]]
    tokens: int
    ref: Ref
    resident: Resident
    top_k: int | None
    shadow: Shadow[Resident] | None = None

    @property
    def share(self) -> str:
        """Whose part of the device the row takes: its adapter's, whatever the version."""
        return self.ref.name


@dataclass(frozen=True, slots=True)
class VqaBatch:
    """Rows that share one forward, a run for each adapter, and what is to be encoded for them.

    ``places`` has each row's place among the items as they came; ``pixels`` is (images, height, width, 3) in uint8, or
    empty when no image is new.
    """

    runs: Sequence[Sequence[VqaItem]]
    places: Sequence[int]
    images: Sequence[Encodable[Tensor]]
    pixels: Tensor
    questions: Sequence[Encodable[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class VqaAnswer:
    """A row's answer: the best one, and answers with probabilities from the best down."""

    answer: str
    score: float
    answers: list[tuple[str, float]]
    ref: Ref


def towers(images: ImageEncoder, sentences: SentenceEncoder) -> tuple[Tower, Tower]:
    """What a head must fit of these encoders."""
    sizes = sorted({sentences.size, sentences.detail})
    return Tower((images.size,), images.fingerprint), Tower(sizes, sentences.fingerprint)


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
        self._images, self._sentences, self._on_device = images, sentences, on_device
        self._max_chars, self._max_pixels, self._device = max_chars, max_pixels, device
        self.image_cache: EmbeddingCache[Tensor] = EmbeddingCache(cache_size)
        self.question_cache: EmbeddingCache[Sequence[int]] = EmbeddingCache(cache_size)
        self.residency, self.comparisons = residency, Comparisons()
        self._lessor: Lessor[Checked, Resident] = Lessor(registry, residency, self.comparisons, VISUAL_QUESTION_ANSWERING, self)

    def prepare(self, request: VqaRequest) -> list[VqaItem]:
        """Resolve the adapter, decode the image unless its embedding is known, tokenise the questions.

        Raises :class:`AdapterNotFound`, :class:`InvalidInput`, :class:`TooLarge` or :class:`UnsupportedMedia`.
        """
        lease = self._lessor.lease(request.adapter, request.routing_key)
        check_texts("question", request.questions, self._max_chars)
        image, cost = self._image(request.image)
        rows = self._sentences.tokenize(request.questions)
        costs = [len(row) + (0 if place else cost) for place, row in enumerate(rows)]
        questions = [self._question(row) for row in rows]
        return [
            VqaItem(image, question, cost, lease.ref, lease.loaded, request.top_k, lease.shadow)
            for question, cost in zip(questions, costs, strict=True)
        ]

    def collate(self, items: Sequence[VqaItem]) -> VqaBatch:
        """Sort a batch by adapter, find what is new in it, each image and question once, and stack the new images."""
        places = sorted(range(len(items)), key=lambda place: id(items[place].resident))
        runs = [list(run) for _, run in groupby([items[place] for place in places], key=lambda item: item.resident)]
        images, questions = not_encoded([item.image for item in items]), not_encoded([item.question for item in items])
        return VqaBatch(runs, places, images, self._stacked([image.content for image in images]), questions)

    @torch.inference_mode()
    def forward(self, batch: VqaBatch) -> list[VqaAnswer | Exception]:
        """Answers of a batch, in order: what is new is embedded, then each adapter's head runs on all of its rows."""
        began = time.monotonic()
        pixels, questions = batch.pixels, batch.questions
        self.image_cache.encode(batch.images, lambda new: self._images.embed(pixels if len(new) == len(pixels) else pixels[new]))
        self.question_cache.encode(questions, lambda new: self._sentences.embed_in_detail([questions[at].content for at in new]))
        rows, counts = list(chain(*batch.runs)), [len(run) for run in batch.runs]
        images = torch.stack([row.image.embedding for row in rows]).split_with_sizes(counts)
        asked = torch.stack([row.question.embedding for row in rows]).split_with_sizes(counts)
        logits = [run[0].resident.head.logits(*joined) for run, *joined in zip(batch.runs, images, asked, strict=True)]
        answers = list(chain(*map(_answers, batch.runs, logits)))
        _compare(rows, answers, began)
        return [answer for _, answer in sorted(zip(batch.places, answers, strict=True), key=itemgetter(0))]

    def parse(self, bundle: Bundle) -> Checked:
        """Check a bundle against the towers; raises :class:`AdapterIncompatible` with all faults."""
        image, sentence = towers(self._images, self._sentences)
        head = fitting(
            bundle.manifest,
            {"image_encoder": image.fingerprint, "sentence_encoder": sentence.fingerprint},
            lambda: VqaHead.parse(bundle.config, bundle.tensors, bundle.manifest.labels, image, sentence),
        )
        return Checked(bundle.manifest.labels, head)

    def device_bytes(self, checked: Checked) -> int:
        """What :meth:`load` will take on the device."""
        return checked.head.nbytes_on(self._device)

    def load(self, checked: Checked) -> Resident:
        """Copy a checked version to the device."""
        return Resident(checked.answers, checked.head.to(self._device))

    def try_out(self, resident: Resident) -> None:
        """Answer a golden question with a version; raises :class:`AdapterIncompatible` when its logits are not finite."""
        image, question = (
            torch.zeros(1, self._images.size, device=self._device),
            torch.zeros(1, self._sentences.detail, device=self._device),
        )
        logits = self._on_device(lambda: resident.head.logits(image, question))
        if not bool(torch.isfinite(logits).all()):
            raise AdapterIncompatible(["its logits for a plain image and question are not finite"])

    def _image(self, given: bytes | str) -> tuple[Encodable[Tensor], int]:
        """An image, decoded unless its embedding is known, and its cost: nothing if another request has brought it."""
        data = given if isinstance(given, bytes) else _from_base64(given)
        entry = self.image_cache.get(hashlib.sha256(data).digest())
        is_first = entry.claim(lambda: self._images.preprocess(decode(data, self._max_pixels)))
        return entry, IMAGE_TOKENS if is_first else 0

    def _question(self, ids: Sequence[int]) -> Encodable[Sequence[int]]:
        entry = self.question_cache.get(repr(ids).encode())
        entry.claim(lambda: ids)
        return entry

    def _stacked(self, images: Sequence[Tensor]) -> Tensor:
        """Inputs in one tensor, pinned if it is for a GPU, so that the copy does not stop the device thread."""
        pinned = self._device.type == "cuda"
        if len(images) == 1 and not pinned:
            return images[0][None]  # as it lies
        shape = (len(images), *(images[0].shape if images else ()))
        out = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        return torch.stack(list(images), out=out) if images else out


def _from_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # its own error for bad base64 is one, too
        raise InvalidInput("image is not base64") from None


def _answers(rows: Sequence[VqaItem], logits: Tensor) -> list[VqaAnswer | Exception]:
    """The answers of one adapter's rows, whose logits are (rows, answers)."""
    most = min(max(row.top_k or TOP_ANSWERS for row in rows), logits.shape[1])
    scores, places = logits.softmax(-1).topk(most)
    finite = logits.isfinite().all(-1)
    found = zip(rows, finite.tolist(), places.tolist(), scores.tolist(), strict=True)
    return [_answer(*one) for one in found]


def _answer(row: VqaItem, is_finite: bool, places: Sequence[int], scores: Sequence[float]) -> VqaAnswer | Exception:
    if not is_finite:
        return AdapterIncompatible([f"adapter {row.ref} gave logits that are not finite for this image and question"])
    count, names = row.top_k or TOP_ANSWERS, row.resident.answers
    answers = [(names[place], score) for place, score in zip(places[:count], scores[:count], strict=True)]
    return VqaAnswer(answers[0][0], answers[0][1], answers, row.ref)


def _compare(rows: Sequence[VqaItem], answers: Sequence[VqaAnswer | Exception], began: float) -> None:
    """Let the shadows answer, each all of its rows, and hold that against the answers."""
    beside = [(row, answer, row.shadow) for row, answer in zip(rows, answers, strict=True) if row.shadow is not None]
    beside.sort(key=lambda one: id(one[2].loaded))
    for _, group in groupby(beside, key=lambda one: id(one[2].loaded)):
        alike = list(group)
        resident = alike[0][2].loaded
        images = torch.stack([one[0].image.embedding for one in alike])
        asked = torch.stack([one[0].question.embedding for one in alike])
        scores = resident.head.logits(images, asked).softmax(-1)
        seconds = time.monotonic() - began
        for (_, answer, shadow), row in zip(alike, scores.tolist(), strict=True):
            if isinstance(answer, Exception) or not all(map(math.isfinite, row)):
                shadow.tally.failed(1)
            else:
                others = dict(zip(resident.answers, row, strict=True))
                drift = abs(answer.score - others.get(answer.answer, 0.0))
                shadow.tally.compared(answer.answer == max(others, key=others.__getitem__), drift, seconds)
