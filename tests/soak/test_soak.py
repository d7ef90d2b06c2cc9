"""The soak in small, and that its checks find what they are for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.models.linear import fastest
from tests.soak.ledger import TOLERANCE, Line, Question
from tests.soak.recognisable import Maker
from tests.soak.soak import Footprint, Soaked, soak
from tests.soak.traffic import Count

NAME, CPU = "mood", torch.device("cpu")


@pytest.fixture
def line(maker: Maker) -> Line:
    """Three versions, of which the second is live, and the first is deleted."""
    versions = {number: maker.version(NAME, number)[0] for number in (1, 2, 3)}
    return Line(NAME, versions, 3, [1, 2], 1, {1}, {1})


def test_a_short_soak_finds_no_wrong_answer_and_leaves_no_descriptor_or_thread(tiny_base: Path, tmp_path: Path) -> None:
    """In float32 `tests/chaos` does as much. Memory is for the long form to judge: a young one grows into what it keeps."""
    found = soak(tiny_base, tmp_path, 1_000, 50, lambda _: None, fastest(CPU))
    assert found.count.faults == []
    assert found.count.answers >= 1_000 and found.count.rounds >= 50 and found.evictions > 50
    assert found.after.descriptors == found.before.descriptors
    assert found.after.threads == found.before.threads


def test_every_two_versions_answer_every_text_apart_and_one_version_every_two_texts(maker: Maker) -> None:
    scores = np.array([maker.version(NAME, serial)[0].log_scores for serial in [*range(40), 1000, 1024, 10_000, 32_000]])
    for answers in (*scores.swapaxes(0, 1), *scores):  # by text, then by version
        distances = np.abs(answers[:, None] - answers[None]).max(-1)
        assert distances[~np.eye(len(distances), dtype=bool)].min() > 5 * TOLERANCE


def answer(line: Line, version: int, text: int = 0, **changes: object) -> dict[str, object]:
    """What the server must answer if it is the version's turn."""
    made = line.versions[version]
    ranked = sorted(zip(made.labels, np.exp(made.log_scores[text]).tolist(), strict=True), key=lambda pair: -pair[1])
    right = {"label": ranked[0][0], "score": ranked[0][1], "scores": dict(ranked), "adapter": NAME, "version": version}
    return {**right, **changes}


def test_right_answers_pass(line: Line) -> None:
    live, by_number = Question.about([0], [(line, None)]), Question.about([0], [(line, 3)])
    assert live.fault(200, answer(line, 2)) == by_number.fault(200, answer(line, 3)) == ""
    line.live.append(3)
    line.deleting.add(2)
    assert live.fault(200, answer(line, 2)) == live.fault(200, answer(line, 3)) == ""
    assert Question.about([0], [(line, 2)]).fault(410, {}) == live.fault(429, {}) == ""
    both = Question.about([1, 4], [(line, 3), (line, 2)])
    assert both.fault(200, {"results": [answer(line, number, text) for text in (1, 4) for number in (3, 2)]}) == ""


def test_wrong_answers_are_named(line: Line) -> None:
    live, other = Question.about([0], [(line, None)]), answer(line, 3)
    line.live.append(3)
    for wrong, says in (
        (answer(line, 1), "answered by mood:1, where versions {2, 3} were right"),
        (answer(line, 2, adapter="else"), "answered by else:2"),
        (answer(line, 2, scores=other["scores"]), "labels"),
        (answer(line, 2, text=1), "scores"),
        (answer(line, 2, label="mood 2 9"), "the best of"),
        ({"results": []}, "0 results, expected 1"),
    ):
        assert says in live.fault(200, wrong)
    for status in (404, 410, 422, 500, 503):
        assert live.fault(status, {"code": "gone"}).endswith(f"{status} {{'code': 'gone'}}")
    assert "had been deleted before" in Question.about([0], [(line, 1)]).fault(200, answer(line, 1))
    line.settle()
    assert "where versions {3} were right" in Question.about([0], [(line, None)]).fault(200, answer(line, 2))


def test_a_footprint_that_grew_is_named() -> None:
    before = Footprint(1_000_000, ("models.db", "socket"), 13)
    same = Soaked(Count(), before, replace(before, resident=1_015_000), 0, 0)
    assert same.faults == []
    grown = replace(same, after=Footprint(1_030_000, ("socket", "socket"), 14))
    assert [fault.partition(" ")[0] for fault in grown.faults] == ["resident", "1", "1", "14"]
