"""``make chaos`` in small: the same clients and writers, for seconds, and that they notice what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chaos.republish import RATE, Republish
from tests.chaos.writers import WRITERS, Writers
from tests.soak.recognisable import Maker, Version

if TYPE_CHECKING:
    from tests.conftest import Start


def test_an_adapter_that_changes_under_traffic_answers_every_request_rightly(start: Start, maker: Maker) -> None:
    republish = Republish(start().port, maker)
    row = republish.run(3.0)
    assert (row.tried, row.lost) == (3 * RATE, 0), row.detail
    assert set(republish.count.statuses) == {200, 410} and republish.count.rounds > 1


class Mistaken(Maker):
    """Takes the answers of every version for those of the next."""

    def __init__(self, right: Maker) -> None:
        self._right = right

    def version(self, name: str, serial: int) -> tuple[Version, dict[str, bytes]]:
        return self._right.version(name, serial + 1)[0], self._right.version(name, serial)[1]


def test_wrong_answers_under_traffic_are_counted(start: Start, maker: Maker) -> None:
    republish = Republish(start().port, Mistaken(maker))
    row = republish.run(0.3)
    assert row.lost >= republish.count.answers > 0 and "labels" in row.detail


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_sixteen_writers_at_two_servers_lose_nothing(
    kind: str, start: Start, maker: Maker, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    if kind == "postgresql":
        new: Callable[[], str] = request.getfixturevalue("postgres")
        url = new()
    row = Writers([start(registry_url=url).port, start(registry_url=url).port], maker).run("writers", moves=1)
    assert (row.tried, row.lost) == (2 * WRITERS, 0), row.detail


def test_what_writers_lose_is_counted(start: Start, maker: Maker, tmp_path: Path) -> None:
    """Two servers that do not share their registry."""
    ports = [start(registry_url=f"sqlite:///{tmp_path}/{name}.db", store_url=str(tmp_path / name)).port for name in "ab"]
    row = Writers(ports, maker, seen=0.1).run("writers", moves=1)
    assert row.lost > 3 and "aliases" in row.detail and "generations won" in row.detail
