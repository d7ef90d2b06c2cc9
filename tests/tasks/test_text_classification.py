"""Rows of every kind of problem share a forward, and each is answered as it would be alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import AdapterIncompatible
from service.models.base_weights import load_base
from service.models.text_classifier import Batch, Row, TextClassifier
from service.models.text_encoder import TextEncoder
from service.models.tokenizer import TextTokenizer
from service.store.alias import Target
from service.store.problem_types import MULTI_LABEL, REGRESSION
from service.store.registry import Registry
from service.tasks.standalone import residency
from service.tasks.text_classification import Classification, TextBatch, TextClassification, TextItem, TextRequest
from tests.support.bundles import text_bundle

TEXTS = ["no", "I love how quickly this works", "This is not what anybody had expected of it, but it works! 🙂 @user"]
SELECTORS = ["single", "several", "values", "lone"]


class Told(TextClassifier):
    """Gives the logits that it was told, whatever its rows say."""

    def __init__(self, classifier: TextClassifier, logits: list[list[float]]) -> None:
        super().__init__(classifier.encoder, classifier.max_rank)
        self.told = logits

    def logits(self, batch: Batch) -> list[list[float]]:
        return self.told[: len(batch.places)]


def task_over(classifier: TextClassifier, registry: Registry, base: Path) -> TextClassification:
    kept = residency(registry)
    return TextClassification(classifier, TextTokenizer(str(base)), registry, lambda call: call(), kept, max_chars=1000)


@dataclass
class Bench:
    """The task over adapters of every kind, the classifier beneath it, and where they are registered."""

    classifier: TextClassifier
    registry: Registry
    task: TextClassification

    def item(self, text: str, selector: str) -> TextItem:
        return self.task.prepare(TextRequest([text], [selector]))[0]

    def answer(self, items: list[TextItem], bare: int = 0) -> list[Classification | Exception]:
        """The answers of one forward, in which so many rows of the bare base model come along."""
        rows = [Row(item.ids, item.resident.loaded) for item in items]
        return self.task.forward(TextBatch(items, [], self.classifier.collate([*rows, *[Row([101, 7, 102], None)] * bare])))


@pytest.fixture(scope="module")
def bench(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    registry = Registry.open(tmp_path_factory.mktemp("adapters"))
    for name, bundle in {
        "single": text_bundle(tiny_base, ["a", "b", "c"], seed=1),
        "several": text_bundle(
            tiny_base, ["d", "e", "f", "g"], seed=2, r=8, problem_type=MULTI_LABEL, thresholds=(0.3, 0.5, 0.6, 0.9)
        ),
        "values": text_bundle(tiny_base, ["x", "y"], seed=3, r=2, problem_type=REGRESSION),
        "lone": text_bundle(tiny_base, ["z"], seed=4, problem_type=REGRESSION),
    }.items():
        ref, _ = registry.publish(name, bundle)
        registry.set_alias(name, "live", Target.at(ref.version))
    classifier = TextClassifier(TextEncoder(load_base(str(tiny_base)), torch.device("cpu"), "fp32"), 64)
    yield Bench(classifier, registry, task_over(classifier, registry, tiny_base))
    registry.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(SELECTORS)), min_size=1, max_size=10), bare=st.integers(0, 3)
)
def test_any_mix_of_problem_types_and_bare_rows_is_answered_as_each_alone(
    bench: Bench, asked: list[tuple[str, str]], bare: int
) -> None:
    items = [bench.item(*one) for one in asked]
    for item, together in zip(items, bench.answer(items, bare), strict=True):
        alone = bench.answer([item])[0]
        assert isinstance(alone, Classification) and isinstance(together, Classification)
        assert together.scores == pytest.approx(alone.scores, abs=1e-5)
        assert (together.label, together.labels, together.ref) == (alone.label, alone.labels, alone.ref)


def test_a_version_reads_its_rows_by_its_problem_type(bench: Bench) -> None:
    answers = bench.answer([bench.item(TEXTS[1], selector) for selector in SELECTORS])
    single, several, values, lone = (answer for answer in answers if isinstance(answer, Classification))
    assert sum(single.scores.values()) == pytest.approx(1) and single.labels is None
    assert all(0 < score < 1 for score in several.scores.values())
    thresholds = {"d": 0.3, "e": 0.5, "f": 0.6, "g": 0.9}
    assert several.labels == [label for label, score in several.scores.items() if score >= thresholds[label]]
    assert list(values.scores) == ["x", "y"] and (values.label, values.score) == ("x", values.scores["x"])
    assert lone.scores == {"z": lone.score} and lone.labels is None


def test_top_k_cuts_scores_and_not_the_labels_that_apply(bench: Bench) -> None:
    whole = bench.answer(bench.task.prepare(TextRequest(TEXTS, ["several", "values"])))
    cut = bench.answer(bench.task.prepare(TextRequest(TEXTS, ["several", "values"], top_k=1)))
    for one, other in zip(whole, cut, strict=True):
        assert isinstance(one, Classification) and isinstance(other, Classification)
        assert list(other.scores) == list(one.scores)[:1] == [one.label] and other.labels == one.labels


@pytest.mark.parametrize("wrong", [[math.nan, 1.0], [math.inf, 1.0], [1.0, -math.inf], [math.inf, -math.inf]])
def test_a_row_with_logits_that_are_not_finite_fails_alone(bench: Bench, tiny_base: Path, wrong: list[float]) -> None:
    largest = torch.finfo(torch.float32).max
    told = Told(bench.classifier, [[largest, largest], wrong, [1.0, 2.0]])
    task = task_over(told, bench.registry, tiny_base)
    first, second, third = task.forward(task.collate(task.prepare(TextRequest(TEXTS, ["values"]))))
    assert isinstance(first, Classification) and first.score == largest
    assert isinstance(second, AdapterIncompatible) and "not finite" in str(second)
    assert isinstance(third, Classification) and third.scores == {"x": 1.0, "y": 2.0}


def test_what_is_short_and_for_loaded_adapters_is_quick(bench: Bench, tiny_base: Path) -> None:
    task = task_over(bench.classifier, bench.registry, tiny_base)
    assert not task.is_quick(TextRequest(["no"], ["single"]))
    task.prepare(TextRequest(["no"], ["single"]))
    assert task.is_quick(TextRequest(["no"], ["single"]))
    assert not task.is_quick(TextRequest(["no"], ["single", "lone"]))
    assert not task.is_quick(TextRequest(["no"] * 9, ["single"]))
    assert not task.is_quick(TextRequest(["x" * 1001], ["single"]))
