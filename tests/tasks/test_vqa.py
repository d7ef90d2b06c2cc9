"""Answers of a batch over any mix of heads are those of each row alone, and nothing is decoded or embedded twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from service.errors import AdapterIncompatible, InvalidInput
from service.models.image_encoder import ImageEncoder
from service.models.sentence_encoder import SentenceEncoder
from service.store.alias import Target
from service.store.bundle import Bundle
from service.store.registry import Registry
from service.tasks.residency import Residency
from service.tasks.vqa import IMAGE_TOKENS, TOP_ANSWERS, VisualQuestionAnswering, VqaAnswer, VqaItem, VqaRequest
from tests.support.bundles import vqa_bundle
from tests.support.images import image_file
from tests.support.reference import vqa_scores

if TYPE_CHECKING:
    from tests.conftest import Towers

T = TypeVar("T")
HEADS = {
    "a": (16, 12),
    "b": (16, 12),
    "c": (16, 3),
    "wide": (40, 12),
    "two": (5, 2),
    "detailed": (16, 12),
}  # hidden units, answers
IMAGES = [image_file(seed) for seed in range(3)]
QUESTIONS = ["what is on the table", "how many chairs are there", "what colour is the wall behind the very long sofa"]
ROWS = st.lists(
    st.tuples(st.sampled_from(list(HEADS)), st.sampled_from(IMAGES), st.sampled_from(QUESTIONS), st.integers(1, 14)),
    min_size=1,
    max_size=24,
)


class CountingImages:
    """An image encoder that counts the images it prepares and embeds; ``gate`` holds preparing up."""

    def __init__(self, real: ImageEncoder) -> None:
        self.name, self.size, self.fingerprint, self._real = real.name, real.size, real.fingerprint, real
        self.prepared = self.embedded = 0
        self.gate = threading.Event()
        self.gate.set()

    def preprocess(self, image: Image.Image) -> Tensor:
        self.prepared += 1
        assert self.gate.wait(10)
        return self._real.preprocess(image)

    def embed(self, batch: Tensor) -> Tensor:
        self.embedded += len(batch)
        return self._real.embed(batch)


class CountingSentences:
    """A sentence encoder that counts the rows it embeds."""

    def __init__(self, real: SentenceEncoder) -> None:
        self.name, self.size, self.max_length, self.fingerprint = real.name, real.size, real.max_length, real.fingerprint
        self.detail, self._real = real.detail, real
        self.embedded = 0

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self._real.tokenize(texts)

    def embed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return self.embed_in_detail(rows)[:, : self.size]

    def embed_in_detail(self, rows: Sequence[Sequence[int]]) -> Tensor:
        self.embedded += len(rows)
        return self._real.embed_in_detail(rows)


class Bench:
    """The task over towers that count, and the heads of :data:`HEADS` in a store."""

    def __init__(self, registry: Registry, bundles: dict[str, Bundle], towers: Towers, cache_size: int = 100) -> None:
        self.bundles, self.registry = bundles, registry
        self.images, self.sentences = CountingImages(towers[0]), CountingSentences(towers[1])
        self.task = VisualQuestionAnswering(
            self.images, self.sentences, registry, here, Residency(registry.read, device_bytes=10**9, host_bytes=0),
            max_chars=1000, max_pixels=10**6, cache_size=cache_size, device=torch.device("cpu"),
        )  # fmt: skip

    def items(self, adapter: str, image: bytes = IMAGES[0], question: str = QUESTIONS[0], top_k: int = 14) -> list[VqaItem]:
        return self.task.prepare(VqaRequest(image, [question], adapter, top_k))

    def answers(self, items: Sequence[VqaItem]) -> list[VqaAnswer]:
        found = self.task.forward(self.task.collate(items))
        assert all(isinstance(answer, VqaAnswer) for answer in found)
        return [answer for answer in found if isinstance(answer, VqaAnswer)]


def here(call: Callable[[], T], /) -> T:
    return call()


@pytest.fixture(scope="module")
def stored(towers: Towers, tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, dict[str, Bundle]]:
    folder = tmp_path_factory.mktemp("heads")
    registry, bundles = Registry.open(folder), {}
    for seed, (name, (hidden, count)) in enumerate(HEADS.items()):
        answers, detailed = [f"{name} {i}" for i in range(count)], name == "detailed"
        bundles[name] = vqa_bundle(*towers, answers, seed=seed, hidden=hidden, detailed=detailed)
        registry.set_alias(name, "live", Target.at(registry.publish(name, bundles[name])[0].version))
    return registry, bundles


@pytest.fixture
def bench(stored: tuple[Registry, dict[str, Bundle]], towers: Towers) -> Bench:
    return Bench(*stored, towers)


@pytest.fixture(scope="module")
def shared_bench(stored: tuple[Registry, dict[str, Bundle]], towers: Towers) -> Bench:
    return Bench(*stored, towers)


@settings(deadline=None)
@given(rows=ROWS)
def test_any_mix_of_heads_and_order_gives_each_row_its_own_answer(
    shared_bench: Bench, rows: list[tuple[str, bytes, str, int]]
) -> None:
    together = shared_bench.answers([item for row in rows for item in shared_bench.items(*row)])
    for row, answer in zip(rows, together, strict=True):
        (alone,) = shared_bench.answers(shared_bench.items(*row))
        assert answer.ref == alone.ref and answer.ref.name == row[0]
        assert len(answer.answers) == min(row[3], HEADS[row[0]][1]) and answer.answers[0] == (answer.answer, answer.score)
        assert dict(answer.answers) == pytest.approx(dict(alone.answers), abs=1e-5)


def test_answers_are_those_of_the_plain_layers(bench: Bench, towers: Towers) -> None:
    for name, bundle in bench.bundles.items():
        (answer,) = bench.answers(bench.items(name, IMAGES[1], QUESTIONS[1]))
        assert dict(answer.answers) == pytest.approx(vqa_scores(*towers, bundle, IMAGES[1], QUESTIONS[1]), abs=1e-5)


def test_without_top_k_there_are_five_answers_beside_rows_that_want_more(bench: Bench) -> None:
    plain = bench.task.prepare(VqaRequest(IMAGES[0], [QUESTIONS[0]], "a"))
    few, many = bench.answers([*plain, *bench.items("a", top_k=12)])
    assert len(few.answers) == TOP_ANSWERS and len(many.answers) == 12


def test_an_image_seen_before_is_not_decoded_and_a_question_seen_before_not_embedded(bench: Bench) -> None:
    first = bench.answers(bench.items("a"))
    again = bench.answers(bench.items("b"))
    assert (bench.images.prepared, bench.images.embedded, bench.sentences.embedded) == (1, 1, 1)
    assert first[0].answers != again[0].answers


def test_an_image_that_many_bring_at_once_is_decoded_and_embedded_once(bench: Bench) -> None:
    bench.images.gate.clear()
    with ThreadPoolExecutor(4) as threads:
        prepared = [threads.submit(bench.items, "a", IMAGES[0], question) for question in [*QUESTIONS, QUESTIONS[0]]]
        bench.images.gate.set()
        rows = [row.result() for row in prepared]
    assert sorted(item.tokens > IMAGE_TOKENS for (item,) in rows) == [False, False, False, True]  # and paid for once
    batches = [bench.task.collate([*rows[0], *rows[1]]), bench.task.collate([*rows[2], *rows[3]])]
    for batch in batches:
        bench.task.forward(batch)
    assert (bench.images.prepared, bench.images.embedded, bench.sentences.embedded) == (1, 1, 3)


def test_of_a_batch_with_images_that_another_has_embedded_meanwhile_only_the_rest_is_embedded(bench: Bench) -> None:
    rows = [bench.items("a", image) for image in IMAGES]
    early, late = bench.task.collate([*rows[1]]), bench.task.collate([item for row in rows for item in row])
    bench.task.forward(early)
    answers = bench.task.forward(late)
    assert bench.images.embedded == 3
    for image, answer in zip(IMAGES, answers, strict=True):
        (alone,) = bench.answers(bench.items("a", image))
        assert isinstance(answer, VqaAnswer) and dict(answer.answers) == pytest.approx(dict(alone.answers), abs=1e-5)


def test_without_a_cache_everything_is_embedded_anew_and_right(
    stored: tuple[Registry, dict[str, Bundle]], towers: Towers
) -> None:
    bench = Bench(*stored, towers, cache_size=0)
    first, again = (bench.answers(bench.items("a")) for _ in range(2))
    assert bench.images.embedded == 2
    assert dict(again[0].answers) == pytest.approx(dict(first[0].answers), abs=1e-5)


def test_a_broken_image_fails_each_that_brings_it(bench: Bench) -> None:
    for _ in range(2):
        with pytest.raises(InvalidInput, match="broken or truncated"):
            bench.items("a", IMAGES[0][:200])


def test_logits_that_are_not_finite_fail_their_own_row_alone(bench: Bench, towers: Towers) -> None:
    huge = vqa_bundle(*towers, ["x", "y"], seed=9)
    loaded = bench.task.load(bench.task.parse(huge))
    infinite = replace(loaded.head, output=lambda hidden: torch.full((len(hidden), 2), float("inf")))
    loaded = replace(loaded, head=infinite)
    (good,) = bench.items("a")
    bad = VqaItem(good.image, good.question, good.tokens, good.ref, loaded, good.top_k)
    answers = bench.task.forward(bench.task.collate([bad, good, bad]))
    assert [type(answer) for answer in answers] == [AdapterIncompatible, VqaAnswer, AdapterIncompatible]
