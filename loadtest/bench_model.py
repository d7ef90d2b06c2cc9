"""What adapters cost inside a forward: no HTTP, no queue, the same classifier that the server runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch

from loadtest.figures import Figure
from loadtest.timing import seconds
from service.models.base_weights import load_base
from service.models.text_classifier import Batch, LoadedTextAdapter, Row, TextClassifier
from service.models.text_encoder import TextEncoder
from service.models.tokenizer import TextTokenizer
from service.store.bundle import TEXT_CLASSIFICATION
from service.store.registry import Registry
from service.store.selector import LIVE

ADAPTERS, BATCH, PAIRS, WARM_UP = 8, 32, 12, 3
MAX_LENGTH = 128


class Unprepared(Exception):
    """Something that the measurement needs is not there; the text says what."""


class Model:
    """A base model with its tokenizer, and the live text adapters of a folder.

    Raises :class:`Unprepared` when ``sentiment`` is not among them.
    """

    def __init__(self, base_model: str, adapters: Path) -> None:
        registry = Registry.open(adapters)
        live = [a for a in registry if a.task == TEXT_CLASSIFICATION and LIVE in a.aliases]
        self.names = [adapter.name for adapter in live]
        if "sentiment" not in self.names:
            raise Unprepared("no live adapter 'sentiment'; name a folder of adapters by --adapters")
        self._bundles = [registry.store.read(registry.resolve(adapter.name)) for adapter in live]
        self.tokenizer = TextTokenizer(base_model)
        self.classifier = TextClassifier(TextEncoder(load_base(base_model), torch.device("cpu")), max_rank=64)
        self._length = min(MAX_LENGTH, self.classifier.encoder.max_length)

    def adapters(self, count: int) -> list[LoadedTextAdapter]:
        """So many loaded adapters; where fewer are live they are loaded again, into slots of their own."""
        chosen = [self._bundles[i % len(self._bundles)] for i in range(count)]
        parse, load = self.classifier.parse, self.classifier.load
        return [load(parse(b.config, b.tensors, len(b.manifest.labels))) for b in chosen]

    def batch(self, texts: Sequence[str], adapters: Sequence[LoadedTextAdapter | None]) -> Batch:
        """One row for each text; the adapters take turns."""
        tokens = self.tokenizer(texts)
        return self.classifier.collate([Row(ids[: self._length], adapters[i % len(adapters)]) for i, ids in enumerate(tokens)])

    def seconds(self, batch: Batch) -> float:
        """The time of one forward."""
        return seconds(lambda: self.classifier.forward(batch))


def adapter_tax(model: Model, texts: Iterator[str], repeats: int) -> Figure:
    """A mixed batch over 8 adapters against the bare base model on the same texts, in turns; a new batch each repeat."""
    adapters = model.adapters(ADAPTERS)
    ratios, mixed_ms, bare_ms = [], [], []
    for _ in range(repeats):
        chosen = [next(texts) for _ in range(BATCH)]
        mixed_batch, bare_batch = model.batch(chosen, adapters), model.batch(chosen, [None])
        for _ in range(WARM_UP):
            model.seconds(mixed_batch), model.seconds(bare_batch)
        pairs = [(model.seconds(mixed_batch), model.seconds(bare_batch)) for _ in range(PAIRS)]
        mixed, bare = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
        ratios.append(mixed / bare)
        mixed_ms.append(1e3 * mixed)
        bare_ms.append(1e3 * bare)
    few = len(model.names) < ADAPTERS
    return Figure(
        f"batch of {BATCH} over {ADAPTERS} adapters / bare base model", "×", 1.10, ratios,
        {"mixed ms": median(mixed_ms), "bare ms": median(bare_ms)},
        f"only {len(model.names)} adapters are live; loaded repeatedly" if few else "",
    )  # fmt: skip
