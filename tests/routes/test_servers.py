"""Several servers on one registry, and a registry that is away."""

from __future__ import annotations

import gc
import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from service.store.bundle import Bundle
from tests.support.problems import assert_problem
from tests.support.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.postgres import Postgres


def until(answer: Callable[[], Any], wanted: Any, seconds: float) -> None:
    """Ask again until the answer is the one wanted; fails with the last one when that takes too long."""
    end = time.monotonic() + seconds
    while (last := answer()) != wanted:
        assert time.monotonic() < end, last
        time.sleep(0.02)


def version(server: Server) -> int | str:
    answer = server.post("/v1/classify", {"text": "a", "adapter": "mood"}).json()
    found: int | str = answer.get("version") or answer["code"]
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def two(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> tuple[Server, Server]:
    """Two servers on one registry and store."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/registry.db"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres()
    return start(registry_url=url), start(registry_url=url)


def test_what_one_server_changes_the_other_serves_within_two_seconds(
    two: tuple[Server, Server], bundles: dict[str, Bundle]
) -> None:
    one, other = two
    one.publish("mood", bundles["irony"])
    until(lambda: version(other), 1, 2)
    other.publish("mood", bundles["irony-2"])
    until(lambda: version(one), 2, 2)
    assert one.client.post("/v1/adapters/mood/aliases/live/rollback").json()["version"] == 1
    until(lambda: version(other), 1, 2)
    assert one.client.delete("/v1/adapters/mood/versions/2").status_code == 204
    memory = other.application.services.lifecycle.residency
    until(lambda: len(memory.device), 1, 2)
    assert_problem(other.post("/v1/classify", {"text": "a", "adapter": "mood:2"}), 410, "adapter_deleted")
    one.client.delete("/v1/adapters/mood/aliases/live")
    until(lambda: version(other), "adapter_not_found", 2)


def test_it_does_not_matter_which_server_a_client_has_asked_before(
    two: tuple[Server, Server], bundles: dict[str, Bundle]
) -> None:
    one, other = two
    for number in range(1, 6):
        made = one.publish("mood", bundles["irony"], "made").json()["version"]
        assert made == number
        assert other.client.put("/v1/adapters/mood/aliases/live", json={"version": number}).status_code == 200
        assert one.client.delete("/v1/adapters/mood/aliases/live").status_code == 204
        assert other.client.delete("/v1/adapters/mood/aliases/made").status_code == 204
        assert other.client.delete(f"/v1/adapters/mood/versions/{number}").status_code == 204


def test_while_the_registry_is_locked_answers_go_on_and_changes_are_503(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start()
    server.publish("mood", bundles["irony"])
    holder = sqlite3.connect(server.adapters / "registry.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        refused = server.client.put("/v1/adapters/mood/aliases/live", json={"version": 1})
        assert_problem(refused, 503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert version(server) == 1
        until(lambda: server.client.get("/health/ready").json()["status"], "degraded", 10)
        assert server.client.get("/health/ready").status_code == 200
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    until(lambda: server.client.get("/health/ready").json(), {"status": "ready", "problems": []}, 10)
    assert server.client.put("/v1/adapters/mood/aliases/live", json={"version": 1}).status_code == 200


@pytest.mark.filterwarnings("ignore:.*unclosed <socket")  # which the driver leaves when nobody answers
def test_while_postgresql_is_dead_answers_go_on_and_all_is_well_when_it_is_back(
    start: Start, bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.support.postgres import Postgres

    with Postgres(tmp_path_factory.mktemp("mortal")) as postgres:
        server = start(registry_url=postgres())
        server.publish("mood", bundles["irony"])
        postgres.kill()
        refused = server.publish("mood", bundles["irony-2"])
        assert_problem(refused, 503, "unavailable")
        assert version(server) == 1
        until(lambda: server.client.get("/health/ready").json()["status"], "degraded", 10)
        postgres.revive()
        until(lambda: server.client.get("/health/ready").json()["status"], "ready", 20)
        assert server.publish("mood", bundles["irony-2"]).json()["version"] == 2
        assert version(server) == 2
    gc.collect()  # of what the driver left, here, where it is expected, rather than in the middle of another test
