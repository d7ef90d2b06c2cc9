"""The error table of the HTTP contract, for every address: the status, the code, our own words, and never a 500."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.server import Server

JSON = {"content-type": "application/json"}
IMAGE = base64.b64encode(image_file()).decode()
ALIAS = "/v1/adapters/irony/aliases/live"
JSON_CALLS = [("POST", "/v1/sentiment"), ("POST", "/v1/classify"), ("POST", "/v1/vqa"), ("PUT", ALIAS)]
UPLOAD = "/v1/adapters/fresh/versions"

NOT_JSON = {
    "nothing": b"",
    "half": b'{"text": "a"',
    "two": b'{"text": "a"}{"text": "b"}',
    "NaN": b'{"text": NaN}',
    "nested without end": b"[" * 100_000,
    "not UTF-8": b'{"text": "\xff"}',
    "UTF-16": '{"text": "a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"text": "a"}',
    "a lone surrogate": b'{"text": "\\ud800"}',
    "a lone surrogate as a field": b'{"\\udfff": 1}',
    "a list": b"[]",
    "a string": b'"a"',
    "null": b"null",
    "null bytes": b"\x00\x00\x00\x00",
    "a form": b"text=a",
}


@pytest.mark.parametrize("kind", NOT_JSON)
@pytest.mark.parametrize(("method", "path"), JSON_CALLS)
def test_a_body_that_is_no_json_object_is_400(server: Server, method: str, path: str, kind: str) -> None:
    assert_problem(server.client.request(method, path, content=NOT_JSON[kind], headers=JSON), 400, "bad_request")


TEXT_FIELDS = [
    ({}, "text"),
    ({"text": 1}, "text must be a string"),
    ({"text": None}, "text"),
    ({"text": ["a"]}, "text must be a string"),
    ({"text": "a", "texts": ["b"]}, "either text or texts"),
    ({"texts": []}, "texts must not be empty"),
    ({"texts": "a"}, "texts must be a list"),
    ({"texts": ["a", None]}, "texts[1] must be a string"),
    ({"text": "a", "txet": "b"}, "txet is not a known field"),
    ({"text": "a", "a\nb": "b"}, "is not a known field"),
    ({"text": "a", "top_k": 0}, "top_k must be at least 1"),
    ({"text": "a", "top_k": "3"}, "top_k must be a whole number"),
    ({"text": "a", "top_k": 1.5}, "top_k must be a whole number"),
    ({"text": "a", "top_k": True}, "top_k must be a whole number"),
    ({"text": "a", "truncate": "no"}, "truncate must be true or false"),
    ({"text": "a", "truncate": 0}, "truncate must be true or false"),
    ({"text": "a", "adapter": 7}, "adapter must be a string"),
    ({"text": "a", "adapter": ["emotion"]}, "adapter must be a string"),
]


@pytest.mark.parametrize(("body", "said"), TEXT_FIELDS)
def test_a_wrong_field_of_a_text_is_400_and_named(server: Server, body: dict[str, Any], said: str) -> None:
    assert_problem(server.post("/v1/sentiment", body), 400, "bad_request", said)
    assert_problem(server.post("/v1/classify", {"adapter": "emotion", **body}), 400, "bad_request", said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": "a"}, "either adapter or adapters"),
        ({"text": "a", "adapter": "emotion", "adapters": ["irony"]}, "either adapter or adapters"),
        ({"text": "a", "adapters": []}, "adapters must not be empty"),
        ({"text": "a", "adapters": "emotion"}, "adapters must be a list"),
        ({"text": "a", "adapters": [1]}, "adapters[0] must be a string"),
    ],
)
def test_classify_needs_one_or_several_adapters(server: Server, body: dict[str, Any], said: str) -> None:
    assert_problem(server.post("/v1/classify", body), 400, "bad_request", said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"question": "q"}, "image is required"),
        ({"image": IMAGE}, "either question or questions"),
        ({"image": IMAGE, "question": "q", "questions": ["r"]}, "either question or questions"),
        ({"image": IMAGE, "questions": []}, "questions must not be empty"),
        ({"image": 1, "question": "q"}, "image must be a string"),
        ({"image": IMAGE, "question": 1}, "question must be a string"),
        ({"image": IMAGE, "question": "q", "top_k": "1"}, "top_k must be a whole number"),
        ({"image": IMAGE, "question": "q", "text": "a"}, "text is not a known field"),
    ],
)
def test_a_wrong_field_of_a_question_is_400_and_named(server: Server, body: dict[str, Any], said: str) -> None:
    assert_problem(server.post("/v1/vqa", body), 400, "bad_request", said)


@pytest.mark.parametrize(
    ("files", "data", "said"),
    [
        ([("x", b"1")], {"question": "q"}, "image is required, as one file"),
        ([("image", b"1"), ("image", b"2")], {"question": "q"}, "image is required, as one file"),
        ([("x", b"1")], {"image": "text", "question": "q"}, "image is required, as one file"),
        ([("image", b"1")], {}, "either question or questions"),
        ([("image", b"1")], {"question": ["q", "r"]}, "question is given more than once"),
        ([("image", b"1"), ("question", b"q")], {}, "question must be a string"),
        ([("image", b"1")], {"question": "q", "top_k": "x"}, "top_k must be a whole number"),
        ([("image", b"1")], {"question": "q", "top_k": "0"}, "top_k must be at least 1"),
        ([("image", b"1")], {"question": "q", "colour": "x"}, "colour is not a known field"),
        ([("image", b"1")], {"question": b"\xff"}, "UTF-8"),
    ],
)
def test_a_wrong_field_of_a_form_is_400_and_named(server: Server, files: Any, data: Any, said: str) -> None:
    assert_problem(server.client.post("/v1/vqa", files=files, data=data), 400, "bad_request", said)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, [1], {}])
def test_an_alias_points_at_a_whole_number(server: Server, value: Any) -> None:
    assert_problem(server.client.put(ALIAS, json={"version": value}), 400, "bad_request", "version must be")


CONTENT_TYPES = [
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/jsonx",
    "text/plain; a=application/json",
    ";",
]


@pytest.mark.parametrize("kind", [*CONTENT_TYPES, "multipart/form-data; boundary=x"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/sentiment"), ("POST", "/v1/classify"), ("PUT", ALIAS)])
def test_json_under_another_name_is_415(server: Server, method: str, path: str, kind: str) -> None:
    response = server.client.request(method, path, content=b'{"text": "a"}', headers={"content-type": kind})
    assert_problem(response, 415, "unsupported_media", "application/json")


@pytest.mark.parametrize("kind", CONTENT_TYPES)
@pytest.mark.parametrize("path", ["/v1/vqa", UPLOAD])
def test_a_form_under_another_name_is_415(server: Server, path: str, kind: str) -> None:
    response = server.client.post(path, content=b"a", headers={"content-type": kind})
    assert_problem(response, 415, "unsupported_media", "multipart/form-data")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/v1/vqa", UPLOAD])
def test_a_form_without_its_boundary_is_400(server: Server, path: str, kind: str) -> None:
    response = server.client.post(path, content=b'{"text": "a"}', headers={"content-type": kind})
    assert_problem(response, 400, "bad_request")


@pytest.mark.parametrize("kind", ["APPLICATION/JSON", "application/json; charset=utf-8", "application/json ;x=y"])
def test_json_may_be_spelt_in_any_way(server: Server, kind: str) -> None:
    response = server.client.post("/v1/sentiment", content=b'{"text": "a"}', headers={"content-type": kind})
    assert response.status_code == 200
