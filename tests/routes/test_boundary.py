"""Traffic as it is: overload, deadlines, clients that leave or dawdle, and rows that a model cannot answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from service.store.bundle import Bundle
from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.reference import text_scores
from tests.support.server import Server, wait_until
from tests.support.traffic import LONG, overflowing_bundle, request_bytes

if TYPE_CHECKING:
    from tests.conftest import Start

ROOMY = {"max_text_chars": 100_000}  # lets the long request in
HEAD = b"POST /v1/sentiment HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"
GARBAGE = [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n", b"FOO /v1/sentiment HTTP/1.1\r\n\r\n"]


@contextmanager
def long_request(server: Server) -> Iterator[threading.Thread]:
    """A request that takes seconds, in work while the block runs."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        thread = threading.Thread(target=client.post, args=["/v1/classify"], kwargs={"json": LONG})
        thread.start()
        wait_until(lambda: server.application.services.text.rows > 0)
        yield thread
        thread.join()


def test_more_rows_than_fit_are_429_at_once_and_fit_again_later(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start(max_concurrent_requests=60, **ROOMY)
    server.publish("sentiment", bundles["sentiment"])
    with long_request(server):
        began = time.monotonic()
        response = server.post("/v1/sentiment", {"text": "a"})
        assert time.monotonic() - began < 1
        assert_problem(response, 429, "overloaded", "60 rows are in work")
        assert int(response.headers["retry-after"]) > 0
        assert server.client.get("/health/ready").status_code == 200
    assert server.post("/v1/sentiment", {"text": "a"}).status_code == 200


def test_requests_that_a_full_server_refuses_leave_their_connection_usable(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start(max_concurrent_requests=60, **ROOMY)
    server.publish("sentiment", bundles["sentiment"])
    text, large = request_bytes("/v1/sentiment", {"text": "a"}), request_bytes("/v1/classify", {"text": "a" * 1_000_000})
    chunked = b"POST /v1/sentiment HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}x\r\n0\r\n\r\n"
    last = b"GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    with long_request(server):
        answers = server.raw(text + large + chunked + last)
    assert answers.count(b"HTTP/1.1 429") == 3 and answers.count(b"HTTP/1.1 200") == 1
    assert answers.count(b'"code":"overloaded"') == answers.count(b"retry-after: ") == 3
    assert answers.count(b"x-request-id: ") == 4


def test_an_answer_that_takes_too_long_is_504(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start(request_timeout=0.3, **ROOMY)
    server.publish("sentiment", bundles["sentiment"])
    began = time.monotonic()
    response = server.post("/v1/classify", LONG)
    assert_problem(response, 504, "timeout", "0.3 s")
    assert time.monotonic() - began < 2
    assert server.application.services.text.rows == 0


def test_a_client_that_leaves_is_dropped_and_counted(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start(**ROOMY)
    server.publish("sentiment", bundles["sentiment"])
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request_bytes("/v1/classify", LONG))
        wait_until(lambda: server.application.services.text.rows > 0)
    wait_until(lambda: server.application.services.text.rows == 0, 0.5)
    assert 'quickchange_disconnects_total{route="/v1/classify"} 1.0' in server.client.get("/metrics").text
    assert server.post("/v1/sentiment", {"text": "a"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/sentiment", "/v1/vqa", "/v1/adapters/fresh/versions"])
def test_a_body_that_never_arrives_is_504_within_its_deadline_and_the_connection_is_closed(start: Start, path: str) -> None:
    server = start(request_timeout=0.3)
    kind = "multipart/form-data; boundary=x" if "adapters" in path else "application/json"
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\n"
    for framing in (b"content-length: 100\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"):
        began = time.monotonic()
        answer = server.raw(head.encode() + framing)
        assert time.monotonic() - began < 2
        assert answer.startswith(b"HTTP/1.1 504") and b"application/problem+json" in answer
        assert b"connection: close" in answer and b'"code":"timeout"' in answer and b"x-request-id" in answer
    assert server.tree() == {}


def test_a_body_that_trickles_in_has_no_more_time_than_any_other(start: Start) -> None:
    server = start(request_timeout=0.4)

    def trickle() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.05)
            yield b" "

    began = time.monotonic()
    try:
        response = server.client.post("/v1/sentiment", content=trickle(), headers={"content-type": "application/json"})
    except httpx.TransportError:  # the server has closed while the client was still sending
        pass
    else:
        assert_problem(response, 504, "timeout", "body")
    assert time.monotonic() - began < 3


def test_a_connection_that_breaks_off_in_its_body_does_no_harm(start: Start) -> None:
    server = start()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(HEAD + b"{")

    assert server.client.get("/health/ready").status_code == 200
    wait_until(lambda: server.client.get("/metrics").status_code == 200)
    assert server.errors.lines == []


@pytest.mark.parametrize("garbage", GARBAGE)
def test_bytes_that_are_no_http_do_no_harm(server: Server, garbage: bytes) -> None:
    answer = server.raw(garbage, 0.5)
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert server.client.get("/health/ready").status_code == 200


def test_a_row_whose_logits_are_not_finite_fails_alone(
    start: Start, bundles: dict[str, Bundle], tiny_base: Path, tmp_path: Path
) -> None:
    server, bad, good = start(), "an unlucky sentence", "a lucky one"
    server.publish("sentiment", bundles["sentiment"])
    assert server.publish("odd", overflowing_bundle(tiny_base, bad, [good])).status_code == 201
    expected = text_scores(tiny_base, bundles["sentiment"], tmp_path / "peft", [bad])[0]

    def ask(call: tuple[str, str]) -> httpx.Response:
        return server.post("/v1/classify", {"text": call[0], "adapter": call[1]})

    calls = [(bad, "odd"), (good, "odd"), (bad, "sentiment")] * 8
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, calls))
    for (text, adapter), answer in zip(calls, answers, strict=True):
        if (text, adapter) == (bad, "odd"):
            assert_problem(answer, 422, "adapter_incompatible", "odd:1", "not finite for this text")
        elif adapter == "odd":
            assert answer.status_code == 200 and answer.json()["label"] == "b"
        else:
            assert answer.json()["scores"] == pytest.approx(expected, abs=1e-5)


def test_texts_and_images_at_once_share_the_device(server: Server) -> None:
    def ask(i: int) -> int:
        if i % 3:
            return server.post("/v1/sentiment", {"text": f"text {i}"}).status_code
        form = {"image": image_file(i, (60, 40), "JPEG")}
        return server.client.post("/v1/vqa", files=form, data={"question": f"question {i}"}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(30))) == {200}
