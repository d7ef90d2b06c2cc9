"""What a key may ask for at a time: refused beyond it, with the true time to wait, and given back however a request ends."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from service.errors import Overloaded
from service.routes.key_limits import KeyLimits
from service.routes.keys import PREDICT, READ, ApiKey, parse_line
from service.store.bundle import Bundle
from tests.support.keys import bearer, line, write_keys
from tests.support.problems import assert_problem
from tests.support.server import Server, wait_until

if TYPE_CHECKING:
    from tests.conftest import Start

SLOW, NARROW, FREE = "slow-key-4gH", "narrow-key-8uI", "free-key-2oP"
ENDS = ["", "/"]  # past the framework, and through it


@pytest.fixture
def limited(start: Start, tmp_path: Path, bundles: dict[str, Bundle]) -> Server:
    keys = write_keys(
        tmp_path / "keys",
        line(SLOW, PREDICT, READ, rate="1"),
        line(NARROW, PREDICT, READ, concurrency="2"),
        line(FREE, PREDICT, READ, "adapters:write"),
    )
    running = start(api_keys_file=keys)
    assert running.publish("sentiment", bundles["sentiment"], headers=bearer(FREE)).status_code == 201
    return running


def ask(server: Server, key: str, end: str = "") -> httpx.Response:
    return server.post("/v1/sentiment" + end, {"text": "a"}, headers=bearer(key))


@pytest.mark.parametrize("end", ENDS)
def test_beyond_its_rate_a_key_waits_as_long_as_it_is_told_and_others_do_not(limited: Server, end: str) -> None:
    assert ask(limited, SLOW, end).status_code == 200
    refused = ask(limited, SLOW, end)
    assert_problem(refused, 429, "overloaded", "1 requests a second")
    assert refused.headers["retry-after"] == "1"
    assert [ask(limited, FREE, end).status_code for _ in range(5)] == [200] * 5
    assert_problem(limited.client.get("/v1/adapters", headers=bearer(SLOW)), 429, "overloaded")
    time.sleep(1)
    assert ask(limited, SLOW, end).status_code == 200


def begun(server: Server, key: str, end: str) -> socket.socket:
    """A connection whose request was let in, and whose body does not come."""
    connection = socket.create_connection(("127.0.0.1", server.port), 10)
    head = [f"POST /v1/sentiment{end} HTTP/1.1", "host: a", f"authorization: Bearer {key}", "content-type: application/json"]
    connection.sendall("\r\n".join([*head, "expect: 100-continue", "content-length: 13", "", ""]).encode())
    assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")  # sent when the body is first asked for
    return connection


@pytest.mark.parametrize("end", ENDS)
def test_a_key_has_so_many_requests_in_work_until_they_end_or_their_clients_leave(limited: Server, end: str) -> None:
    first, second = begun(limited, NARROW, end), begun(limited, NARROW, end)
    with first, second:
        refused = ask(limited, NARROW, end)
        assert_problem(refused, 429, "overloaded", "2 requests in work")
        assert refused.headers["retry-after"] == "1"
        assert ask(limited, FREE, end).status_code == 200
        first.sendall(b'{"text": "a"}')
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: ask(limited, NARROW, end).status_code == 200)
        with begun(limited, NARROW, end):
            assert ask(limited, NARROW, end).status_code == 429
    wait_until(lambda: ask(limited, NARROW, end).status_code == 200)
    assert [ask(limited, NARROW, end).status_code for _ in range(10)] == [200] * 10


def test_what_is_refused_takes_no_place(limited: Server) -> None:
    for _ in range(5):
        nowhere = {"text": "a", "adapter": "nowhere"}
        assert_problem(limited.post("/v1/classify", nowhere, headers=bearer(NARROW)), 404, "adapter_not_found")
        assert_problem(limited.client.get("/v1/adapters/nowhere", headers=bearer(NARROW)), 404, "adapter_not_found")
        assert limited.client.post("/v1/sentiment", content=b"a", headers=bearer(NARROW)).status_code == 415
        assert limited.client.delete("/v1/adapters/x/versions/1", headers=bearer(NARROW)).status_code == 403
    assert ask(limited, NARROW).status_code == 200


def key(options: str) -> ApiKey:
    return parse_line(f"ann {'0' * 64} predict {options}")


def test_a_bucket_holds_a_seconds_requests() -> None:
    limits, quick = KeyLimits(), key("rate=20")
    for _ in range(20):
        limits.begin(quick)
    with pytest.raises(Overloaded, match="20 requests a second") as caught:
        limits.begin(quick)
    assert caught.value.retry_after == 1
    time.sleep(0.11)
    for _ in range(2):
        limits.begin(quick)
    with pytest.raises(Overloaded):
        limits.begin(quick)


@pytest.mark.parametrize(("options", "seconds"), [("rate=0.001", 1000), ("rate=0.3", 4), ("rate=1", 1)])
def test_the_time_to_wait_is_whole_seconds_and_enough(options: str, seconds: int) -> None:
    limits, slow = KeyLimits(), key(options)
    limits.begin(slow)
    with pytest.raises(Overloaded) as caught:
        limits.begin(slow)
    assert caught.value.retry_after == seconds


def test_limits_outlive_changes_of_the_file_but_not_the_key() -> None:
    limits, slow = KeyLimits(), key("rate=0.1")
    limits.begin(slow)
    limits.keep([key("rate=0.1")])
    with pytest.raises(Overloaded):
        limits.begin(slow)
    limits.keep([])
    assert limits.begin(slow) is not None


def test_a_key_without_limits_is_not_counted() -> None:
    assert KeyLimits().begin(key("")) is None
