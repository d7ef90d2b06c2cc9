"""Images and questions over HTTP: as a form or as JSON, one question or many, the plain towers' answer."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.store.bundle import Bundle
from tests.support.images import image_file
from tests.support.reference import vqa_scores
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.conftest import Towers

IMAGE = image_file(1)
QUESTION = "what is on the table"


def ask_form(server: Server, image: bytes = IMAGE, **fields: Any) -> httpx.Response:
    return server.client.post("/v1/vqa", files={"image": ("../../etc/x.png", image)}, data=fields)


def ask_json(server: Server, image: bytes = IMAGE, **fields: Any) -> httpx.Response:
    return server.post("/v1/vqa", {"image": base64.b64encode(image).decode(), **fields})


@pytest.mark.parametrize("ask", [ask_form, ask_json])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_answer_is_that_of_the_towers_and_the_head(
    server: Server, towers: Towers, bundles: dict[str, Bundle], ask: Any, kind: str
) -> None:
    image = image_file(2, (64, 48), kind)
    expected = vqa_scores(*towers, bundles["vqa"], image, QUESTION)
    response = ask(server, image, question=QUESTION)
    answer = response.json()
    assert response.status_code == 200 and response.headers["x-adapter"] == "vqa:1"
    assert answer["answer"] == max(expected, key=expected.__getitem__)
    assert answer["score"] == answer["answers"][0]["score"]
    assert {a["answer"]: a["score"] for a in answer["answers"]} == pytest.approx(
        dict(sorted(expected.items(), key=lambda pair: -pair[1])[:5]), abs=1e-4
    )
    assert (answer["adapter"], answer["version"]) == ("vqa", 1)


@pytest.mark.parametrize("ask", [ask_form, ask_json])
def test_many_questions_about_one_image_give_a_list_in_order(server: Server, ask: Any) -> None:
    questions = ["what colour is the chair", QUESTION, "how many chairs are there"]
    results = ask(server, questions=questions).json()["results"]
    alone = [ask(server, question=question).json() for question in questions]
    for result, single in zip(results, alone, strict=True):
        assert [a["answer"] for a in result["answers"]] == [a["answer"] for a in single["answers"]]
        assert result["score"] == pytest.approx(single["score"], abs=1e-4)


@pytest.mark.parametrize("ask", [ask_form, ask_json])
def test_one_question_in_a_list_gives_a_list(server: Server, ask: Any) -> None:
    assert len(ask(server, questions=[QUESTION]).json()["results"]) == 1


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (7, 7), (99, 12)])
@pytest.mark.parametrize("ask", [ask_form, ask_json])
def test_top_k_says_how_many_answers(server: Server, ask: Any, top_k: int, count: int) -> None:
    assert len(ask(server, question=QUESTION, top_k=top_k).json()["answers"]) == count


@pytest.mark.parametrize("question", ["123", "null", "[1, 2]", '{"a": 1}', "true"])
def test_a_question_in_a_form_is_read_as_it_stands(server: Server, question: str) -> None:
    as_form, as_json = ask_form(server, question=question).json(), ask_json(server, question=question).json()
    assert as_form["score"] == pytest.approx(as_json["score"], abs=1e-5)


def test_an_image_seen_before_gives_the_same_answer(server: Server) -> None:
    image = image_file(77)
    first, again = (ask_form(server, image, question=QUESTION).json() for _ in range(2))
    assert again["answer"] == first["answer"] and again["score"] == pytest.approx(first["score"], abs=1e-5)


def test_the_adapter_is_selected_as_for_texts(server: Server) -> None:
    for selector in ("vqa", "vqa@live", "vqa:1"):
        assert ask_form(server, question=QUESTION, adapter=selector).json()["version"] == 1


def test_answer_headers_say_where_the_time_went(server: Server) -> None:
    headers = ask_form(server, image_file(5), question=QUESTION).headers
    for name in ("tokenization", "queue", "inference", "total"):
        assert float(headers[f"x-{name}-time"]) >= 0
