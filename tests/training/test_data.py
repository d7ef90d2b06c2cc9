"""Text data in every accepted form, and what unusable data says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pandas as pd
import pytest

from training.data import MULTI, REGRESSION, DataError, ReadOptions, Split, TextData, load_text_data, read_text_data

ROWS = [(f"sentence number {i}", ("bad", "good")[i % 2]) for i in range(40)]


def as_csv(folder: Path) -> Path:
    pd.DataFrame(ROWS, columns=["text", "label"]).to_csv(folder / "data.csv", index=False)
    return folder / "data.csv"


def as_tsv(folder: Path) -> Path:
    pd.DataFrame(ROWS, columns=["sentence", "class"]).to_csv(folder / "data.tsv", index=False, sep="\t")
    return folder / "data.tsv"


def as_jsonl(folder: Path) -> Path:
    (folder / "data.jsonl").write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))
    return folder / "data.jsonl"


def as_json(folder: Path) -> Path:
    (folder / "data.json").write_text(json.dumps([{"text": text, "label": label} for text, label in ROWS], indent=1))
    return folder / "data.json"


def as_parquet(folder: Path) -> Path:
    pd.DataFrame(ROWS, columns=["text", "label"]).to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def as_tweeteval(folder: Path, train: int = 36) -> Path:
    (folder / "mapping.txt").write_text("0\tbad\n1\tgood\n")
    for split, rows in (("train", ROWS[:train]), ("val", ROWS[36:])):
        (folder / f"{split}_text.txt").write_text("".join(f"{text}\n" for text, _ in rows))
        (folder / f"{split}_labels.txt").write_text("".join(f"{int(label == 'good')}\n" for _, label in rows))
    return folder


def rows_of(data: TextData) -> list[tuple[str, str]]:
    """Every text and its label, sorted."""
    return sorted(
        (text, data.labels[label])
        for split in data.splits.values()
        for text, label in zip(split.texts, split.labels, strict=True)
    )


@pytest.mark.parametrize("make", [as_csv, as_tsv, as_jsonl, as_json, as_parquet, as_tweeteval])
def test_every_form_gives_the_same_rows(make: Callable[[Path], Path], tmp_path: Path) -> None:
    data = load_text_data(str(make(tmp_path)))
    assert data.labels == ("bad", "good")
    assert rows_of(data) == sorted(ROWS)
    assert len(data.splits["validation"]) == 4


def test_the_held_out_tenth_depends_on_the_seed_alone(tmp_path: Path) -> None:
    source = str(as_csv(tmp_path))
    assert load_text_data(source, seed=1).digest == load_text_data(source, seed=1).digest
    assert load_text_data(source, seed=1).digest != load_text_data(source, seed=2).digest


def test_a_folder_with_a_file_per_split_keeps_its_splits(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:30]), ("dev", ROWS[30:35]), ("test", ROWS[35:])):
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / f"{name}.csv", index=False)
    assert {name: len(split) for name, split in load_text_data(str(tmp_path)).splits.items()} == {
        "train": 30,
        "validation": 5,
        "test": 5,
    }


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    folder = as_tweeteval(tmp_path)
    lines = (folder / "train_text.txt").read_text().split("\n")
    (folder / "train_text.txt").write_text("\n".join(["one\u2028tweet\x85still", *lines[1:]]))
    assert load_text_data(str(folder)).splits["train"].texts[0] == "one\u2028tweet\x85still"


def test_rows_that_cannot_be_used_stop_the_reading_or_are_left_out_and_kept_in_mind(tmp_path: Path) -> None:
    folder = as_tweeteval(tmp_path)
    lines = (folder / "train_text.txt").read_text().split("\n")
    (folder / "train_text.txt").write_text("\n".join(["  ", *lines[1:]]))
    with pytest.raises(DataError, match=r"1 row cannot be used; .* --skip-bad\n  train_text\.txt:1: empty text$"):
        load_text_data(str(folder))
    data = load_text_data(str(folder), ReadOptions(skip_bad=True))
    assert (len(data.splits["train"]), data.splits["train"].lines[0]) == (35, 2)
    assert [(row.split, row.line, row.reason) for row in data.bad] == [("train", 1, "empty text")]


def test_only_the_first_of_many_unusable_rows_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        load_text_data(write(tmp_path, "a.csv", "text,label\n" + ",x\n" * 30))
    lines = str(refused.value).split("\n")
    assert "30 rows cannot be used" in lines[0] and lines[1:3] == ["  a.csv:2: empty text", "  a.csv:3: empty text"]
    assert len(lines) == 12 and lines[-1] == "  and 20 more"


def write(folder: Path, name: str, content: str) -> str:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(content, newline="")
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.csv",
            "words,label\nx,1\n",
            "no column text or sentence or tweet or content; it has words, label: name one by --text",
        ),
        ("a.csv", "text,kind\nx,1\n", "no column label or labels or class or target or score; it has text, kind"),
        ("a.csv", "text,label,label\nx,1,1\n", "the column label is there 2 times"),
        ("a.csv", "text,label\nx,1\ny,1\n", "only one label in the training split, '1'; at least two are needed"),
        ("a.csv", "text,label\nx,0.5\ny,0.5\n", "only one value in the training split, '0.5'; at least two are needed"),
        ("a.csv", "text,label\nx,1\ny,2\n", "2 training rows cannot be split into training and validation; bring a validation"),
        ("a.csv", "text,label\n", "the split 'train' is empty"),
        ("a.csv", "", "the file is empty; its first line names the columns"),
        ("a.jsonl", "\n\n", "the file is empty"),
        ("a.json", '[{"text": "x",\n "label"}]', "a.json:2: not JSON; expected an array of objects, or an object a line"),
        ("a.parquet", "text,label\n", "not a Parquet file, or a damaged one"),
        ("a.txt", "x", "cannot read .txt; accepted: .csv, .tsv, .jsonl, .json, .parquet"),
        ("a.csv", 'text,label\n"x" y,1\n', "a.csv:2: text after a closing quote"),
    ],
)
def test_unusable_data_says_what_was_found_and_what_is_accepted(tmp_path: Path, name: str, content: str, says: str) -> None:
    with pytest.raises(DataError) as refused:
        load_text_data(write(tmp_path, name, content))
    assert says in str(refused.value)


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data in that folder; accepted: \.csv, .* LABEL/\*\.txt"):
        load_text_data(str(tmp_path))
    write(tmp_path, "test.csv", "text,label\nx,1\n")
    with pytest.raises(DataError, match="no training split; found test"):
        load_text_data(str(tmp_path))
    write(tmp_path, "train.csv", "text,label\nx,1\n")
    write(tmp_path, "train.jsonl", "{}")
    with pytest.raises(DataError, match=r"the split 'train' is there twice: train\.csv and train\.jsonl"):
        load_text_data(str(tmp_path))


def test_every_split_must_have_the_columns(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", "text,label\nx,1\ny,2\n")
    write(tmp_path, "test.csv", "text,klass\nx,1\n")
    with pytest.raises(DataError, match=r"no column label .* it has text, klass"):
        load_text_data(str(tmp_path))


def test_texts_in_a_folder_per_label_are_rows(tmp_path: Path) -> None:
    for split, rows in (("train", ROWS[:30]), ("test", ROWS[30:])):
        for number, (text, label) in enumerate(rows):
            write(tmp_path, f"split/{split}/{label}/{number}.txt", text + "\n")
            write(tmp_path, f"plain/{label}/{split}{number}.txt", text)
    divided, plain = load_text_data(str(tmp_path / "split")), load_text_data(str(tmp_path / "plain"))
    assert divided.labels == plain.labels == ("bad", "good")
    assert {name: len(part) for name, part in divided.splits.items()} == {"test": 10, "train": 27, "validation": 3}
    assert {name: len(part) for name, part in plain.splits.items()} == {"train": 36, "validation": 4}
    assert rows_of(plain) == sorted(ROWS)
    write(tmp_path, "plain/good/train1.txt", " ")
    with pytest.raises(DataError, match=r"  good/train1\.txt: empty text"):
        load_text_data(str(tmp_path / "plain"))


def test_a_label_that_is_not_in_the_mapping_is_named(tmp_path: Path) -> None:
    folder = as_tweeteval(tmp_path)
    labels = (folder / "train_labels.txt").read_text()
    (folder / "train_labels.txt").write_text("9" + labels[1:])
    with pytest.raises(DataError, match=r"train_text\.txt:1: label '9' is not in mapping\.txt; it has 0, 1"):
        load_text_data(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("val_labels.txt", "0\n", "4 texts but 1 labels in the split 'val'"),
        ("val_labels.txt", None, "val_labels.txt: no such file; it holds the label's number of each line of val_text.txt"),
        ("mapping.txt", None, "mapping.txt: no such file; it holds a label's number, a tab and its name"),
        ("mapping.txt", "0\tbad\n1 good\n", "mapping.txt:2: expected a label's number, a tab and its name"),
    ],
)
def test_a_tweeteval_folder_that_does_not_fit_together_is_refused(
    tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    folder = as_tweeteval(tmp_path)
    (folder / name).unlink() if content is None else write(folder, name, content)
    with pytest.raises(DataError) as refused:
        load_text_data(str(folder))
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["nobody/no-such-set", "nobody", "no-such-file.csv", "./nothing", "a/b/c"])
def test_a_source_that_is_nowhere_is_one_line(name: str) -> None:
    with pytest.raises(DataError, match=r"no such file or folder.*accepted: .* or a hub name such as OWNER/NAME") as refused:
        load_text_data(name)
    assert "\n" not in str(refused.value)


class Hub:
    """What ``datasets.load_dataset`` does, for one data set that needs no network."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, name: str, configuration: str | None) -> datasets.DatasetDict:
        self.asked.append((name, configuration))
        kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad"])})
        rows = {"text": [text for text, _ in ROWS], "label": [int(label == "bad") for _, label in ROWS]}
        unlabelled = {"text": ["one", "two"], "label": [-1, 0]}
        return datasets.DatasetDict(
            train=datasets.Dataset.from_dict(rows, features=kinds), test=datasets.Dataset.from_dict(unlabelled, features=kinds)
        )


