"""A client that leaves in the middle of its body is nobody's error: nothing is logged, and the server goes on."""

from __future__ import annotations

import socket

from tests.support.server import Server, wait_until

HALF = b'POST /v1/sentiment HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"text": "a'


def left(server: Server) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("quickchange_disconnects_total"))


def test_a_client_that_leaves_within_its_body_is_not_an_error(server: Server) -> None:
    before = left(server)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(HALF)
    wait_until(lambda: left(server) == before + 1)
    assert server.errors.lines == []
    assert server.post("/v1/sentiment", {"text": "still here"}).status_code == 200
