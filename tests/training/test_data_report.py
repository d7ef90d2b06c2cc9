"""The report on a data set: each figure of a made-up one, and the command that prints it without a text of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoTokenizer
from typer import Typer
from typer.testing import CliRunner, Result

from training import inspect_data
from training.data import MULTI, REGRESSION, BadRow, Split, TextData
from training.data_report import DataReport, normalised, report_on


def words(count: int) -> str:
    return " ".join(["word"] * count)


def report(tiny_base: Path, data: TextData, max_length: int = 8) -> DataReport:
    return report_on(data, AutoTokenizer.from_pretrained(tiny_base), max_length)


def shown(made: DataReport) -> str:
    """What a terminal shows of it, with single spaces and no lines of tables."""
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(made.table())
    return " ".join(captured.get().replace("│", " ").split())


def single() -> TextData:
    train = ["Alpha  beta", "alpha beta", "gamma", "delta", words(6), words(7), "\u200b", "epsilon"]
    test = ["ALPHA BETA", "gamma", "new"]
    splits = {"train": Split(train, [0, 1, 0, 0, 0, 0, 0, 0], [2, 3, 4, 6, 7, 8, 9, 10]), "test": Split(test, [0, 1, 1])}
    return TextData(("no", "yes"), splits, bad=(BadRow("train", 5, "empty text", "a.csv:5"),))


def test_classes_lengths_and_truncation_of_each_split(tiny_base: Path) -> None:
    made = report(tiny_base, single())
    train, test = made.splits["train"], made.splits["test"]
    assert (train.rows, test.rows) == (8, 3)
    assert (train.classes, test.classes) == ({"no": 7, "yes": 1}, {"no": 1, "yes": 2})
    assert train.lengths["max"] == 9 and train.lengths["p90"] == 9 and test.lengths["p50"] == 3
    assert (train.truncated, test.truncated) == (1, 0)  # six words and the two special tokens fit into eight, seven do not
    assert (train.tokenless, test.tokenless) == (1, 0)


def test_duplicates_and_conflicts_within_and_across_splits(tiny_base: Path) -> None:
    made = report(tiny_base, single())
    assert (made.splits["train"].duplicates, made.splits["test"].duplicates) == (1, 0)
    assert made.shared == {"train/test": 2}
    assert (made.conflicts, made.conflict_rows) == (2, 5)
    assert made.conflict_places == ("train:2", "train:3", "train:4", "test:1", "test:2")


def test_texts_are_compared_without_case_spaces_and_width() -> None:
    assert normalised(" Ｓｔｒａßｅ\n A ") == normalised("STRASSE a")
    assert normalised("a b") != normalised("ab")


def test_remarks_say_what_to_look_into(tiny_base: Path) -> None:
    remarks = report(tiny_base, single()).remarks()
    assert remarks == [
        "1 row cannot be used; training stops there unless --skip-bad: a.csv:5: empty text",
        "no validation split: training holds out a tenth of the training split",
        "2 rows of test with a text that train has too: figures on test flatter",
        "5 rows with a text that has different labels: train:2, train:3, train:4, test:1, test:2",
        "12.5% of train are cut at 8 tokens; 9 would keep 99% whole",
        "1 row of train without a token",
        "1 row of train with a text that it has before",
    ]


def test_labels_that_are_rare_or_never_seen_are_remarked(tiny_base: Path) -> None:
    def about(labels: list[int]) -> str:
        split = Split([f"text {i}" for i in range(len(labels))], labels)
        return report(tiny_base, TextData(("a", "b"), {"train": split, "validation": split})).remarks()[-1]

    assert about([0] * 10 + [1]) == "the most frequent label has 10 times the rows of the rarest; --class-weights evens that out"
    assert about([0, 0]) == "no training row has the label b"
    assert "rows of validation with a text that train has too" in about([0] * 9 + [1])


def test_multi_label_data_counts_every_label_and_rows_without(tiny_base: Path) -> None:
    made = report(tiny_base, TextData(("a", "b"), {"train": Split(["x", "y", "z"], [(0, 1), (), (1,)])}, MULTI))
    assert (made.splits["train"].classes, made.splits["train"].without_label) == ({"a": 1, "b": 2}, 1)
    assert "a 1 (33.3%) b 2 (66.7%) no label 1 (33.3%)" in shown(made)


def test_regression_data_has_the_spread_of_each_value(tiny_base: Path) -> None:
    one = report(tiny_base, TextData(("stars",), {"train": Split(["x", "y"], [1.0, 4.0]), "test": Split([], [])}, REGRESSION))
    assert one.splits["train"].values == {"stars": {"mean": 2.5, "std": 1.5, "min": 1.0, "max": 4.0}}
    assert "stars 2.5 ± 1.5, 1 to 4 –" in shown(one) and "the split test is empty" in shown(one)
    two = report(tiny_base, TextData(("a", "b"), {"train": Split(["x", "y"], [(0.0, 2.0), (1.0, 2.0)])}, REGRESSION))
    assert two.splits["train"].values["b"] == {"mean": 2.0, "std": 0.0, "min": 2.0, "max": 2.0}


def inspect(*arguments: str) -> Result:
    app = Typer()
    app.command()(inspect_data.main)
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, list(arguments))


@pytest.fixture
def file(tmp_path: Path) -> str:
    rows = ["text,label", "a secret,no", "a secret,yes", ",no", "more secrets,no"]
    (tmp_path / "data.csv").write_text("\n".join(rows))
    return str(tmp_path / "data.csv")


def test_the_command_prints_the_report_and_no_text(file: str, tiny_base: Path) -> None:
    result = inspect(file, "--base-model", str(tiny_base))
    assert result.exit_code == 0, result.output
    for part in (
        "rows",
        "2 (66.7%)",
        "data.csv:4: empty text",
        "2 rows with a text that has different labels: train:2, train:3",
    ):
        assert part in result.stdout, result.stdout
    assert "secret" not in result.output


def test_the_command_prints_json_and_nothing_else(file: str, tiny_base: Path) -> None:
    result = inspect(file, "--base-model", str(tiny_base), "--json")
    found = json.loads(result.stdout)
    assert found["splits"]["train"]["classes"] == {"no": 2, "yes": 1}
    assert found["bad"] == [{"split": "train", "line": 4, "reason": "empty text", "place": "data.csv:4"}]
    assert len(found["remarks"]) == 4 and "secret" not in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--text-column", "body"], "no column body; it has text, label: name one by --text-column"),
        (["--problem-type", "binary"], "no problem type 'binary'; accepted: auto, single_label_classification"),
        (["--base-model", "./nowhere"], "--base-model=./nowhere: no model there"),
    ],
)
def test_the_command_ends_in_one_line(file: str, arguments: list[str], says: str) -> None:
    result = inspect(file, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert says in result.stderr


def test_the_command_reads_as_it_is_told(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "data.csv").write_text("body,kind\nx,a;b\ny,c\n")
    columns = ("--text-column", "body", "--label-column", "kind", "--label-separator", ";", "--labels", "b, a")
    found = json.loads(inspect(str(tmp_path / "data.csv"), *columns, "--base-model", str(tiny_base), "--json").stdout)
    assert (found["problem_type"], found["labels"], found["splits"]["train"]["rows"]) == (MULTI, ["b", "a"], 1)