def test_a_data_set_of_a_hub_brings_the_names_of_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(datasets, "load_dataset", hub)
    data = read_text_data("owner/name:english", ReadOptions(skip_bad=True))
    assert hub.asked == [("owner/name", "english")]
    assert data.labels == ("good", "bad") and rows_of(data) == sorted([*ROWS, ("two", "good")])
    assert [str(row) for row in data.bad] == ["test, row 1: no label"]


def test_splits_can_be_read_as_they_are(tmp_path: Path) -> None:
    data = read_text_data(write(tmp_path, "a.csv", "text,label\nx,1\ny,1\n"))
    assert data.splits == {"train": Split(["x", "y"], [0, 0], [2, 3])}


def test_what_is_held_out_has_every_label_alike_and_keeps_its_lines(tmp_path: Path) -> None:
    data = load_text_data(str(as_csv(tmp_path)))
    assert sorted(data.splits["validation"].labels) == [0, 0, 1, 1]
    for split in data.splits.values():
        assert [ROWS[line - 2][0] for line in split.lines] == split.texts


@pytest.mark.parametrize(("cells", "problem_type"), [(["a|b", "a", ""], MULTI), (["0.5", "1.5", "3"], REGRESSION)])
def test_other_problems_hold_out_a_tenth_at_random(tmp_path: Path, cells: list[str], problem_type: str) -> None:
    rows = "".join(f"text {i},{cells[i % 3]}\n" for i in range(30))
    data = load_text_data(write(tmp_path, "a.csv", f"text,label\n{rows}"), seed=3)
    assert data.problem_type == problem_type
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 27, "validation": 3}
    assert data.digest == load_text_data(str(tmp_path / "a.csv"), seed=3).digest
    assert data.digest != load_text_data(str(tmp_path / "a.csv"), seed=4).digest


def test_labels_that_no_row_has_are_refused_in_multi_label_data(tmp_path: Path) -> None:
    source = write(tmp_path, "a.csv", "text,a,b\n" + "x,0,0\n" * 5)
    with pytest.raises(DataError, match="no row of the training split has a label"):
        load_text_data(source, ReadOptions(label_column="a,b"))
