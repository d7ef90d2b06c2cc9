"""``quickchange keys``: made, shown once, listed, revoked; and nothing of a key in what a server logs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.routes.keys import DELETE, PREDICT, READ, WRITE, hashed, read_keys
from tests.support.keys import bearer
from tests.support.server import wait_until

SERVE = [sys.executable, "-c", "from service.cli import app; app()", "serve"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def keys(*arguments: str, file: Path) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "QUICKCHANGE_API_KEYS_FILE": str(file)})
    return runner.invoke(app, ["keys", *arguments])


def fails(result: Result, *said: str) -> None:
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: "), result.stderr
    for part in said:
        assert part in result.stderr, result.stderr


def test_a_key_is_made_once_shown_once_and_kept_as_a_hash(file: Path) -> None:
    made = keys("add", "ann", "--scope", WRITE, "--scope", DELETE, file=file)
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert len(key) >= 43 and key not in file.read_text() and key not in made.stderr
    assert f"key {hashed(key)[:8]} of ann" in made.stderr
    options = ("--prefix", "acme-", "--rate", "50", "--concurrency", "8", "--file", str(file))
    assert keys("add", "bob", "--scope", PREDICT, *options, file=Path("elsewhere")).stdout.strip() != key
    ann, bob = read_keys(file)
    assert (ann.owner, ann.scopes, ann.prefix, ann.rate, ann.concurrency) == ("ann", frozenset({WRITE, DELETE}), "", None, None)
    assert (bob.owner, bob.scopes, bob.prefix, bob.rate, bob.concurrency) == ("bob", frozenset({PREDICT}), "acme-", 50, 8)


def test_what_cannot_be_added_is_one_line(file: Path) -> None:
    fails(keys("add", "eve", "--scope", "everything", file=file), "scope 'everything'", READ)
    fails(keys("add", "two words", "--scope", WRITE, file=file), "two words")
    fails(keys("add", "eve", "--scope", WRITE, "--rate", "-1", file=file), "rate '-1'")
    fails(keys("add", "eve", "--scope", WRITE, "--prefix", "A b", file=file), "prefix 'A b'")
    fails(keys("add", "eve", "--scope", WRITE, file=file / "below"), "below", "QUICKCHANGE_API_KEYS_FILE")
    assert not file.exists()
    assert keys("add", "eve", file=file).exit_code == 2


def test_keys_are_listed_by_their_ids_and_never_by_their_hashes(file: Path) -> None:
    fails(keys("list", file=file), "no readable file there")
    key = keys("add", "ann", "--scope", READ, "--scope", PREDICT, "--prefix", "acme-", "--rate", "0.5", file=file).stdout.strip()
    keys("add", "[red]", "--scope", WRITE, file=file)
    shown = keys("list", file=file)
    assert re.search(rf"{hashed(key)[:8]}.*ann.*adapters:read, predict.*acme-.*0\.5", shown.stdout)
    assert "[red]" in shown.stdout
    listed = keys("list", "--json", file=file)
    assert json.loads(listed.stdout)[0] == {
        "id": hashed(key)[:8], "owner": "ann", "scopes": [READ, PREDICT], "prefix": "acme-", "rate": 0.5, "concurrency": None,
    }  # fmt: skip
    assert hashed(key) not in shown.stdout + listed.stdout


def test_a_key_is_revoked_by_its_id_and_an_owner_by_name(file: Path) -> None:
    made = [keys("add", owner, "--scope", READ, file=file).stdout.strip() for owner in ("ann", "bob", "bob", "eve")]
    fails(keys("revoke", "nobody", file=file), "no key 'nobody'", "(eve)")
    assert f"revoked {hashed(made[0])[:8]} of ann: adapters:read" in keys("revoke", hashed(made[0])[:8], file=file).stdout
    assert keys("revoke", "bob", file=file).stdout.count("revoked ") == 2
    assert [key.owner for key in read_keys(file)] == ["eve"]
    assert keys("revoke", "eve", file=file).exit_code == 0
    assert read_keys(file) == ()


def test_every_command_has_help(file: Path) -> None:
    for command in ([], ["add"], ["list"], ["revoke"]):
        result = keys(*command, "--help", file=file)
        assert result.exit_code == 0 and len(result.stdout) > 100


def test_the_commands_need_no_framework() -> None:
    loaded = "import sys, service.cli_keys; print(sorted({'litestar', 'torch', 'uvicorn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_nothing_of_a_key_is_logged_at_any_level_and_revoking_takes_effect(tiny_base: Path, file: Path, tmp_path: Path) -> None:
    made = {scope: keys("add", scope.replace(":", "-"), "--scope", scope, file=file).stdout.strip() for scope in (READ, WRITE)}
    flags = ("--base-model", str(tiny_base), "--adapters-dir", str(tmp_path / "adapters"), "--port", "0", "--log-level", "debug")
    log = tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen([*SERVE, *flags, "--api-keys-file", str(file)], stdout=out, stderr=subprocess.STDOUT) as running,
    ):
        try:
            wait_until(lambda: "Ctrl-C" in log.read_text(), 60)
            found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
            assert found
            with httpx.Client(base_url=found[0]) as client:
                wait_until(lambda: client.get("/v1/adapters", headers=bearer(made[READ])).status_code == 200)
                assert client.get("/v1/adapters", headers=bearer(made[WRITE])).status_code == 403
                assert client.put("/v1/adapters/x/aliases/live", json={}, headers=bearer(made[WRITE])).status_code == 400
                assert client.get("/v1/adapters", headers=bearer("never-given-1x")).status_code == 401
                assert keys("revoke", "adapters-read", file=file).exit_code == 0
                wait_until(lambda: client.get("/v1/adapters", headers=bearer(made[READ])).status_code == 401, 1)
        finally:
            running.terminate()
            running.wait(30)
    told = log.read_text()
    assert "API keys were read again: 1" in told
    secrets = [*made.values(), *map(hashed, made.values()), "never-given-1x"]
    assert not [secret for secret in secrets if secret in told]
