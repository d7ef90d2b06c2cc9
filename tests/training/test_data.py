"""Text data in every accepted form, and what unusable data says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from training.data import DataError, load_text_data

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


def as_parquet(folder: Path) -> Path:
    pd.DataFrame(ROWS, columns=["text", "label"]).to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def as_tweeteval(folder: Path, train: int = 36) -> Path:
    (folder / "mapping.txt").write_text("0\tbad\n1\tgood\n")
    for split, rows in (("train", ROWS[:train]), ("val", ROWS[36:])):
        (folder / f"{split}_text.txt").write_text("".join(f"{text}\n" for text, _ in rows))
        (folder / f"{split}_labels.txt").write_text("".join(f"{int(label == 'good')}\n" for _, label in rows))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("make", [as_csv, as_tsv, as_jsonl, as_parquet, as_tweeteval])
def test_every_form_gives_the_same_rows(make: Callable[[Path], Path], tmp_path: Path) -> None:
    data = load_text_data(str(make(tmp_path)))
    assert data.labels == ("bad", "good")
    found = [
        (text, data.labels[label])
        for split in data.splits.values()
        for text, label in zip(split.texts, split.labels, strict=True)
    ]
    assert sorted(found) == sorted(ROWS)
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


def test_empty_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = as_tweeteval(tmp_path)
    lines = (folder / "train_text.txt").read_text().split("\n")
    (folder / "train_text.txt").write_text("\n".join(["  ", *lines[1:]]))
    data = load_text_data(str(folder))
    assert (len(data.bad), len(data.splits["train"])) == (1, 35)


def write(folder: Path, name: str, content: str) -> str:
    (folder / name).write_text(content)
    return str(folder / name)


def test_unusable_data_says_what_was_found_and_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        write(tmp_path, "a.csv", "words,label\nx,1\n"): "no column text or sentence or tweet or content; it has words, label",
        write(tmp_path, "b.csv", "text,label\nx,1\ny,1\n"): "only one label, '1'; at least two",
        write(tmp_path, "c.txt", "x"): "cannot read .txt; accepted: .csv, .tsv",
        write(tmp_path, "d.csv", "text,label\nx,1\ny,2\n"): "2 training rows cannot be split",
        str(tmp_path / "empty"): "no train_text.txt and no train{.csv",
    }
    for source, says in cases.items():
        with pytest.raises(DataError) as refused:
            load_text_data(source)
        assert says in str(refused.value)


def test_a_label_that_is_not_in_the_mapping_is_named(tmp_path: Path) -> None:
    folder = as_tweeteval(tmp_path)
    labels = (folder / "train_labels.txt").read_text()
    (folder / "train_labels.txt").write_text("9" + labels[1:])
    with pytest.raises(DataError, match=r"label '9' is not in mapping\.txt; it has 0, 1"):
        load_text_data(str(folder))


def test_texts_and_labels_of_different_numbers_are_refused(tmp_path: Path) -> None:
    folder = as_tweeteval(tmp_path)
    (folder / "val_labels.txt").write_text("0\n")
    with pytest.raises(DataError, match="4 texts but 1 labels in the split 'val'"):
        load_text_data(str(folder))
