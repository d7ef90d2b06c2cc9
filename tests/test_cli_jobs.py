"""Training jobs on the command line, against a server that speaks the contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.client.test_training import ID, VIEW, stream
from tests.support.command import fails, quickchange, words
from tests.support.contract import ContractServer, Reply, problem

DONE: dict[str, Any] = {
    **VIEW, "state": "succeeded", "progress": {"epoch": 2, "epochs": 2, "step": 8, "steps": 8, "loss": 0.1, "metrics": {}},
    "result": {"version": 3, "digest": "sha256:a", "metrics": {"validation": {"accuracy": 0.875}}, "alias": "live"},
}  # fmt: skip
FAILED = {**VIEW, "state": "failed", "error": {"code": "requirement_not_met", "detail": "accuracy is 0.5"}}
AT = {"epoch": 1, "epochs": 2, "step": 4, "steps": 8, "loss": 0.5, "texts_per_second": 100.0, "metrics": {}}


@pytest.fixture
def contract() -> Iterator[ContractServer]:
    with ContractServer() as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "a.csv").write_text("text,label\n")
    return str(tmp_path / "a.csv")


def jobs(contract: ContractServer, *arguments: str) -> Result:
    return quickchange("jobs", *arguments, "--server", contract.url)


def test_a_training_is_submitted_with_its_choices(contract: ContractServer, data: str) -> None:
    contract.first = [Reply(202, VIEW)]
    told = jobs(
        contract, "submit", data, "--name", "mood", "--alias", "live", "--require", "macro_f1>=live", "--gate", "accuracy=0.6",
        "--option", "epochs=2", "--option", "target_modules=query,value", "--option", "skip_bad=true",
    )  # fmt: skip
    assert told.stdout == f"{ID} queued; 'quickchange jobs watch {ID}' follows it\n"
    body = contract.requests[0].body
    assert b'{"epochs": 2, "target_modules": "query,value", "skip_bad": true}' in body
    assert b'{"macro_f1": ">= live"}' in body and b'{"accuracy": 0.6}' in body


def test_a_training_is_watched_to_its_end(contract: ContractServer, data: str) -> None:
    events = [("state", {"state": "running"}, ""), ("progress", AT, "1"), ("metrics", {**AT, "metrics": {"accuracy": 0.8}}, "2")]
    contract.first = [Reply(202, VIEW), stream(*events, ("end", DONE, "2"))]
    told = jobs(contract, "submit", data, "--name", "mood", "--watch")
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        "epoch 1: accuracy 0.800",
        "  validation: accuracy 0.875",
        "mood:3 published, which live points at",
    ]
    contract.first = [stream(*events, ("end", FAILED, "2"))]
    told = jobs(contract, "watch", ID)
    assert told.exit_code == 1 and f"error: {ID} failed: accuracy is 0.5" in told.stderr
    contract.first = [stream(*events, ("end", DONE, "2"))]
    lines = [json.loads(line) for line in jobs(contract, "watch", ID, "--json").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["state", "progress", "metrics", "end"] and lines[-1]["result"]["version"] == 3


def test_trainings_are_listed_and_cancelled(contract: ContractServer) -> None:
    contract.first = [Reply(200, {"jobs": [FAILED, DONE], "next": None}) for _ in range(2)]
    shown = words(jobs(contract, "list"))
    assert "failed 2026-11-23 10:00 accuracy is 0.5" in shown and "100 % mood:3 live → 3" in shown
    assert len(json.loads(jobs(contract, "list", "--limit", "1", "--json").stdout)["jobs"]) == 1
    contract.first = [Reply(202, VIEW), Reply(202, {**VIEW, "state": "cancelled"}), Reply(204, b"")]
    assert [jobs(contract, "cancel", ID).stdout for _ in range(3)] == [
        f"{word} {ID}\n" for word in ("cancelling", "cancelled", "removed")
    ]
    contract.first = [problem(404, "not_found", "no training job")]
    fails(jobs(contract, "cancel", ID), "404 not_found: no training job")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gate", "accuracy"), "'accuracy': expected NAME=VALUE"),
        (("--gate", "accuracy=high"), "expected METRIC=NUMBER"),
        (("--option", "=3"), "'=3': expected NAME=VALUE"),
        (("--require", "f1"), "expected METRIC>=ALIAS"),
    ],
)
def test_a_command_that_is_wrong_exits_with_2(contract: ContractServer, data: str, arguments: tuple[str, ...], said: str) -> None:
    result = jobs(contract, "submit", data, "--name", "mood", *arguments)
    assert result.exit_code == 2 and said in " ".join(result.stderr.replace("│", " ").split()) and not contract.requests
