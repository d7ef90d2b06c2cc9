"""The table of faults: every row of every part, and a part that breaks off is lost and hides no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from tests.chaos import __main__ as chaos
from tests.chaos.parts import PARTS, Part, Say
from tests.chaos.rows import Row

ROWS = [Row("a fault", 3, 0, "nothing"), Row("another", 1200, 0, "much")]


def fine(scratch: Path, say: Say) -> list[Row]:
    say("on the way")
    assert list(scratch.iterdir()) == []
    return ROWS


def broken(_scratch: Path, _say: Say) -> list[Row]:
    raise OSError("no room")


@pytest.mark.parametrize(("part", "code"), [(fine, 0), (broken, 1)])
def test_the_table_has_every_row_and_the_exit_code_says_whether_anything_was_lost(
    part: Part, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PARTS, "one", part)
    monkeypatch.setitem(PARTS, "two", fine)
    with pytest.raises(typer.Exit) as ended:
        chaos.main("one,two", tmp_path / "found.json")
    assert ended.value.exit_code == code
    found = [Row(**row) for row in json.loads((tmp_path / "found.json").read_text("utf-8"))]
    assert found == [*(ROWS if part is fine else [Row("one", 1, 1, "broke off: OSError: no room")]), *ROWS]
    said = capsys.readouterr().out
    assert "1,200" in said and "… on the way" in said and (code == 0 or "no room" in said)


def test_an_unknown_part_is_named_with_those_that_there_are() -> None:
    with pytest.raises(typer.BadParameter, match="floods; accepted: kills, kills-postgres, disk"):
        chaos.main("disk,floods")
