"""Readable requests that cannot be answered: what is not there, no text, no image, no name, no address."""

from __future__ import annotations

import base64

import pytest

from service.store.bundle import Bundle
from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.server import Server

IMAGE = base64.b64encode(image_file()).decode()
UPLOAD = "/v1/adapters/fresh/versions"
ALIAS = "/v1/adapters/irony/aliases/live"

SELECTORS = {
    "nope": (404, "adapter_not_found"),
    "": (404, "adapter_not_found"),
    "../sentiment": (404, "adapter_not_found"),
    "/an/absolute/path": (404, "adapter_not_found"),
    "SENTIMENT": (404, "adapter_not_found"),
    "sentiment\x00": (404, "adapter_not_found"),
    "sentiment\n": (404, "adapter_not_found"),
    "x" * 300: (404, "adapter_not_found"),
    "irony@nope": (404, "adapter_not_found"),
    "irony:9": (404, "adapter_not_found"),
    "irony:0": (404, "adapter_not_found"),
    "irony:-1": (404, "adapter_not_found"),
    "irony:" + "9" * 30: (404, "adapter_not_found"),
    "irony:3": (410, "adapter_deleted"),
}


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("path", ["/v1/sentiment", "/v1/classify", "/v1/vqa"])
def test_what_is_not_there_is_404_and_what_was_deleted_410(server: Server, path: str, selector: str) -> None:
    status, code = SELECTORS[selector]
    body = {"image": IMAGE, "question": "q"} if path == "/v1/vqa" else {"text": "a"}
    assert_problem(server.post(path, {**body, "adapter": selector}), status, code)


def test_one_unknown_adapter_among_several_is_404(server: Server) -> None:
    assert_problem(server.post("/v1/classify", {"text": "a", "adapters": ["emotion", "nope"]}), 404, "adapter_not_found", "nope")


def test_an_adapter_of_another_task_is_422(server: Server) -> None:
    assert_problem(server.post("/v1/sentiment", {"text": "a", "adapter": "vqa"}), 422, "invalid_input", "vqa")
    body = {"image": IMAGE, "question": "q", "adapter": "emotion"}
    assert_problem(server.post("/v1/vqa", body), 422, "invalid_input", "emotion")


@pytest.mark.parametrize("text", ["", " ", "\n\t\r", "\u2003"])
def test_an_empty_text_is_422_and_its_place_is_named(server: Server, text: str) -> None:
    assert_problem(server.post("/v1/sentiment", {"text": text}), 422, "invalid_input", "text is empty")
    assert_problem(server.post("/v1/sentiment", {"texts": ["a", text]}), 422, "invalid_input", "texts[1] is empty")
    body = {"image": IMAGE, "questions": ["a", text]}
    assert_problem(server.post("/v1/vqa", body), 422, "invalid_input", "questions[1] is empty")


PNG = image_file()
BAD_IMAGES = {
    "truncated": (PNG[: len(PNG) // 2], 422, "invalid_input"),
    "a header alone": (PNG[:33], 422, "invalid_input"),
    "noise after the signature": (PNG[:8] + b"\xff" * 200, 422, "invalid_input"),
    "a truncated JPEG": (image_file(kind="JPEG")[:400], 422, "invalid_input"),
    "a text file": (b"hello, I am an image", 415, "unsupported_media"),
    "nothing": (b"", 415, "unsupported_media"),
    "a GIF": (image_file(kind="GIF"), 415, "unsupported_media"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_media"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_refused_as_a_form_and_as_json(server: Server, kind: str) -> None:
    image, status, code = BAD_IMAGES[kind]
    assert_problem(server.client.post("/v1/vqa", files={"image": image}, data={"question": "q"}), status, code)
    as_json = {"image": base64.b64encode(image).decode(), "question": "q"}
    assert_problem(server.post("/v1/vqa", as_json), status, code)


@pytest.mark.parametrize("image", ["!!", "é", "abc", "data:image/png;base64," + IMAGE, IMAGE[:40] + "\n" + IMAGE[40:]])
def test_an_image_in_json_that_is_not_base64_is_422(server: Server, image: str) -> None:
    assert_problem(server.post("/v1/vqa", {"image": image, "question": "q"}), 422, "invalid_input", "base64")


BAD_NAMES = [
    "%2e%2e",
    "%2e%2e%2f",
    "%00",
    "a%00",
    "a%0a",
    "Upper",
    "a" * 300,
    "-a",
    ".a",
    "a b",
    "é",
    "%ff",
    "a;b",
    "a:1",
    "a@live",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_name_reaches_no_file(server: Server, bundles: dict[str, Bundle], name: str) -> None:
    before = server.tree()
    assert_problem(server.publish(name, bundles["irony"]), 422, "invalid_input", "is not valid; accepted: lower-case letters")
    alias = server.client.put(f"/v1/adapters/irony/aliases/{name}", json={"version": 1})
    assert_problem(alias, 422, "invalid_input", "alias")
    assert_problem(server.client.put(f"/v1/adapters/{name}/aliases/x", json={"version": 1}), 404, "adapter_not_found")
    assert_problem(server.client.delete(f"/v1/adapters/irony/aliases/{name}"), 404, "adapter_not_found")
    assert_problem(server.client.delete(f"/v1/adapters/{name}/versions/1"), 404, "adapter_not_found")
    assert_problem(server.client.get(f"/v1/adapters/{name}"), 404, "adapter_not_found")
    assert server.tree() == before


@pytest.mark.parametrize("path", ["/v1/adapters/../../etc/passwd", "/v1/adapters/%2e%2e%2f%2e%2e%2fetc", "/v1/adapters//etc/x"])
def test_a_path_in_the_address_is_404(server: Server, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode()
    answer = server.raw(request)
    assert answer.startswith(b"HTTP/1.1 404") and b"application/problem+json" in answer


@pytest.mark.parametrize(("version", "status"), [("9", 404), ("0", 404), ("-1", 404), ("9" * 30, 404), ("x", 404), ("3", 410)])
def test_a_version_to_delete_must_be_there(server: Server, version: str, status: int) -> None:
    response = server.client.delete(f"/v1/adapters/irony/versions/{version}")
    assert_problem(response, status, response.json()["code"])


@pytest.mark.parametrize("path", ["/", "/v1", "/nope", "/v1/sentiments", "/v1/adapters/a/b/c/d", "/%00", "/v1/" + "x" * 5000])
def test_an_unknown_address_is_404(server: Server, path: str) -> None:
    assert_problem(server.client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/sentiment"), ("PUT", "/v1/classify"), ("POST", "/v1/adapters"), ("GET", UPLOAD), ("PATCH", ALIAS),
     ("POST", "/health/live"), ("POST", "/metrics"), ("POST", "/v1/models")],
)  # fmt: skip
def test_another_method_is_405(server: Server, method: str, path: str) -> None:
    assert_problem(server.client.request(method, path), 405, "method_not_allowed")
