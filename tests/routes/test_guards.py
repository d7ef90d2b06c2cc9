"""API keys: who may change adapters, and that a key shows up nowhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.app import create_app
from service.errors import StartupError
from service.routes.guards import DELETE, WRITE, key_line, read_keys
from service.settings import Settings
from service.store.bundle import Bundle
from tests.support.problems import assert_problem
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.conftest import Start

WRITER, DELETER = "writer-key-hQ3x", "deleter-key-9vTz"
SECRETS = (WRITER, DELETER)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    lines = ["# who may what", "", key_line("ann", WRITER, frozenset({WRITE})), key_line("bob", DELETER, frozenset({DELETE}))]
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def locked(start: Start, keys: Path) -> Server:
    """A server on this machine's own address, with keys."""
    return start(api_keys_file=keys)


def test_changing_needs_a_key_that_somebody_was_given(locked: Server, bundles: dict[str, Bundle]) -> None:
    before = locked.tree()
    for headers in ({}, bearer("wrong"), {"authorization": f"Basic {WRITER}"}, {"authorization": WRITER}):
        calls = [
            locked.publish("irony", bundles["irony"], headers=headers),
            locked.client.put("/v1/adapters/irony/aliases/live", json={"version": 1}, headers=headers),
            locked.client.delete("/v1/adapters/irony/aliases/live", headers=headers),
            locked.client.delete("/v1/adapters/irony/versions/1", headers=headers),
        ]
        for response in calls:
            assert_problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
    assert locked.tree() == before


def test_a_key_does_only_what_its_scope_says(locked: Server, bundles: dict[str, Bundle]) -> None:
    assert locked.publish("irony", bundles["irony"], headers=bearer(WRITER)).status_code == 201
    assert locked.publish("irony", bundles["irony-2"], headers=bearer(WRITER)).status_code == 201
    version = "/v1/adapters/irony/versions/1"
    assert_problem(locked.client.delete(version, headers=bearer(WRITER)), 403, "forbidden", "adapters:delete")
    assert_problem(locked.publish("x", bundles["irony"], headers=bearer(DELETER)), 403, "forbidden", "adapters:write")
    assert locked.client.delete(version, headers=bearer(DELETER)).status_code == 204


def test_reading_and_predicting_stay_open_on_loopback(locked: Server, bundles: dict[str, Bundle]) -> None:
    locked.publish("sentiment", bundles["sentiment"], headers=bearer(WRITER))
    assert locked.client.get("/v1/adapters").status_code == 200
    assert locked.post("/v1/sentiment", {"text": "a"}).status_code == 200


def test_on_a_public_address_everything_but_probes_and_the_page_needs_some_key(start: Start, keys: Path) -> None:
    public = start(host="0.0.0.0", api_keys_file=keys)
    for path in ("/v1/adapters", "/v1/models", "/metrics"):
        assert_problem(public.client.get(path), 401, "unauthorized")
        assert public.client.get(path, headers=bearer(DELETER)).status_code == 200
    assert_problem(public.post("/v1/sentiment", {"text": "a"}), 401, "unauthorized")
    assert_problem(public.post("/v1/sentiment", {"text": "a"}, headers=bearer(WRITER)), 404, "adapter_not_found")
    for path in ("/health/live", "/health/ready"):
        assert public.client.get(path).status_code == 200


def test_a_key_is_never_logged_nor_answered_nor_measured(
    locked: Server, bundles: dict[str, Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        answers = [
            locked.publish("irony", bundles["irony"], headers=bearer(WRITER)),
            locked.client.delete("/v1/adapters/irony/versions/1", headers=bearer(DELETER)),
            locked.client.delete("/v1/adapters/irony/versions/1", headers=bearer(WRITER)),
            locked.client.put("/v1/adapters/irony/aliases/live", json={"version": 9}, headers=bearer(WRITER)),
            locked.client.get("/metrics", headers=bearer(WRITER)),
        ]
    told = caplog.text + "".join(answer.text + str(answer.headers) for answer in answers)
    assert not [key for key in SECRETS if key in told]


def test_without_keys_a_public_address_is_refused_unless_told_so(tiny_base: Path, start: Start, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^QUICKCHANGE_HOST=0\.0\.0\.0 is reachable .*--insecure"):
        create_app(Settings(host="0.0.0.0", base_model=str(tiny_base), adapters_dir=tmp_path))
    assert start(host="0.0.0.0", insecure=True).client.get("/v1/adapters").status_code == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "no key in it"), ("# only a comment", "no key in it"), ("ann secret adapters:write", "line 1"), ("ann", "line 1"),
     (f"ok {'0' * 64} adapters:write\nann {'0' * 64} adapters:fly", "line 2"), (f"ann {'0' * 63}X adapters:write", "line 1")],
)  # fmt: skip
def test_a_keys_file_that_cannot_be_read_ends_start_up_without_showing_a_key(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(StartupError, match=said) as caught:
        read_keys(file)
    assert "secret" not in str(caught.value)


def test_a_missing_keys_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"QUICKCHANGE_API_KEYS_FILE=.*nothing-here"):
        read_keys(tmp_path / "nothing-here")
    with pytest.raises(StartupError, match="QUICKCHANGE_API_KEYS_FILE"):
        read_keys(tmp_path)
