"""When a call is made again: after how long, how often, and never when that could do a change twice."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from service.client import Client, ServerError
from service.client.retries import FIRST, LONGEST, UNANSWERED, Retries
from tests.client.conftest import Ask
from tests.support.contract import ContractServer, Reply, problem


def busy(status: int, retry_after: str | None) -> httpx.Response:
    return httpx.Response(status, headers={"retry-after": retry_after} if retry_after is not None else {})


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_how_long_to_wait(status: int) -> None:
    assert Retries(30, repeatable=False).pause(busy(status, "7")) == 7
    assert Retries(30, repeatable=False).pause(busy(status, "0")) == FIRST
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    waited = Retries(30, repeatable=False).pause(busy(status, later))
    assert waited is not None and 7 < waited <= 9


def test_without_a_readable_time_the_pauses_double_up_to_a_limit() -> None:
    for value in (None, "soon", "-3", "Wed, 21 Oct 2015 07:28:00"):
        retries = Retries(1000, repeatable=True)
        assert [retries.pause(busy(503, value)) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, LONGEST, LONGEST]


def test_a_pause_beyond_the_patience_is_not_begun() -> None:
    assert Retries(30, repeatable=True).pause(busy(503, "31")) is None
    assert Retries(30, repeatable=True).pause(busy(503, "9" * 400)) is None
    assert Retries(0, repeatable=True).pause(busy(429, "0")) is None


@pytest.mark.parametrize("status", [200, 201, 400, 404, 409, 412, 422, 500, 504, 507])
def test_other_answers_are_the_last_word(status: int) -> None:
    assert Retries(30, repeatable=True).pause(httpx.Response(status, headers={"retry-after": "1"})) is None


def test_a_lost_answer_is_asked_for_again_only_where_that_changes_nothing_more() -> None:
    lost, refused = httpx.ReadError("lost"), httpx.ConnectError("nobody there")
    assert Retries(30, repeatable=True).pause(lost) == FIRST
    assert Retries(30, repeatable=False).pause(lost) is None
    retries = Retries(30, repeatable=False)
    assert [retries.pause(refused) is None for _ in range(UNANSWERED)] == [False] * (UNANSWERED - 1) + [True]


def test_a_call_waits_as_it_is_told_and_then_gets_its_answer(contract: ContractServer, ask: Ask) -> None:
    contract.first = [
        problem(429, "overloaded", "full", retry_after="1"),
        problem(503, "unavailable", "not now"),
        Reply(hang_up=True),
    ]
    start = time.monotonic()
    assert ask(contract.url, "adapter", "irony").name == "irony"
    assert time.monotonic() - start >= 1.4 and len(contract.requests) == 4


def test_patience_ends_with_the_servers_own_words(contract: ContractServer) -> None:
    contract.first = [problem(503, "unavailable", "locked", retry_after="60")]
    with Client(contract.url, patience=5) as client, pytest.raises(ServerError) as caught:
        client.adapter("irony")
    assert (caught.value.status, caught.value.code, caught.value.detail) == (503, "unavailable", "locked")
    assert len(contract.requests) == 1


def test_a_change_whose_answer_was_lost_is_not_made_twice(contract: ContractServer) -> None:
    with Client(contract.url) as client:
        client.set_alias("irony", "live", 1)
        contract.requests.clear()
        for change in (
            lambda: client.rollback("irony", "live"),
            lambda: client.set_alias("irony", "live", 2, if_match=1),
            lambda: client.set_alias("irony", "new", 2, create=True),
            lambda: client.remove_alias("irony", "live"),
            lambda: client.delete("irony", 1),
        ):
            contract.first = [Reply(hang_up=True)]
            with pytest.raises(ServerError, match="no server answers"):
                change()
        assert len(contract.requests) == 5
        contract.first = [Reply(hang_up=True)]
        assert client.set_alias("irony", "live", 2).version == 2


def test_a_probe_is_told_how_things_are_now(contract: ContractServer) -> None:
    contract.first = [problem(503, "unavailable", "draining", retry_after="1")]
    with Client(contract.url) as client:
        with pytest.raises(ServerError, match="draining"):
            client.ready()
        assert client.ready().problems == ["the store does not answer"]
