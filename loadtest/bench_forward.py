"""What adapters cost inside a forward, and how much of the machine a forward uses: each shape, each dtype."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from random import Random
from statistics import median

import torch

from loadtest import made_up
from loadtest.bases import SHAPES
from loadtest.figures import Figure
from loadtest.peak import flops_per_second
from loadtest.plan import Bench, Curve, Part, Plan, zipf
from service.models.base_weights import load_base
from service.models.calibration import text_encoder
from service.models.linear import Dtype
from service.models.text_classifier import LoadedTextAdapter, Row, TextClassifier
from service.models.tokenizer import TextTokenizer

MAX_LENGTH, MAX_RANK = 128, 64
CPU = torch.device("cpu")
TAX, TAX_STRETCH = 0.95, 0.98
TAXED = "query and value"  # the kind of adapter that has a bar
USE, USE_STRETCH = 0.6, 0.8
USED = "RoBERTa"  # the shape whose arithmetic has a bar
Tokens = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Case:
    """A shape at a dtype: its classifier, and batches of token ids, one for each repeat."""

    shape: str
    dtype: Dtype
    classifier: TextClassifier
    batches: Sequence[Tokens]


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds to lay rows out as a batch, and of the batch's forward."""

    collate: float
    forward: float


def forward(bench: Bench) -> Part:
    """The mixed-adapter tax by shape, dtype, kind of adapter and number of adapters; the use of the machine beside it."""
    figures: list[Figure] = []
    curves: dict[str, list[float]] = {}
    for shape in bench.plan.shapes:
        folder = bench.base(shape)
        tokenizer = TextTokenizer(str(folder))
        batches = [next(token_batches(bench.texts(seed), tokenizer, bench.plan.tokens)) for seed in range(bench.repeats)]
        for dtype in bench.dtypes:
            case = Case(shape, dtype, load_classifier(folder, dtype), batches)
            for kind in made_up.KINDS:
                taxes = _taxes(bench, case, kind)
                figures += taxes
                if kind == TAXED:
                    curves[f"{shape} {dtype}"] = [figure.figure for figure in taxes]
            figures.append(_use(bench, case))
    return Part(figures, {"throughput-by-adapters": Curve(bench.plan.live, curves)})


def load_classifier(folder: Path, dtype: Dtype) -> TextClassifier:
    """A classifier on the base model in ``folder``, as the server makes it."""
    encoder = text_encoder(load_base(str(folder)), TextTokenizer(str(folder)), CPU, dtype)
    return TextClassifier(encoder, MAX_RANK)


def token_batches(texts: Iterable[str], tokenizer: TextTokenizer, tokens: int) -> Iterator[list[list[int]]]:
    """Token ids of texts as they come, in batches of up to so many tokens."""
    batch: list[list[int]] = []
    left = tokens
    for text in texts:
        ids = tokenizer([text])[0][:MAX_LENGTH]
        if batch and len(ids) > left:
            yield batch
            batch, left = [], tokens
        batch.append(ids)
        left -= len(ids)
    yield batch


def load_adapters(classifier: TextClassifier, kind: str, count: int) -> list[LoadedTextAdapter]:
    """So many adapters, each in a slot of its own."""
    parsed = classifier.parse(made_up.configuration(kind), made_up.tensors(classifier.encoder, kind), len(made_up.LABELS))
    return [classifier.load(parsed) for _ in range(count)]


def timed(classifier: TextClassifier, rows: Sequence[Row]) -> Timed:
    """One batch of these rows."""
    started = time.perf_counter()
    batch = classifier.collate(rows)
    collated = time.perf_counter()
    classifier.forward(batch)
    return Timed(collated - started, time.perf_counter() - collated)


def _taxes(bench: Bench, case: Case, kind: str) -> list[Figure]:
    """A figure for each number of adapters."""
    bar, stretch = (TAX, TAX_STRETCH) if kind == TAXED else (None, None)
    adapters = load_adapters(case.classifier, kind, max(bench.plan.live))
    figures = []
    for live in bench.plan.live:
        bench.say(f"forward: {case.shape} {case.dtype}, {live} adapters on {kind}")
        repeats = [_pairs(case.classifier, batch, adapters[:live], bench.plan) for batch in case.batches]
        ratios = [median(bare.forward / mixed.forward for mixed, bare in pairs) for pairs in repeats]
        what = f"{case.shape} {case.dtype}, r={made_up.RANK} on {kind}: forward over {live} adapters / none"
        figures.append(Figure(what, "×", bar, ratios, _milliseconds(repeats), stretch=stretch, at_least=True))
    return figures


def _pairs(
    classifier: TextClassifier, batch: Tokens, adapters: Sequence[LoadedTextAdapter], plan: Plan
) -> list[tuple[Timed, Timed]]:
    """The same rows with adapters chosen by Zipf's law, and with none, in turns; the first pair is not counted.

    Short forwards take more turns than the plan's rounds: three pairs of 15 ms say little.
    """
    chosen = islice(zipf(len(adapters), Random(len(batch))), len(batch))
    mixed = [Row(ids, adapters[place]) for ids, place in zip(batch, chosen, strict=True)]
    bare = [Row(ids, None) for ids in batch]
    pairs: list[tuple[Timed, Timed]] = []
    end = time.perf_counter() + plan.block / 8
    for number in count():
        if number > plan.rounds and time.perf_counter() >= end:
            break
        order = (mixed, bare) if number % 2 else (bare, mixed)
        first, second = (timed(classifier, rows) for rows in order)
        pairs.append((first, second) if number % 2 else (second, first))
    return pairs[1:]


def _milliseconds(repeats: Sequence[Sequence[tuple[Timed, Timed]]]) -> dict[str, float]:
    mixed, bare = ([pair[side] for pairs in repeats for pair in pairs] for side in (0, 1))
    return {
        "mixed ms": 1e3 * median(one.forward for one in mixed), "bare ms": 1e3 * median(one.forward for one in bare),
        "collate mixed ms": 1e3 * median(one.collate for one in mixed),
        "collate bare ms": 1e3 * median(one.collate for one in bare),
    }  # fmt: skip


def _use(bench: Bench, case: Case) -> Figure:
    """The arithmetic that real tokens need a second of forward, over the rate of the best product, measured in turns."""
    bench.say(f"forward: {case.shape} {case.dtype}, arithmetic over the machine's best")
    best = partial(flops_per_second, case.dtype, bench.plan.squares, bench.plan.block / 80)
    rates, peaks = [], []
    for batch in case.batches:
        before = best()
        runs = [timed(case.classifier, [Row(ids, None) for ids in batch]).forward for _ in range(1 + bench.plan.rounds)]
        peaks.append(max(before, best()))
        rates.append(SHAPES[case.shape].flops([len(ids) for ids in batch]) / median(runs[1:]))
    bar, stretch = (USE, USE_STRETCH) if case.shape == USED else (None, None)
    detail = {"forward GFLOPS": median(rates) / 1e9, "product GFLOPS": median(peaks) / 1e9}
    shares = [rate / peak for rate, peak in zip(rates, peaks, strict=True)]
    what = f"{case.shape} {case.dtype}: forward's arithmetic / best matrix product"
    return Figure(what, "×", bar, shares, detail, stretch=stretch, at_least=True)
