"""What logits say, by the problem type of the manifest: torch's own numbers, and what is decided by them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.store.bundle import TEXT_CLASSIFICATION, Manifest
from service.store.problem_types import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL, ProblemType
from service.tasks.answers import Read, Reading, reading_of
from tests.support.reference import ACTIVATIONS

LOGITS = st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=8)


def reading(problem_type: ProblemType, count: int, thresholds: tuple[float, ...] | None = None) -> Reading:
    labels = tuple(f"l{i}" for i in range(count))
    return reading_of(Manifest(task=TEXT_CLASSIFICATION, problem_type=problem_type, labels=labels, thresholds=thresholds))


@given(st.sampled_from(PROBLEM_TYPES), LOGITS)
def test_scores_are_torchs(problem_type: ProblemType, logits: list[float]) -> None:
    read = reading(problem_type, len(logits)).read(logits)
    single = problem_type == SINGLE_LABEL  # in double precision, whose sums need not be in torch's order
    expected = ACTIVATIONS[problem_type](torch.tensor(logits, dtype=torch.float64 if single else torch.float32)).tolist()
    scores = {f"l{i}": score for i, score in enumerate(expected)}
    assert dict(read.scores) == (pytest.approx(scores, rel=1e-12, abs=0) if single else scores)
    if problem_type == REGRESSION:
        assert [name for name, _ in read.scores] == [f"l{i}" for i in range(len(logits))]
    else:
        assert [score for _, score in read.scores] == sorted(dict(read.scores).values(), reverse=True)
    assert (read.labels is None) == (problem_type != MULTI_LABEL)


@given(LOGITS, st.data())
def test_the_labels_that_apply_are_those_at_or_above_their_thresholds(logits: list[float], data: st.DataObject) -> None:
    scores = torch.tensor(logits).sigmoid().tolist()
    at_score = [st.just(score) if 0 < score < 1 else st.just(0.5) for score in scores]
    thresholds = tuple(data.draw(st.one_of(st.floats(0.01, 0.99), own)) for own in at_score)
    labels = reading(MULTI_LABEL, len(logits), thresholds).read(logits).labels or []
    assert set(labels) == {f"l{i}" for i, score in enumerate(scores) if score >= thresholds[i]}
    assert [scores[int(label[1:])] for label in labels] == sorted((scores[int(label[1:])] for label in labels), reverse=True)


def test_without_thresholds_a_label_applies_from_a_half() -> None:
    several = reading(MULTI_LABEL, 3)
    assert several.read([-0.01, 0.0, 3.0]).labels == ["l2", "l1"]
    assert several.read([-1.0, -2.0, -3.0]).labels == []


@pytest.mark.parametrize(
    ("problem_type", "one", "other", "agrees"),
    [
        (SINGLE_LABEL, [0.0, 1.0], [-5.0, 9.0], True),
        (SINGLE_LABEL, [0.0, 1.0], [1.1, 1.0], False),
        (MULTI_LABEL, [1.0, 2.0], [2.0, 1.0], True),
        (MULTI_LABEL, [1.0, 2.0], [-1.0, 2.0], False),
        (MULTI_LABEL, [-1.0, -2.0], [-2.0, -1.0], True),
        (REGRESSION, [10.0, 1.0], [10.9, 99.0], True),
        (REGRESSION, [10.0, 1.0], [12.0, 1.0], False),
        (REGRESSION, [-1.0, 1.0], [1.0, 1.0], False),
    ],
)
def test_rows_agree_by_what_was_decided(problem_type: ProblemType, one: list[float], other: list[float], agrees: bool) -> None:
    made = reading(problem_type, 2)
    first, second = made.read(one), made.read(other)
    assert made.agrees(first, second) is made.agrees(second, first) is agrees
    assert made.agrees(Read(first.scores[:1], first.labels), second) is agrees


def test_labels_that_apply_never_agree_with_a_single_one() -> None:
    several, single = reading(MULTI_LABEL, 2), reading(SINGLE_LABEL, 2)
    logits = [3.0, -3.0]
    assert not several.agrees(several.read(logits), single.read(logits))
    assert single.agrees(single.read(logits), several.read(logits))
