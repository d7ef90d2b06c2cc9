"""The README says what the code does: settings, commands, files and endpoints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from service.cli import app, curls
from service.routes.problems import STATUS
from service.settings import PREFIX, Settings
from training.commands import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
CODE = "\n".join(code for kind, code in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE) if not kind)


def test_the_configuration_table_is_the_settings() -> None:
    rows = re.findall(rf"^\| `({PREFIX}\w+)` \| `(.*?)` \| (.*) \|$", README, re.MULTILINE)
    fields = Settings.model_fields.items()
    assert rows == [(PREFIX + name.upper(), str(field.default), field.description) for name, field in fields]


def test_every_make_target_named_exists_and_is_in_help() -> None:
    documents = README + "".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md"))
    named = set(re.findall(r"^make ([a-z]+)", CODE, re.MULTILINE)) | set(re.findall(r"`make ([a-z]+)", documents))
    defined = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE))
    assert {"serve", "test", "loadtest", "help"} <= named <= defined


def test_the_curls_are_those_that_the_server_prints() -> None:
    assert [line for line in CODE.splitlines() if line.startswith("curl")] == curls("http://127.0.0.1:8000")


def test_files_that_commands_and_links_name_exist() -> None:
    linked = re.findall(r"\]\((?!http)([^)]+)\)", README)
    uploaded = [part.split("@")[1] for line in CODE.splitlines() for part in shlex.split(line) if part.startswith("image=@")]
    assert [name for name in (*linked, *uploaded) if not (ROOT / name).exists()] == []


def test_the_training_commands_named_are_there_and_all_are_named() -> None:
    own = {"serve", "doctor", "adapters", "keys", "jobs"}
    table = README[README.index("docs/training.md") : README.index("From Python")]
    named = set(re.findall(r"`(?:quickchange )?([a-z-]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))) - own
    assert named == set(COMMANDS)
    pages = README + "".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md"))
    assert set(re.findall(r"^quickchange ([a-z-]+)", pages, re.MULTILINE)) <= {*COMMANDS, *own}


def test_the_subcommands_named_are_there() -> None:
    commands = {command.name for group in app.registered_groups for command in group.typer_instance.registered_commands}  # type: ignore[union-attr]
    assert {"list", "show", "push", "alias", "rm"} <= commands


def test_every_error_code_is_listed_with_its_status() -> None:
    listed = {
        code: int(status)
        for status, codes in re.findall(r"(\d{3}) ((?:`\w+`(?: and )?)+)", README)
        for code in re.findall(r"`(\w+)`", codes)
    }
    unlisted = {"internal", "not_found", "method_not_allowed"}
    assert {code: status for code, status in STATUS.items() if code not in unlisted} == listed
