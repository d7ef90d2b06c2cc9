"""Texts over HTTP: every answer is PEFT's own, whichever adapters and rows share the batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from service.models.linear import DTYPES, computes_in
from service.store.bundle import Bundle
from tests.support.problems import assert_problem
from tests.support.reference import text_scores
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.conftest import Start

Expected = dict[str, list[dict[str, float]]]
CPU = torch.device("cpu")
TEXTS = [
    "I love how quickly this works",
    "no",
    "This is not what anybody had expected of it, but it works! 🙂 @user",
    "Ünïcödé, 日本語",
]
LONG = "word " * 300


@pytest.fixture(scope="module")
def expected(tiny_base: Path, bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """PEFT's probabilities of each adapter for each of TEXTS."""
    names = ("sentiment", "emotion", "irony", "irony-2")
    return {name: text_scores(tiny_base, bundles[name], tmp_path_factory.mktemp(name), TEXTS) for name in names}


def test_one_text_gives_pefts_probabilities_the_best_first(server: Server, expected: Expected) -> None:
    for place, text in enumerate(TEXTS):
        answer = server.post("/v1/sentiment", {"text": text}).json()
        assert answer["scores"] == pytest.approx(expected["sentiment"][place], abs=1e-5)
        assert list(answer["scores"].values()) == sorted(answer["scores"].values(), reverse=True)
        assert answer["label"] == max(expected["sentiment"][place], key=expected["sentiment"][place].__getitem__)
        assert answer["score"] == answer["scores"][answer["label"]]
        assert (answer["adapter"], answer["version"], answer["truncated"]) == ("sentiment", 1, False)


def test_many_texts_give_a_list_in_order(server: Server, expected: Expected) -> None:
    results = server.post("/v1/sentiment", {"texts": TEXTS}).json()["results"]
    assert [r["scores"] for r in results] == [pytest.approx(e, abs=1e-5) for e in expected["sentiment"]]


def test_one_text_in_a_list_gives_a_list(server: Server) -> None:
    assert len(server.post("/v1/sentiment", {"texts": TEXTS[:1]}).json()["results"]) == 1


def test_several_adapters_answer_each_text_in_turn(server: Server, expected: Expected) -> None:
    adapters = ["emotion", "sentiment", "irony:1"]
    results = server.post("/v1/classify", {"texts": TEXTS, "adapters": adapters}).json()["results"]
    assert [(r["adapter"], r["version"]) for r in results] == [("emotion", 1), ("sentiment", 1), ("irony", 1)] * len(TEXTS)
    plain = [expected[name][place] for place in range(len(TEXTS)) for name in ("emotion", "sentiment", "irony")]
    assert [r["scores"] for r in results] == [pytest.approx(e, abs=1e-5) for e in plain]


def test_one_text_through_a_list_of_adapters_gives_a_list(server: Server) -> None:
    results = server.post("/v1/classify", {"text": "a", "adapters": ["emotion"]}).json()["results"]
    assert [r["adapter"] for r in results] == ["emotion"]


@pytest.mark.parametrize(
    ("selector", "version", "reference"),
    [
        ("irony", 2, "irony-2"),
        ("irony@live", 2, "irony-2"),
        ("irony@canary", 1, "irony"),
        ("irony:1", 1, "irony"),
        ("irony:2", 2, "irony-2"),
    ],
)
def test_a_selector_names_one_version(server: Server, expected: Expected, selector: str, version: int, reference: str) -> None:
    response = server.post("/v1/classify", {"text": TEXTS[0], "adapter": selector})
    assert response.headers["x-adapter"] == f"irony:{version}"
    assert response.json()["version"] == version
    assert response.json()["scores"] == pytest.approx(expected[reference][0], abs=1e-5)


def test_sentiment_answers_through_any_text_adapter(server: Server) -> None:
    assert server.post("/v1/sentiment", {"text": "a", "adapter": "emotion"}).json()["adapter"] == "emotion"


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (3, 3), (99, 3), (10**30, 3), (None, 3)])
def test_top_k_keeps_the_best(server: Server, top_k: int | None, count: int) -> None:
    answer = server.post("/v1/sentiment", {"text": "a", "top_k": top_k}).json()
    assert len(answer["scores"]) == count
    assert next(iter(answer["scores"])) == answer["label"]


def test_a_long_text_is_cut_as_the_tokenizer_cuts_it(
    server: Server, tiny_base: Path, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    answer = server.post("/v1/classify", {"text": LONG, "adapter": "short"}).json()
    assert answer["truncated"] is True
    assert answer["scores"] == pytest.approx(text_scores(tiny_base, bundles["short"], tmp_path, [LONG])[0], abs=1e-5)


def test_a_long_text_is_refused_with_truncate_false_naming_its_tokens_and_the_limit(server: Server) -> None:
    body = {"texts": ["short", LONG], "adapter": "short", "truncate": False}
    assert_problem(server.post("/v1/classify", body), 422, "invalid_input", "302 tokens", "short:1 reads 8")
    assert server.post("/v1/classify", {"text": "short", "adapter": "short", "truncate": False}).json()["truncated"] is False


def test_truncation_is_each_adapters_own(server: Server) -> None:
    text = "one two three four five six seven eight nine ten"
    results = server.post("/v1/classify", {"text": text, "adapters": ["short", "emotion"]}).json()["results"]
    assert [r["truncated"] for r in results] == [True, False]


def test_unusual_characters_are_text(server: Server) -> None:
    for text in ("a\x00b", "\x00", "\u202e\u200b x", "🙂" * 50, "\r\n x"):
        assert server.post("/v1/sentiment", {"text": text}).status_code == 200


def test_answer_headers_say_where_the_time_went(server: Server) -> None:
    headers = server.post("/v1/sentiment", {"text": "a"}).headers
    times = {name: float(headers[f"x-{name}-time"]) for name in ("tokenization", "queue", "inference", "total")}
    assert all(value >= 0 for value in times.values())
    assert times["tokenization"] + times["queue"] + times["inference"] <= times["total"] + 0.1
    assert headers["x-adapter"] == "sentiment:1"


def test_no_single_adapter_is_named_when_several_answered(server: Server) -> None:
    response = server.post("/v1/classify", {"text": "a", "adapters": ["emotion", "short"]})
    assert "x-adapter" not in response.headers


def test_mixed_adapters_at_once_answer_exactly_as_each_alone(server: Server, expected: Expected) -> None:
    selectors = {"sentiment": "sentiment", "emotion": "emotion", "irony:1": "irony", "irony:2": "irony-2"}
    calls = [(selector, place) for place in range(len(TEXTS)) for selector in selectors] * 6

    def call(selector: str, place: int) -> dict[str, float]:
        response = server.post("/v1/classify", {"text": TEXTS[place], "adapter": selector})
        scores: dict[str, float] = response.json()["scores"]
        return scores

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda c: call(*c), calls))
    assert answers == [pytest.approx(expected[selectors[selector]][place], abs=1e-5) for selector, place in calls]


def test_the_dtype_setting_reaches_the_encoder(start: Start, bundles: dict[str, Bundle]) -> None:
    start().publish("irony", bundles["irony"])
    dtypes = [dtype for dtype in DTYPES if computes_in(dtype, CPU)]
    answers = [start(dtype=dtype).post("/v1/classify", {"text": "a", "adapter": "irony"}).json() for dtype in dtypes]
    exact, *rounded = (answer["scores"] for answer in answers)
    for scores in rounded:
        assert scores == pytest.approx(exact, abs=0.05) and scores != pytest.approx(exact, abs=1e-6)
