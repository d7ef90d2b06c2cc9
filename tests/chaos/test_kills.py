"""kill -9 at some of the steps, and that a step more or less is noticed: ``make chaos`` tries them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.changes import ADAPTERS, CHANGES, begin, bundle
from tests.chaos.kills import Place, Victims, check_copy, check_files, kills
from tests.chaos.victim import Task


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as running:
        yield running


def test_whatever_dies_at_some_steps_of_every_change_nothing_is_half_done(victims: Victims, tmp_path: Path) -> None:
    rows = kills(victims, tmp_path, every=16, moments=0)
    assert [row for row in rows if row.lost] == []
    assert len(rows) == len(CHANGES) and all(row.tried >= 2 for row in rows)


def test_the_steps_are_those_of_the_files_and_of_the_database(victims: Victims, tmp_path: Path) -> None:
    with Place(tmp_path).open() as registry:
        begin(registry, tmp_path)
    whole = victims(Task("publish", str(tmp_path)))
    assert (whole.killed, whole.steps[-1]) == (False, "after the answer") and whole.seconds
    steps = [f"before create mood/5/{file}" for file in bundle(b"").contents]
    found = [step for step in whole.steps if step in (*steps, "before commit", "after commit")]
    assert found == [*steps, "before commit", "after commit"]
    killed = victims(Task("delete", str(tmp_path), at=6))
    assert (killed.killed, killed.seconds, killed.steps[-1]) == (True, None, "before commit")
    assert victims(Task("delete", str(tmp_path), after=1e-4)).killed


def test_what_lies_about_or_has_been_forgotten_is_noticed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.open() as registry:
        begin(registry, tmp_path)
        check_files(place, registry)
        check_copy(place, registry, tmp_path)
        stray = tmp_path / ADAPTERS / "mood/1/.incoming-manifest.json"
        stray.write_text("{")
        with pytest.raises(AssertionError, match="left over"):
            check_files(place, registry)
        stray.unlink()
        (tmp_path / ADAPTERS / "mood/registry.json").unlink()
        with pytest.raises(AssertionError, match="the files tell something else"):
            check_copy(place, registry, tmp_path)
