"""Connections whose requests never begin, or never end beginning, are closed; all others are let be."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from service.connection import Connection
from service.store.bundle import Bundle
from tests.support.server import Server
from tests.support.traffic import request_bytes

if TYPE_CHECKING:
    from tests.conftest import Start

HASTE = 0.4
GET = b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n"
PARTS = [b"", b"G", b"GET /health/live HTTP/1.1\r\n", GET[:-2], b"POST /v1/sentiment HTTP/1.1\r\nx: ", b"\r\n", b"\r\n\r\n\r\n"]


@pytest.fixture
def hasty(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(Connection, "head_seconds", HASTE)
    return server


def closes_after(connection: socket.socket, began: float) -> float:
    """How long it took until the server closed; what it says before is thrown away."""
    connection.settimeout(5)
    while connection.recv(65536):
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("sent", PARTS)
def test_half_a_head_is_closed_in_time(hasty: Server, sent: bytes) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", hasty.port)) as connection:
        connection.sendall(sent)
        assert HASTE * 0.9 < closes_after(connection, began) < HASTE + 1


@pytest.mark.parametrize("sent", PARTS[1:])
def test_and_so_is_half_of_a_second_one(hasty: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port)) as connection:
        connection.sendall(GET)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(0.1)
        began = time.monotonic()
        connection.sendall(sent)
        assert HASTE * 0.9 < closes_after(connection, began) < HASTE + 1


def refused_after(port: int, line: bytes, pause: float) -> float:
    """How long a client could go on sending this line of a head."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection, suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while time.monotonic() - began < 5:
            connection.sendall(line)
            time.sleep(pause)
    return time.monotonic() - began


def test_a_head_that_trickles_in_has_no_more_time(hasty: Server) -> None:
    assert refused_after(hasty.port, b"x: y\r\n", 0.05) < HASTE + 1


def test_a_head_without_end_is_closed_before_its_time(server: Server) -> None:
    assert refused_after(server.port, b"x: " + b"y" * 8000 + b"\r\n", 0) < 4


def test_requests_that_take_longer_than_a_head_may_are_answered(hasty: Server) -> None:
    def slow() -> Iterator[bytes]:
        for part in (b'{"te', b'xt": "', b"good", b'"}'):
            time.sleep(HASTE / 2)
            yield part

    for _ in range(2):
        response = hasty.client.post("/v1/sentiment", content=slow(), headers={"content-type": "application/json"})
        assert response.status_code == 200
        time.sleep(HASTE * 1.2)  # idle between two requests: uvicorn's time, not this one


def test_requests_that_wait_behind_another_are_answered(
    start: Start, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "head_seconds", 0.05)
    server = start(max_text_chars=100_000)
    server.publish("sentiment", bundles["sentiment"])
    long = request_bytes("/v1/classify", {"texts": ["word " * 10_000] * 8, "adapter": "sentiment"})
    answers = server.raw(long + GET + GET.replace(b"host", b"connection: close\r\nhost"))
    assert answers.count(b"HTTP/1.1 200") == 3


def test_the_rest_of_a_body_that_was_refused_early_is_let_in(server: Server) -> None:
    head = b"POST /v1/sentiment HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 415")
        connection.sendall(b"x" * 1_000_000 + GET)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_connection_that_wants_to_be_something_else_stays_http(server: Server) -> None:
    upgrade = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: "
    answer = server.raw(GET[:-2] + upgrade + b"YWFhYWFhYWFhYWFhYWFhYQ==\r\n\r\n", 1)
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'{"status":"alive"}')
