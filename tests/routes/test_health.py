"""Probes, metrics and request ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.conftest import Start


def test_a_running_server_is_alive_and_ready(server: Server) -> None:
    assert server.client.get("/health/live").json() == {"status": "alive"}
    assert server.client.get("/health/ready").json() == {"status": "ready", "problems": []}


def test_metrics_count_requests_by_route_and_status(server: Server) -> None:
    def counted(route: str, status: int) -> float:
        line = rf'quickchange_requests_total\{{route="{re.escape(route)}",status="{status}"\}} (\S+)'
        found = re.search(line, server.client.get("/metrics").text)
        return float(found[1]) if found else 0.0

    wanted = [("/v1/sentiment", 200), ("/v1/sentiment", 404), ("unmatched", 404)]
    before = [counted(*what) for what in wanted]
    server.post("/v1/sentiment", {"text": "a"})
    server.post("/v1/sentiment", {"text": "a", "adapter": "nope"})
    server.client.get("/never/heard/of/it")
    assert [counted(*what) for what in wanted] == [count + 1 for count in before]


def test_metrics_count_images_that_were_seen_before(server: Server) -> None:
    def hits() -> float:
        found = re.search(r'quickchange_embedding_cache_hits_total\{cache="images"\} (\S+)', server.client.get("/metrics").text)
        return float(found[1]) if found else -1.0

    form: dict[str, Any] = {"files": {"image": ("a.png", image_file(77))}, "data": {"question": "what is it"}}
    assert server.client.post("/v1/vqa", **form).status_code == 200
    before = hits()
    assert server.client.post("/v1/vqa", **form).status_code == 200
    assert hits() == before + 1


def test_metrics_are_prometheus_text_and_name_no_adapter_that_a_client_made_up(server: Server) -> None:
    server.post("/v1/sentiment", {"text": "a", "adapter": "made-up"})
    server.client.get("/v1/adapters/made-up")
    response = server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "quickchange_rows_in_work" in response.text and "quickchange_request_seconds_bucket" in response.text
    assert "made-up" not in response.text


@pytest.mark.parametrize("given", ["abc", "A.b-c:d_9", "x" * 128])
def test_a_valid_request_id_comes_back(server: Server, given: str) -> None:
    for path in ("/health/live", "/nope", "/v1/adapters"):
        assert server.client.get(path, headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "é"])
def test_any_other_request_id_is_replaced(server: Server, given: str) -> None:
    answered = server.client.get("/health/live", headers={b"x-request-id": given.encode()}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", answered)


def test_a_draining_server_is_not_ready_but_alive_and_says_when_to_come_back(start: Start) -> None:
    running = start()
    running.application.services.lifetime.draining = True
    response = running.client.get("/health/ready")
    assert_problem(response, 503, "unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert running.client.get("/health/live").status_code == 200
    for refused in (
        running.post("/v1/sentiment", {"text": "a"}),
        running.client.get("/v1/adapters"),
        running.upload("a", {"x": b""}),
    ):
        assert_problem(refused, 503, "unavailable")
