"""Clients that say half of what they have to say take nothing from those who say it all."""

from __future__ import annotations

import json
from itertools import cycle, islice

from tests.support.hostile import HALF_BODY, HALF_HEAD, half_sent
from tests.support.server import Server, wait_until

COUNT = 100


def test_half_sent_heads_and_bodies_leave_the_others_their_answers(server: Server) -> None:
    sent = list(islice(cycle([HALF_HEAD, HALF_BODY]), COUNT))
    with half_sent(server.port, sent) as connections:
        for _ in range(20):
            assert server.post("/v1/sentiment", {"text": "good"}).status_code == 200
        body = json.dumps({"text": "late"}).encode()
        late = connections[0]
        late.sendall(f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        assert late.recv(65536).startswith(b"HTTP/1.1 200")  # those who go on are served as well
    wait_until(lambda: server.post("/v1/sentiment", {"text": "good"}).status_code == 200)
