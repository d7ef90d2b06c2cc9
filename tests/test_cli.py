"""The command line against a running server: what it prints, what it changes, and its one line when it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.routes.keys import WRITE, key_line
from service.settings import Settings
from service.store.bundle import Bundle, read_bundle
from service.store.layout import MANIFEST
from service.store.problem_types import REGRESSION
from tests.support.bundles import text_bundle
from tests.support.command import fails, quickchange, words
from tests.support.server import Server
from training.bundles import write_bundle

if TYPE_CHECKING:
    from tests.conftest import Start

KEY = "a-key-for-the-tests"


@pytest.fixture
def live(start: Start) -> Server:
    return start()


@pytest.fixture
def folder(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    write_bundle(bundles["irony"], tmp_path / "sarcasm")
    return tmp_path / "sarcasm"


def test_a_pushed_folder_answers_the_next_request(live: Server, folder: Path) -> None:
    result = quickchange("adapters", "push", str(folder), "--alias", "live", "--server", live.url)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("sarcasm:1 ") and "aliases: live → 1" in result.stdout
    assert live.post("/v1/classify", {"text": "a", "adapter": "sarcasm"}).json()["version"] == 1
    again = quickchange("adapters", "push", str(folder), "--server", live.url)
    assert again.exit_code == 0 and again.stdout.startswith("sarcasm:1 ")


def test_an_adapter_is_named_by_the_option_else_the_manifest_else_the_folder(
    live: Server, bundles: dict[str, Bundle], folder: Path, tmp_path: Path
) -> None:
    assert quickchange("adapters", "push", str(folder), "--name", "other", "--server", live.url).stdout.startswith("other:1 ")
    named = Bundle(
        bundles["irony"].config, bundles["irony"].files, bundles["irony"].manifest.model_copy(update={"name": "named"})
    )
    write_bundle(named, tmp_path / "somewhere")
    assert quickchange("adapters", "push", str(tmp_path / "somewhere"), "--server", live.url).stdout.startswith("named:1 ")
    (folder / MANIFEST).unlink()
    assert quickchange("adapters", "push", str(folder), "--server", live.url).stdout.startswith("sarcasm:1 ")


def test_list_prints_what_the_server_has(server: Server) -> None:
    listed = words(quickchange("adapters", "list", "--server", server.url))
    assert "irony text-classification 2 canary → 1, live → 2 2" in listed
    assert "vqa visual-question-answering 1 live → 1 12" in listed
    told = json.loads(quickchange("adapters", "list", "--json", "--server", server.url).stdout)
    assert [adapter["name"] for adapter in told["adapters"]] == ["emotion", "irony", "sentiment", "short", "vqa"]


def test_labels_are_printed_as_they_are_whatever_is_in_them(live: Server, tiny_base: Path) -> None:
    live.publish("odd", text_bundle(tiny_base, ["[/bold]", "[red]"]), None)
    shown = words(quickchange("adapters", "show", "odd", "--server", live.url))
    assert "odd: [/bold], [red]" in shown and "validation: accuracy 0.500" in shown and "stored" not in shown


def test_an_adapter_that_gives_no_single_label_says_so(live: Server, bundles: dict[str, Bundle], tiny_base: Path) -> None:
    live.publish("stars", text_bundle(tiny_base, ["stars"], problem_type=REGRESSION))
    live.publish("irony", bundles["irony"])
    assert "stars: stars (regression)" in words(quickchange("adapters", "show", "stars", "--server", live.url))
    assert "irony: literal, ironic ┏" in words(quickchange("adapters", "show", "irony", "--server", live.url))


def test_the_server_may_come_from_the_environment(server: Server) -> None:
    assert quickchange("adapters", "list", QUICKCHANGE_SERVER=server.url).exit_code == 0


def test_a_version_goes(live: Server, bundles: dict[str, Bundle]) -> None:
    live.publish("irony", bundles["irony"], "canary")
    removed = quickchange("adapters", "unalias", "irony", "canary", "--server", live.url)
    assert removed.stdout.strip() == "removed irony@canary"
    removed = quickchange("adapters", "rm", "irony", "1", "--server", live.url)
    assert removed.stdout.strip() == "deleted irony:1"
    assert live.client.get("/v1/adapters/irony").json()["versions"] == []


def test_a_version_is_pulled_as_it_was_pushed(live: Server, folder: Path, tmp_path: Path) -> None:
    pushed = json.loads(quickchange("adapters", "push", str(folder), "--json", "--server", live.url).stdout)
    pulled = quickchange("adapters", "pull", "sarcasm:1", str(tmp_path / "new"), "--server", live.url)
    assert pulled.exit_code == 0 and pulled.stdout.strip() == str(tmp_path / "new")
    assert read_bundle(tmp_path / "new").manifest.digest == pushed["digest"]
    again = quickchange("adapters", "pull", "sarcasm:1", str(tmp_path / "again"), "--json", "--server", live.url)
    assert json.loads(again.stdout) == {"folder": str(tmp_path / "again")}
    fails(quickchange("adapters", "pull", "sarcasm:1", str(tmp_path / "new"), "--server", live.url), "is there already")


def test_a_refusal_is_one_line_in_the_servers_words(
    live: Server, bundles: dict[str, Bundle], folder: Path, tmp_path: Path
) -> None:
    live.publish("irony", bundles["irony"])
    fails(quickchange("adapters", "show", "nope", "--server", live.url), "404 adapter_not_found", "live: irony")
    fails(quickchange("adapters", "rm", "irony", "1", "--server", live.url), "409 version_conflict")
    fails(quickchange("adapters", "alias", "irony", "live", "7", "--server", live.url), "404", "has no version 7")
    fails(quickchange("adapters", "push", str(tmp_path / "nothing"), "--server", live.url), "no adapter_config.json")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "IA3"}))
    fails(quickchange("adapters", "push", str(folder), "--server", live.url), "422 adapter_incompatible")
    for bad in ("../x", "Upper", "", "[/bold]"):
        fails(quickchange("adapters", "show", bad, "--server", live.url), "is not valid")


def test_no_server_at_the_address_is_one_line() -> None:
    fails(quickchange("adapters", "list", "--server", "http://127.0.0.1:9"), "no server answers at http://127.0.0.1:9")
    fails(quickchange("adapters", "list", "--server", "not an address"), "not an address")


def test_a_key_opens_a_locked_server(start: Start, folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(key_line("ann", KEY, frozenset({WRITE})))
    locked = start(api_keys_file=keys)
    push = ("adapters", "push", str(folder), "--server", locked.url)
    fails(quickchange(*push), "401 unauthorized")
    fails(quickchange(*push, "--key", "wrong"), "401 unauthorized")
    assert quickchange(*push, "--key", KEY).exit_code == 0
    assert quickchange(*push, QUICKCHANGE_API_KEY=KEY).exit_code == 0
    fails(quickchange("adapters", "rm", "sarcasm", "1", "--server", locked.url, "--key", KEY), "403 forbidden")


def test_help_names_every_setting_with_its_variable_and_default() -> None:
    shown = re.sub(r"[\s│]+", " ", quickchange("serve", "--help").stdout)
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in shown
        assert f"[env: QUICKCHANGE_{name.upper()}]" in shown
        assert (field.description or "?")[:40] in shown
        if field.default is not None:
            assert f"[default: {field.default}]" in shown


def test_every_command_has_help() -> None:
    adapters = ("list", "show", "push", "pull", "alias", "rollback", "unalias", "rm", "audit", "verify")
    for command in (["serve"], ["doctor"], ["adapters"], *(["adapters", command] for command in adapters)):
        result = quickchange(*command, "--help")
        assert result.exit_code == 0 and len(result.stdout) > 100
    for command in ([], ["adapters"]):
        assert "Exit codes: 0 done; 1 refused or failed, and one line on stderr says why; 2" in words(
            quickchange(*command, "--help")
        )


def test_shells_can_complete_the_commands() -> None:
    asked = {"_QUICKCHANGE_COMPLETE": "complete_bash", "COMP_WORDS": "quickchange adapters r", "COMP_CWORD": "2"}
    assert CliRunner(env=asked).invoke(app, [], prog_name="quickchange").stdout.split() == ["rollback", "rm"]
