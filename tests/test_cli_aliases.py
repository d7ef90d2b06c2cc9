"""Aliases and the audit log on the command line, against a server that speaks the contract."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import Result

from tests.support.command import fails, quickchange, words
from tests.support.contract import ContractServer, Reply


@pytest.fixture
def contract() -> Iterator[ContractServer]:
    with ContractServer() as running:
        running.adapters["irony"] = [1, 2]
        yield running


def adapters(contract: ContractServer, *arguments: str) -> Result:
    return quickchange("adapters", *arguments, "--server", contract.url)


def test_an_alias_moves_splits_and_goes_back(contract: ContractServer) -> None:
    assert adapters(contract, "alias", "irony", "live", "1").stdout == "irony@live → 1  (generation 1)\n"
    split = adapters(contract, "alias", "irony", "live", "--split", "1=10, 2 = 90", "--shadow", "1", "--if-match", "1")
    assert split.stdout == "irony@live → 2 (90 %), 1 (10 %), shadow 1  (generation 2)\n"
    assert json.loads(contract.requests[-1].body) == {"split": {"1": 10, "2": 90}, "shadow": 1}
    fails(adapters(contract, "alias", "irony", "live", "1", "--if-match", "1"), "412 precondition_failed", "generation 2")
    assert adapters(contract, "rollback", "irony", "live").stdout == "irony@live → 1  (generation 3)\n"
    fails(adapters(contract, "rollback", "irony", "live", "--if-match", "2"), "412 precondition_failed")
    told = json.loads(adapters(contract, "rollback", "irony", "live", "--json").stdout)
    assert (told["generation"], told["split"]) == (4, {"1": 10, "2": 90})


def test_rules_are_sent_as_the_server_reads_them(contract: ContractServer) -> None:
    rules = ["--require", "macro_f1>=live", "--require", " accuracy >= 0.8"]
    assert adapters(contract, "alias", "irony", "live", "1", *rules).exit_code == 0
    assert json.loads(contract.requests[-1].body) == {"version": 1, "require": {"macro_f1": ">= live", "accuracy": ">= 0.8"}}
    contract.first = [
        Reply(422, {"title": "t", "status": 422, "code": "requirement_not_met", "detail": "macro_f1 is 0.5; live has 0.6"})
    ]
    fails(adapters(contract, "alias", "irony", "live", "2", *rules), "422 requirement_not_met: macro_f1 is 0.5; live has 0.6")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either a version or --split"),
        (("1", "--split", "1=100"), "give either a version or --split"),
        (("--split", "3=x"), "'3=x': expected each version once, such as 3=90,4=10"),
        (("--split", "3=90,3=10"), "expected each version once"),
        (("--split", ""), "expected each version once"),
        (("1", "--require", "macro_f1"), "'macro_f1': expected METRIC>=ALIAS or METRIC>=0.8"),
        (("1", "--require", "macro_f1<=0.8"), "expected METRIC>=ALIAS"),
        (("one",), "Invalid value for 'version'"),
    ],
)
def test_a_command_that_is_wrong_exits_with_2(contract: ContractServer, arguments: tuple[str, ...], said: str) -> None:
    result = adapters(contract, "alias", "irony", "live", *arguments)
    assert result.exit_code == 2 and said in " ".join(result.stderr.replace("│", " ").split()) and not contract.requests


def test_show_prints_where_aliases_point_and_for_one_of_them_every_move(contract: ContractServer) -> None:
    for arguments in (
        ("live", "1"),
        ("live", "2", "--require", "macro_f1>=live"),
        ("canary", "--split", "1=5,2=95", "--shadow", "1"),
    ):
        assert adapters(contract, "alias", "irony", *arguments).exit_code == 0
    shown = words(adapters(contract, "show", "irony"))
    assert "irony: a, b" in shown and "test: macro_f1 0.500" in shown
    assert "canary 2 (95 %), 1 (5 %) 1 1" in shown and "live 2 2 macro_f1 >= live" in shown
    named = words(adapters(contract, "show", "irony@live"))
    assert "2 2026-11-23 10:02 ann set 2" in named and "1 2026-11-23 10:01 ann set 1" in named
    assert named.index("10:02") < named.index("10:01") and "agreement" not in named
    assert "agreement 0.75" in words(adapters(contract, "show", "irony@canary"))
    assert json.loads(adapters(contract, "show", "irony@live", "--json").stdout)["generation"] == 2
    assert json.loads(adapters(contract, "show", "irony", "--json").stdout)["aliases"] == {"canary": 2, "live": 2}
    fails(adapters(contract, "show", "irony@nope"), "404 adapter_not_found")


def test_the_audit_log_says_who_did_what(contract: ContractServer) -> None:
    for version in ("1", "2"):
        adapters(contract, "alias", "irony", "live", version)
    shown = words(adapters(contract, "audit"))
    assert '2 2026-11-23 10:02 ann alias.set irony 2 live {"split": {"2": 100}}' in shown
    assert shown.index("10:02") < shown.index("10:01")
    assert [
        entry["id"] for entry in json.loads(adapters(contract, "audit", "irony", "--json", "--limit", "1").stdout)["entries"]
    ] == [2]
    assert json.loads(adapters(contract, "audit", "other", "--json").stdout) == {"entries": []}


def test_a_dry_run_publishes_nothing(contract: ContractServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bundle") / "sarcasm"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes(b"{}")
    answer: dict[str, object] = {
        "name": "sarcasm", "version": None, "digest": "sha256:" + "a" * 64, "task": "text-classification", "labels": ["a", "b"],
        "aliases": {}, "dry_run": True,
    }  # fmt: skip
    contract.first = [Reply(200, answer), Reply(200, answer)]
    assert (
        adapters(contract, "push", str(folder), "--dry-run").stdout
        == "sarcasm  sha256:aaaaaaaaaaaa…  fits; nothing was published\n"
    )
    assert contract.requests[0].query == {"dry_run": "true"} and contract.requests[0].path == "/v1/adapters/sarcasm/versions"
    assert json.loads(adapters(contract, "push", str(folder), "--dry-run", "--json").stdout) == answer
