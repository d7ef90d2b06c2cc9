"""Aliases, pages and the audit log, against a server that speaks the contract."""

from __future__ import annotations

import json

import pytest

from service.client import Client, ServerError, calls
from service.errors import InvalidInput
from tests.client.conftest import Ask
from tests.support.contract import ContractServer


def test_an_alias_moves_splits_and_goes_back(contract: ContractServer, ask: Ask) -> None:
    moved = ask(contract.url, "set_alias", "irony", "live", 1)
    assert (moved.adapter, moved.alias, moved.version, moved.generation, moved.split) == ("irony", "live", 1, 1, {"1": 100})
    split = ask(contract.url, "set_alias", "irony", "live", split={1: 90, 2: 10}, shadow=2, require={"macro_f1": ">= live"})
    assert (split.split, split.shadow, split.require, split.version) == ({"1": 90, "2": 10}, 2, {"macro_f1": ">= live"}, 1)
    assert split.comparison is not None and split.comparison.agreement == 0.75
    assert ask(contract.url, "alias", "irony", "live") == split
    back = ask(contract.url, "rollback", "irony", "live")
    assert (back.split, back.shadow, back.generation) == ({"1": 100}, None, 3)
    assert [(move.generation, move.action, move.who) for move in back.history] == [
        (1, "set", "ann"), (2, "set", "ann"), (3, "rollback", "ann")
    ]  # fmt: skip
    assert ask(contract.url, "remove_alias", "irony", "live") is None
    with pytest.raises(ServerError, match=r"^404 adapter_not_found: "):
        ask(contract.url, "alias", "irony", "live")


def test_only_what_is_given_is_sent(contract: ContractServer, ask: Ask) -> None:
    ask(contract.url, "set_alias", "irony", "live", 2)
    ask(contract.url, "set_alias", "irony", "live", split={1: 50, 2: 50}, shadow=2, if_match=1)
    plain, whole = contract.requests
    assert json.loads(plain.body) == {"version": 2} and "if-match" not in plain.headers
    assert json.loads(whole.body) == {"split": {"1": 50, "2": 50}, "shadow": 2} and whole.headers["if-match"] == '"1"'
    for wrong in ({}, {"version": 1, "split": {1: 100}}):
        with pytest.raises(InvalidInput, match="either a version or a split"):
            ask(contract.url, "set_alias", "irony", "live", **wrong)


def test_a_move_that_somebody_was_faster_with_is_refused(contract: ContractServer, ask: Ask) -> None:
    ask(contract.url, "set_alias", "irony", "live", 1, create=True)
    for change in ({"version": 2, "if_match": 7}, {"version": 2, "create": True}):
        with pytest.raises(ServerError) as caught:
            ask(contract.url, "set_alias", "irony", "live", **change)
        assert (caught.value.status, caught.value.code) == (412, "precondition_failed")
    with pytest.raises(ServerError, match=r"412"):
        ask(contract.url, "rollback", "irony", "live", if_match=2)
    with pytest.raises(ServerError, match=r"^409 version_conflict: "):
        ask(contract.url, "rollback", "irony", "live", if_match=1)


def test_every_page_is_asked_for_and_no_more(contract: ContractServer, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls.page, "__defaults__", (None, 2))
    contract.adapters = {f"a{number}": [1] for number in range(5)}
    assert [adapter.name for adapter in ask(contract.url, "adapters")] == ["a0", "a1", "a2", "a3", "a4"]
    assert [request.query.get("after") for request in contract.requests] == [None, "a1", "a3"]
    with Client(contract.url) as client:
        assert next(client.adapters()).name == "a0"
    assert len(contract.requests) == 4


def test_the_audit_log_is_read_from_the_newest_back(contract: ContractServer, ask: Ask) -> None:
    for version in (1, 2, 1):
        ask(contract.url, "set_alias", "irony", "live", version)
    ask(contract.url, "set_alias", "other", "live", 1)
    assert [entry.id for entry in ask(contract.url, "audit")] == [4, 3, 2, 1]
    newest = ask(contract.url, "audit", 2, before=4, adapter="irony")
    found = [(one.id, one.who, one.action, one.version) for one in newest]
    assert found == [(3, "ann", "alias.set", 1), (2, "ann", "alias.set", 2)]


def test_readiness_says_what_is_wrong(contract: ContractServer, ask: Ask) -> None:
    found = ask(contract.url, "ready")
    assert (found.status, found.problems) == ("degraded", ["the store does not answer"])
