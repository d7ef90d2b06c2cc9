"""Predictions go past the framework: nothing tells, but the time that they take."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.routes.keys import PREDICT, WRITE, key_line
from service.store.bundle import Bundle
from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.conftest import Start

JSON = {"content-type": "application/json"}
TIMES = {"x-request-id", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time", "date"}
PATHS = ["/v1/sentiment", "/v1/classify"]

BODIES = [
    b'{"text": "a", "adapter": "irony"}',
    '{"texts": ["a", "Ünïcödé 日本語"], "adapter": "emotion", "top_k": 2, "truncate": true}'.encode(),
    b'{"text": "a", "adapter": "nope"}',
    b'{"text": "a", "adapter": "irony:3"}',
    b'{"text": "", "adapter": "irony"}',
    b'{"text": "a", "adapter": "irony", "txet": 1}',
    b'{"text": 1, "adapter": 2}',
    b'{"texts": [], "adapter": "irony", "top_k": 0, "truncate": "no"}',
    b'{"text": "a", "text": "b", "adapter": "irony"}',
    b"{}",
    b"[]",
    b"null",
]
FORMS: list[dict[str, Any]] = [
    {"files": {"image": image_file(3)}, "data": {"question": "what is on the table"}},
    {"files": {"image": image_file(3)}, "data": {"questions": ["how many chairs", "Ünïcödé 日本語"], "top_k": "2"}},
    {"files": {"image": b"no image"}, "data": {"question": "q"}},
    {"files": {"image": image_file(3)}, "data": {"question": "q", "adapter": "nope"}},
    {"files": {"image": image_file(3), "x": b"1"}, "data": {"question": "q"}},
    {"json": {"image": base64.b64encode(image_file(3)).decode(), "question": "what is on the table"}},
    {"json": {"image": "!!", "question": "q"}},
    {"content": b"a", "headers": {"content-type": "multipart/form-data; boundary=a"}},
    {"content": b"a", "headers": {"content-type": "text/plain"}},
    {"content": b"", "headers": JSON},
]
NOT_JSON = [b"", b"{", b'{"text": "\xff"}', b'{"text": "\\ud800"}', b"[" * 100_000]


def told(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """An answer without what differs from one to the next."""
    headers = {name: "" if name in TIMES else value for name, value in response.headers.items()}
    return response.status_code, headers, response.json()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("path", PATHS)
def test_the_answer_is_the_frameworks_own(server: Server, path: str, body: bytes) -> None:
    direct, framework = (server.client.post(path + end, content=body, headers=JSON) for end in ("", "/"))
    assert told(direct) == told(framework)


@pytest.mark.parametrize("sent", FORMS)
def test_a_question_about_an_image_gets_the_frameworks_own_answer(server: Server, sent: dict[str, Any]) -> None:
    direct, framework = (server.client.post("/v1/vqa" + end, **sent) for end in ("", "/"))
    assert told(direct) == told(framework)


@pytest.mark.parametrize("body", NOT_JSON)
def test_what_is_no_json_is_refused_as_the_framework_does_though_in_other_words(server: Server, body: bytes) -> None:
    for end in ("", "/"):
        assert_problem(server.client.post("/v1/sentiment" + end, content=body, headers=JSON), 400, "bad_request")


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/json; charset=utf-8", "multipart/form-data; boundary=x"])
def test_content_types_are_those_of_the_framework(server: Server, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    direct, framework = (
        server.client.post(path, content=b'{"text": "a"}', headers=headers) for path in ("/v1/sentiment", "/v1/sentiment/")
    )
    assert told(direct) == told(framework)


@pytest.mark.parametrize("end", ["", "/"])
def test_keys_are_asked_for_on_a_public_address(start: Start, tmp_path: Path, bundles: dict[str, Bundle], end: str) -> None:
    keys = tmp_path / "keys"
    keys.write_text(key_line("ann", "ann-key", frozenset({PREDICT, WRITE})))
    server, ours = start(host="0.0.0.0", api_keys_file=keys), {"authorization": "Bearer ann-key"}
    server.publish("sentiment", bundles["sentiment"], headers=ours)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic ann-key"}):
        refused = server.post("/v1/sentiment" + end, {"text": "a"}, headers=headers)
        assert_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
    assert server.post("/v1/sentiment" + end, {"text": "a"}, headers=ours).status_code == 200


def test_other_methods_are_the_frameworks(server: Server) -> None:
    for path in PATHS:
        assert_problem(server.client.get(path), 405, "method_not_allowed")
        assert server.client.options(path).status_code == 204


def test_both_ways_are_measured_as_one_address(server: Server) -> None:
    def counted() -> float:
        lines = server.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if 'requests_total{route="/v1/sentiment",status="200"}' in line)

    before = counted()
    for end in ("", "/"):
        server.post("/v1/sentiment" + end, {"text": "a"})
    assert counted() == before + 2
