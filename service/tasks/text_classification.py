"""Text classification: token ids on a CPU thread, then one forward for rows of any mix of adapters."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from service.errors import AdapterIncompatible, InvalidInput
from service.models.text_adapter import TextAdapter
from service.models.text_classifier import Batch, LoadedTextAdapter, Row, TextClassifier
from service.models.tokenizer import TextTokenizer
from service.store.bundle import TEXT_CLASSIFICATION, Bundle
from service.store.registry import Registry
from service.store.selector import Ref
from service.tasks.answers import Read, Reading, reading_of
from service.tasks.fit import fitting
from service.tasks.inputs import check_texts, place
from service.tasks.lease import Lease, Lessor
from service.tasks.residency import OnDevice, Residency
from service.tasks.shadow import Comparisons, Shadow

TENSOR_BYTES = 1024  # of Python's objects around a small tensor
QUICK_ROWS, QUICK_CHARS = 8, 1000  # at most, of a request that is prepared in some tenths of a millisecond
GOLDEN = ("good", "This is not what anybody had expected of it, but it works.", "@user 🙂 http 12:30 …")


@dataclass(frozen=True, slots=True)
class TextRequest:
    """Texts, the selectors of the adapters that each of them is for, and whether too long texts may be cut."""

    texts: Sequence[str]
    adapters: Sequence[str]
    truncate: bool = True
    top_k: int | None = None
    routing_key: str | None = None

    @property
    def rows(self) -> int:
        """One row for each text and adapter."""
        return len(self.texts) * len(self.adapters)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Checked:
    """A version that fits the base model, in host memory: how its logits are read, the tokens it reads, and its tensors."""

    reading: Reading
    max_length: int
    adapter: TextAdapter

    @property
    def nbytes(self) -> int:
        """What its tensors take, with what Python keeps for each of them."""
        return sum(tensor.nbytes + TENSOR_BYTES for tensor in self.adapter.tensors)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Resident:
    """A version on the device: how its logits are read, the tokens it reads, and its tensors."""

    reading: Reading
    max_length: int
    loaded: LoadedTextAdapter


@dataclass(frozen=True, slots=True)
class TextItem:
    """One row: token ids cut for its adapter. Holding ``resident`` is the lease on the version resolved at admission."""

    ids: Sequence[int]
    truncated: bool
    ref: Ref
    resident: Resident
    top_k: int | None
    shadow: Shadow[Resident] | None = None

    @property
    def tokens(self) -> int:
        """The row's cost in a batch, with that of its shadow."""
        return len(self.ids) * (1 if self.shadow is None else 2)

    @property
    def share(self) -> str:
        """Whose part of the device the row takes: its adapter's, whatever the version."""
        return self.ref.name


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Rows that share one forward, laid out for it: those of the items, then the shadows of those that have one."""

    items: Sequence[TextItem]
    shadowed: Sequence[TextItem]
    batch: Batch


@dataclass(frozen=True, slots=True)
class Classification:
    """A row's answer: the best label, and labels with probabilities from the best down.

    ``labels`` are those that apply, where each is decided for itself. Of a regression, ``scores`` are values in the order
    of their names, of which ``label`` and ``score`` are the first.
    """

    label: str
    score: float
    scores: dict[str, float]
    ref: Ref
    truncated: bool
    labels: list[str] | None = None


class TextClassification:
    """The task behind ``/v1/sentiment`` and ``/v1/classify``.

    ``on_device`` runs a call on the device thread.
    """

    def __init__(
        self,
        classifier: TextClassifier,
        tokenizer: TextTokenizer,
        registry: Registry,
        on_device: OnDevice,
        residency: Residency,
        *,
        max_chars: int,
    ) -> None:
        self._classifier, self._tokenizer = classifier, tokenizer
        self._on_device, self._max_chars = on_device, max_chars
        self.residency, self.comparisons = residency, Comparisons()
        self._lessor: Lessor[Checked, Resident] = Lessor(registry, residency, self.comparisons, TEXT_CLASSIFICATION, self)

    def prepare(self, request: TextRequest) -> list[TextItem]:
        """Resolve the adapters and tokenise the texts once for all of them; adapters vary fastest.

        Raises :class:`AdapterNotFound`, :class:`InvalidInput` or :class:`TooLarge`, naming the text by its place.
        """
        worn = [self._lessor.lease(selector, request.routing_key) for selector in request.adapters]
        check_texts("text", request.texts, self._max_chars)
        tokenised = self._tokenizer(request.texts)
        return [self._item(ids, lease, request, number) for number, ids in enumerate(tokenised) for lease in worn]

    def is_quick(self, request: TextRequest) -> bool:
        """Whether it is short, for adapters that are loaded."""
        short = request.rows <= QUICK_ROWS and sum(map(len, request.texts)) <= QUICK_CHARS
        return short and all(self._lessor.is_at_hand(selector) for selector in request.adapters)

    def collate(self, items: Sequence[TextItem]) -> TextBatch:
        """Lay the rows of a batch out for one forward."""
        shadowed = [item for item in items if item.shadow is not None]
        beside = [
            Row(self._cut(item.ids, shadow.loaded.max_length), shadow.loaded.loaded)
            for item in shadowed
            if (shadow := item.shadow)
        ]
        rows = [Row(item.ids, item.resident.loaded) for item in items]
        return TextBatch(items, shadowed, self._classifier.collate(rows + beside))

    def forward(self, batch: TextBatch) -> list[Classification | Exception]:
        """Answers of a batch, in order; a row whose logits are not finite fails alone."""
        began = time.monotonic()
        logits = self._classifier.logits(batch.batch)
        answers = [_answer(item, row) for item, row in zip(batch.items, logits, strict=False)]
        if batch.shadowed:
            _compare(batch, answers, logits[len(batch.items) :], time.monotonic() - began)
        return answers

    def parse(self, bundle: Bundle) -> Checked:
        """Check a bundle against the base model; raises :class:`AdapterIncompatible` with all faults."""
        manifest, encoder = bundle.manifest, self._classifier.encoder
        adapter = fitting(
            manifest,
            {"base_model": encoder.fingerprint},
            lambda: self._classifier.parse(bundle.config, bundle.tensors, len(manifest.labels)),
        )
        return Checked(reading_of(manifest), min(manifest.max_length or encoder.max_length, encoder.max_length), adapter)

    def device_bytes(self, checked: Checked) -> int:
        """What :meth:`load` will take on the device."""
        return self._classifier.nbytes(checked.adapter)

    def load(self, checked: Checked) -> Resident:
        """Copy a checked version to the device."""
        return Resident(checked.reading, checked.max_length, self._classifier.load(checked.adapter))

    def try_out(self, resident: Resident) -> None:
        """Answer golden texts with a version; raises :class:`AdapterIncompatible` when its logits are not finite."""
        batch = self._classifier.collate(
            [Row(self._cut(ids, resident.max_length), resident.loaded) for ids in self._tokenizer(GOLDEN)]
        )
        outputs = self._on_device(lambda: self._classifier.forward(batch))
        if not all(bool(torch.isfinite(row).all()) for row in outputs):
            raise AdapterIncompatible(["its logits for a plain English sentence are not finite"])

    def warm_up(self) -> None:
        """Run the bare base model once: libraries set up their kernels at the first forward."""
        self._classifier.forward(self._classifier.collate([Row(ids, None) for ids in self._tokenizer(GOLDEN)]))

    def _item(self, ids: Sequence[int], lease: Lease[Resident], request: TextRequest, number: int) -> TextItem:
        ref, resident = lease.ref, lease.loaded
        truncated = len(ids) > resident.max_length
        if truncated and not request.truncate:
            where = place("text", number, len(request.texts))
            raise InvalidInput(
                f"{where} has {len(ids)} tokens; {ref} reads {resident.max_length}: shorten it, or leave truncate on"
            )
        return TextItem(self._cut(ids, resident.max_length), truncated, ref, resident, request.top_k, lease.shadow)

    @staticmethod
    def _cut(ids: Sequence[int], length: int) -> Sequence[int]:
        """At most ``length`` tokens, the closing one kept, as the tokenizer itself truncates."""
        return ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]


def _answer(item: TextItem, logits: Sequence[float]) -> Classification | Exception:
    if not _is_finite(logits):
        return AdapterIncompatible([f"adapter {item.ref} gave logits that are not finite for this text"])
    scores, labels = item.resident.reading.read(logits)
    label, score = scores[0]
    return Classification(label, score, dict(scores[: item.top_k]), item.ref, item.truncated, labels)


def _is_finite(logits: Sequence[float]) -> bool:
    """Whether all of them are finite; Python's floats hold the sum of any float32 numbers."""
    return math.isfinite(sum(logits))


def _compare(
    batch: TextBatch, answers: Sequence[Classification | Exception], logits: Sequence[Sequence[float]], seconds: float
) -> None:
    """Hold the shadows' logits against the answers of their rows."""
    beside = iter(logits)
    for item, answer in zip(batch.items, answers, strict=True):
        if item.shadow is None:
            continue
        row, tally = next(beside), item.shadow.tally
        if isinstance(answer, Exception) or not _is_finite(row):
            tally.failed(1)
        else:
            said, other = Read([(answer.label, answer.score)], answer.labels), item.shadow.loaded.reading.read(row)
            drift = abs(answer.score - dict(other.scores).get(answer.label, 0.0))
            tally.compared(item.resident.reading.agrees(said, other), drift, seconds)
