"""Training jobs by the clients: what is sent, and events followed over connections that are lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.client import ServerError
from service.errors import InvalidInput
from tests.client.conftest import Ask
from tests.support.contract import ContractServer, Reply, problem

ID = "01a20a16531e34373123"
VIEW: dict[str, Any] = {
    "id": ID, "name": "mood", "task": "text-classification", "state": "queued", "created": "2026-11-23T10:00:00Z",
    "started": None, "finished": None, "progress": None, "result": None, "error": None,
}  # fmt: skip


def stream(*events: tuple[str, Any, str], rest: str = "") -> Reply:
    """A connection on which these events come, and then no more."""
    told = "".join(
        f": beat\n\nevent: {kind}\n{f'id: {place}' if place else ': '}\ndata: {json.dumps(content)}\n\n"
        for kind, content, place in events
    )
    return Reply(200, (told + rest).encode(), {"content-type": "text/event-stream", "connection": "close"})


def test_a_job_is_sent_as_a_form_and_only_once(ask: Ask, contract: ContractServer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    contract.first = [Reply(202, VIEW)]
    job = ask(contract.url, "submit_job", tmp_path / "a.csv", "mood", options={"r": 4}, alias="live", gate={"accuracy": 0.5})
    assert (job.id, job.state) == (ID, "queued")
    body = contract.requests[0].body
    parts = [b'name="name"\r\n\r\nmood', b'{"r": 4}', b'{"accuracy": 0.5}', b'name="alias"\r\n\r\nlive', b'filename="a.csv"']
    assert all(part in body for part in parts) and b"require" not in body
    contract.first = [Reply(hang_up=True)]
    with pytest.raises(ServerError):
        ask(contract.url, "submit_job", tmp_path / "a.csv", "mood")
    assert len(contract.requests) == 2
    with pytest.raises(InvalidInput):
        ask(contract.url, "submit_job", tmp_path / "none.csv", "mood")
    with pytest.raises(InvalidInput):
        ask(contract.url, "job", "../x")


def test_jobs_are_listed_shown_and_cancelled(ask: Ask, contract: ContractServer) -> None:
    contract.first = [Reply(200, {"jobs": [VIEW, VIEW], "next": ID}), Reply(200, {"jobs": [VIEW], "next": None})]
    assert [job.id for job in ask(contract.url, "jobs")] == [ID] * 3
    assert contract.requests[1].query["after"] == ID
    contract.first = [Reply(200, VIEW), Reply(202, {**VIEW, "state": "cancelled"}), Reply(204, b"")]
    assert ask(contract.url, "job", ID).name == "mood"
    assert ask(contract.url, "cancel_job", ID).state == "cancelled"
    assert ask(contract.url, "cancel_job", ID) is None


def test_events_go_on_after_a_lost_connection_where_they_were(ask: Ask, contract: ContractServer) -> None:
    contract.first = [
        stream(("state", {"state": "running"}, ""), ("progress", {"step": 1}, "10"), rest='event: progress\nid: 20\ndata: {"st'),
        Reply(hang_up=True),
        problem(503, "unavailable", "the server is shutting down", retry_after="0"),
        stream(("progress", {"step": 2}, "20"), ("end", VIEW, "20")),
    ]
    events = ask(contract.url, "follow_job", ID)
    assert [event.kind for event in events] == ["state", "progress", "progress", "end"]
    assert events[2].content == {"step": 2} and events[-1].content["id"] == ID
    assert [request.headers.get("last-event-id") for request in contract.requests] == [None, "10", "10", "10"]


def test_a_job_that_is_not_there_is_the_last_word(ask: Ask, contract: ContractServer) -> None:
    contract.first = [problem(404, "not_found", "no training job")]
    with pytest.raises(ServerError, match="no training job"):
        ask(contract.url, "follow_job", ID)
    assert len(contract.requests) == 1
