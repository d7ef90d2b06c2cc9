"""What a version takes is given back when it goes, and what one that stays needs to answer: memory alone."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event

from service.store.bundle import Bundle
from service.store.selector import Ref
from service.tasks.residency import Residency
from tests.support.problems import assert_problem
from tests.support.server import Server, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start

OLD = Ref("mood", 1)


def residency(server: Server) -> Residency:
    return server.application.services.lifecycle.residency


def classify(server: Server, selector: str = "mood") -> int:
    return server.post("/v1/classify", {"text": "so it goes", "adapter": selector}).status_code


@pytest.mark.parametrize("place", [0, 1], ids=["this server", "another server"])
def test_memory_and_files_of_a_deleted_version_go_after_its_last_lease(
    start: Start, bundles: dict[str, Bundle], tmp_path: Path, place: int
) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    servers = [start(registry_url=url), start(registry_url=url)]
    servers[0].publish("mood", bundles["irony"])
    wait_until(lambda: classify(servers[1]) == 200)
    servers[0].publish("mood", bundles["irony-2"])
    wait_until(lambda: servers[1].post("/v1/classify", {"text": "a", "adapter": "mood"}).json()["version"] == 2)
    memory = residency(servers[place])
    lease, taken = memory.device.get(OLD), memory.device.bytes
    assert lease is not None and OLD in memory.host
    assert servers[0].client.delete("/v1/adapters/mood/versions/1").status_code == 204
    wait_until(lambda: OLD not in memory.device)
    assert OLD not in memory.host and memory.device.bytes == taken
    assert not (servers[0].adapters / "mood/1").exists()
    del lease
    assert memory.device.bytes < taken and len(memory.device) == 1
    assert_problem(servers[place].post("/v1/classify", {"text": "a", "adapter": "mood:1"}), 410, "adapter_deleted")


def test_a_version_that_is_deleted_before_it_is_kept_is_not_kept(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start()
    registry = server.application.services.lifecycle.registry

    def delete_at_once(*_: object) -> None:
        registry.listeners.remove(delete_at_once)
        registry.delete(OLD)

    registry.listeners.append(delete_at_once)
    assert server.publish("mood", bundles["irony"], None).status_code == 201
    assert OLD not in residency(server) and OLD not in residency(server).host


def test_a_version_that_is_repaired_answers_at_once(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start()
    server.publish("mood", bundles["irony"])
    (server.adapters / "mood/1/adapter_model.safetensors").write_bytes(b"x")
    residency(server).drop(OLD)
    assert classify(server) == 422
    assert server.publish("mood", bundles["irony"]).json()["version"] == 1
    assert classify(server) == 200
    residency(server).drop(OLD)
    assert classify(server) == 200


@contextmanager
def statements() -> Iterator[list[str]]:
    """What databases are asked meanwhile, but for the watchers' looks."""
    found: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if threading.current_thread().name != "watcher":
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_loaded_adapter_answers_without_database_or_disk(start: Start, bundles: dict[str, Bundle]) -> None:
    server = start()
    for name in ("irony", "irony-2"):
        server.publish("mood", bundles[name])
    with statements() as asked:
        split = {"split": {"1": 50, "2": 50}, "shadow": None}
        assert server.client.put("/v1/adapters/mood/aliases/live", json=split).status_code == 200
    assert asked
    shutil.move(server.adapters, server.adapters.with_name("away"))
    with statements() as asked:
        assert {classify(server, selector) for selector in ("mood", "mood@live", "mood:1", "mood:2") * 5} == {200}
    assert asked == []
    shutil.move(server.adapters.with_name("away"), server.adapters)
