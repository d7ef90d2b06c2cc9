"""Which problem a label column makes, and the target of each cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.data import MULTI, PROBLEM_TYPES, REGRESSION, SINGLE, DataError, ReadOptions, TextData, read_text_data


def read(folder: Path, cells: list[Any], **options: Any) -> TextData:
    """Data with one label column of these typed cells."""
    lines = (json.dumps({"text": f"text {number}", "label": cell}) for number, cell in enumerate(cells))
    (folder / "data.jsonl").write_text("\n".join(lines))
    return read_text_data(str(folder / "data.jsonl"), ReadOptions(**options))


def columns(folder: Path, *rows: str, **options: Any) -> TextData:
    """Data with two label columns of these cells."""
    (folder / "data.csv").write_text("text,joy,anger\n" + "".join(f"text,{row}\n" for row in rows))
    return read_text_data(str(folder / "data.csv"), ReadOptions(label_column="joy, anger", **options))


@pytest.mark.parametrize(
    ("cells", "problem_type", "labels", "targets"),
    [
        (["pos", "neg", " pos "], SINGLE, ("neg", "pos"), [1, 0, 1]),
        ([10, 9, 10], SINGLE, ("9", "10"), [1, 0, 1]),
        (["10", "9"], SINGLE, ("9", "10"), [1, 0]),
        (["10", 9, "x"], SINGLE, ("10", "9", "x"), [0, 1, 2]),
        ([1.0, 2.0], SINGLE, ("1", "2"), [0, 1]),
        ([True, False], SINGLE, ("False", "True"), [1, 0]),
        (["1.5", "many"], SINGLE, ("1.5", "many"), [0, 1]),
        ([1.5, 2.0, 3], REGRESSION, ("label",), [1.5, 2.0, 3.0]),
        (["-1.5", "2e3"], REGRESSION, ("label",), [-1.5, 2000.0]),
        ([["b", "a"], [], ["a"]], MULTI, ("a", "b"), [(0, 1), (), (0,)]),
        ([[2, 10], ["2"]], MULTI, ("2", "10"), [(0, 1), (0,)]),
        (["b|a", "a | ", "", "a|a"], MULTI, ("a", "b"), [(0, 1), (0,), (), (0,)]),
    ],
)
def test_the_cells_tell_the_problem(
    tmp_path: Path, cells: list[Any], problem_type: str, labels: tuple[str, ...], targets: list[Any]
) -> None:
    data = read(tmp_path, cells)
    assert (data.problem_type, data.labels, data.splits["train"].labels) == (problem_type, labels, targets)


@pytest.mark.parametrize(
    ("cells", "options", "targets"),
    [
        (["0.5", "1.5"], {"problem_type": SINGLE}, [0, 1]),
        ([1, 2], {"problem_type": REGRESSION}, [1.0, 2.0]),
        ([1, 2], {"problem_type": MULTI}, [(0,), (1,)]),
        (["a|b", "a"], {"problem_type": SINGLE}, [1, 0]),
        (["a;b", "a"], {"label_separator": ";"}, [(0, 1), (0,)]),
        (["a", "b"], {"labels": ("b", "c", "a")}, [2, 0]),
        (["0.5", "1.5"], {"labels": ("1.5", "0.5")}, [1, 0]),
        (["a|b"], {"labels": ("b", "c", "a")}, [(0, 2)]),
    ],
)
def test_options_decide_over_the_cells(tmp_path: Path, cells: list[Any], options: dict[str, Any], targets: list[Any]) -> None:
    data = read(tmp_path, cells, **options)
    assert data.splits["train"].labels == targets
    assert data.labels == options.get("labels", data.labels)


def test_several_columns_are_labels_or_values(tmp_path: Path) -> None:
    flags, values = columns(tmp_path, "1,0", "true,FALSE", "1,1"), columns(tmp_path, "1,0.5", "2,0")
    assert (flags.problem_type, flags.labels, flags.splits["train"].labels) == (MULTI, ("joy", "anger"), [(0,), (0,), (0, 1)])
    assert (values.problem_type, values.labels, values.splits["train"].labels) == (
        REGRESSION,
        ("joy", "anger"),
        [(1, 0.5), (2, 0)],
    )
    assert columns(tmp_path, "1,0", "1,1", labels=("anger", "fear", "joy")).splits["train"].labels == [(2,), (0, 2)]
    assert columns(tmp_path, "1,2", problem_type=REGRESSION).splits["train"].labels == [(1.0, 2.0)]


@pytest.mark.parametrize(
    ("cell", "options", "says"),
    [
        (None, {}, "no label"),
        (" ", {}, "no label"),
        (["a"], {"problem_type": SINGLE}, "a list of labels where one is expected"),
        ("c", {"labels": ("a", "b")}, "label 'c' is not in the mapping; it has a, b"),
        ("a|c", {"labels": ("a", "b")}, "label 'c' is not in the mapping; it has a, b"),
        (None, {"problem_type": MULTI}, "no label"),
        ("n/a", {"problem_type": REGRESSION}, "'n/a' is not a number"),
        ("inf", {"problem_type": REGRESSION}, "'inf' is not a number"),
        ("1_0", {"problem_type": REGRESSION}, "'1_0' is not a number"),
        ("", {"problem_type": REGRESSION}, "no label"),
    ],
)
def test_a_cell_without_a_target_is_named(tmp_path: Path, cell: Any, options: dict[str, Any], says: str) -> None:
    good = 1 if options.get("problem_type") == REGRESSION else "a"
    assert [str(row) for row in read(tmp_path, [good, cell], skip_bad=True, **options).bad] == [f"data.jsonl:2: {says}"]


def test_a_cell_of_several_columns_without_a_target_is_named(tmp_path: Path) -> None:
    data = columns(tmp_path, "1,", "0,2", "1,0", problem_type=MULTI, skip_bad=True)
    assert [row.reason for row in data.bad] == ["no value in the column 'anger'", "'2' in the column 'anger' is neither 0 nor 1"]
    assert data.splits["train"].labels == [(0,)]


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no problem type 'binary'; accepted: auto, {', '.join(PROBLEM_TYPES)}"):
        read(tmp_path, ["a"], problem_type="binary")
    with pytest.raises(DataError, match="the label columns joy, anger hold neither only 0 and 1 nor fractions"):
        columns(tmp_path, "1,2")
    with pytest.raises(DataError, match=f"{SINGLE} takes one label column, not joy, anger"):
        columns(tmp_path, "1,0", problem_type=SINGLE)
    with pytest.raises(DataError, match="the label column 'anger' is not in the mapping; it has joy"):
        columns(tmp_path, "1,0", labels=("joy",))
    with pytest.raises(DataError, match="the mapping names 1 values for 2 label columns"):
        columns(tmp_path, "1,0.5", problem_type=REGRESSION, labels=("joy",))
    with pytest.raises(DataError, match="the mapping has a label twice: a, a"):
        read(tmp_path, ["a"], labels=("a", "a"))


def test_the_digest_knows_every_target(tmp_path: Path) -> None:
    several: list[list[Any]] = [["a|b", "a"], ["a", "a|b"], [0.5, 1.5], [0.5, 1.0], ["a", "b"]]
    assert len({read(tmp_path, cells).digest for cells in several}) == len(several)
