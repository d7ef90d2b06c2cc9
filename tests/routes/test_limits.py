"""Limits of a request: bytes, texts, characters, pixels; each a setting."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.store.bundle import Bundle
from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.server import Server

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def limited(tiny_base: Path, bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits."""
    small = {
        "max_body_bytes": 4096,
        "max_adapter_bytes": 150_000,
        "max_client_batch_size": 3,
        "max_text_chars": 50,
        "max_image_pixels": 100,
    }
    with Server(tiny_base, tmp_path_factory.mktemp("limited"), **small) as running:
        running.publish("sentiment", bundles["sentiment"])
        running.publish("vqa", bundles["vqa"])
        yield running
    assert running.errors.lines == []


def chunked(size: int) -> Iterator[bytes]:
    yield b'{"text": "'
    for _ in range(size // 1000):
        yield b"a" * 1000
    yield b'"}'


@pytest.mark.parametrize("path", ["/v1/sentiment", "/v1/classify", "/v1/vqa"])
def test_a_body_over_the_limit_is_413_announced_or_not(limited: Server, path: str) -> None:
    announced = limited.client.post(path, content=b'{"text": "' + b"a" * 5000 + b'"}', headers=JSON)
    assert_problem(announced, 413, "too_large", "body")
    assert_problem(limited.client.post(path, content=chunked(5000), headers=JSON), 413, "too_large", "body")


def test_an_upload_has_a_limit_of_its_own(limited: Server) -> None:
    before = limited.tree()
    under = limited.upload("fresh", {"adapter_config": b"{}", "adapter_model": b"x" * 50_000})
    assert_problem(under, 422, "adapter_incompatible")
    over = limited.upload("fresh", {"adapter_config": b"{}", "adapter_model": b"x" * 160_000})
    assert_problem(over, 413, "too_large", "body")
    assert limited.tree() == before


def test_too_many_results_too_long_texts_and_too_many_pixels_are_413(limited: Server) -> None:
    assert_problem(limited.post("/v1/sentiment", {"texts": ["a"] * 4}), 413, "too_large", "4 results", "at most 3")
    assert_problem(limited.post("/v1/classify", {"texts": ["a"] * 2, "adapters": ["sentiment"] * 2}), 413, "too_large")
    assert_problem(limited.post("/v1/sentiment", {"text": "a" * 51}), 413, "too_large", "51 characters", "at most 50")
    small = base64.b64encode(image_file(size=(10, 10))).decode()
    assert limited.post("/v1/vqa", {"image": small, "question": "q"}).status_code == 200
    large = base64.b64encode(image_file(size=(11, 10))).decode()
    assert_problem(limited.post("/v1/vqa", {"image": large, "question": "q"}), 413, "too_large", "110 pixels", "at most 100")
    assert_problem(limited.post("/v1/vqa", {"image": small, "questions": ["q"] * 4}), 413, "too_large", "4 results")
    assert_problem(limited.post("/v1/vqa", {"image": small, "question": "q" * 51}), 413, "too_large", "51 characters")


def test_an_image_that_announces_more_pixels_than_it_has_is_refused_by_its_header(limited: Server) -> None:
    header = bytearray(image_file(size=(10, 10)))
    header[16:24] = (100_000).to_bytes(4, "big") * 2
    sent = {"image": base64.b64encode(bytes(header)).decode(), "question": "q"}
    response: httpx.Response = limited.post("/v1/vqa", sent)
    assert response.status_code in (413, 422), response.text
    assert_problem(response, response.status_code, json.loads(response.text)["code"])
