"""Rows come back as they were written, each with the line where it begins; those that cannot be read say why."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import DataError, ReadOptions, TextData, read_text_data

CELLS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["a\nb", "a\r\nb", "\r", "a,b", "a\tb", '"', "\u2028"]
)
ROWS = st.lists(st.tuples(CELLS.filter(str.strip), st.sampled_from(["good", "bad"])), min_size=1, max_size=12)


def read(name: str, content: str | bytes, **options: str | tuple[str, ...]) -> TextData:
    """What a file of this content holds, without the rows that cannot be used."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_text_data(str(file), ReadOptions(skip_bad=True, **options))  # type: ignore[arg-type]


def faults(data: TextData) -> list[str]:
    return [str(row) for row in data.bad]


def check(data: TextData, rows: Sequence[tuple[str, str]], lines: Sequence[int]) -> None:
    train = data.splits["train"]
    assert not data.bad
    assert [(text, data.labels[label]) for text, label in zip(train.texts, train.labels, strict=True)] == list(rows)
    assert train.lines == list(lines)


def line_ends(written: str) -> int:
    """How many lines end in what is written, as editors count them."""
    return written.count("\n") + written.replace("\r\n", "").count("\r")


@settings(deadline=None, max_examples=50)
@given(rows=ROWS, suffix=st.sampled_from(["csv", "tsv"]), end=st.sampled_from(["\n", "\r\n"]), blank=st.booleans())
def test_a_csv_file_gives_its_rows_and_the_lines_where_they_begin(
    rows: list[tuple[str, str]], suffix: str, end: str, blank: bool
) -> None:
    file = io.StringIO(newline="")
    # Python's writer leaves a lone \r unquoted beside \n, and that is a line's end to whoever reads it.
    alone = any("\r" in text for text, _ in rows)
    delimiter = "\t" if suffix == "tsv" else ","
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL if alone else csv.QUOTE_MINIMAL)
    writer.writerow(["text", "label"])
    lines = []
    for row in rows:
        file.write(end * blank)
        lines.append(line_ends(file.getvalue()) + 1)
        writer.writerow(row)
    check(read(f"data.{suffix}", file.getvalue()), rows, lines)


@settings(deadline=None, max_examples=50)
@given(rows=ROWS, as_ascii=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_a_jsonl_file_gives_its_rows_and_their_lines(rows: list[tuple[str, str]], as_ascii: bool, end: str) -> None:
    content = "".join(json.dumps({"text": text, "label": label}, ensure_ascii=as_ascii) + end for text, label in rows)
    check(read("data.jsonl", content), rows, [1 + number * end.count("\n") for number in range(len(rows))])


def test_a_byte_order_mark_is_no_part_of_a_column() -> None:
    check(read("a.csv", "\ufefftext,label\nx,good\n"), [("x", "good")], [2])
    check(read("a.jsonl", '\ufeff{"text": "x", "label": "good"}'), [("x", "good")], [1])


def test_rows_of_csv_that_cannot_be_used_are_listed_with_the_lines_where_they_begin() -> None:
    content = b"""text,label
"two
lines",good
,good
   ,good
x,
x,good,more
x
"quoted" twice,good
\xff\xfe,good
fine,\xff
fine,good
"never closed,good
"""
    data = read("a.csv", content)
    assert data.splits["train"].lines == [2, 12]
    assert faults(data) == [
        "a.csv:4: empty text",
        "a.csv:5: empty text",
        "a.csv:6: no label",
        "a.csv:7: 3 fields instead of 2",
        "a.csv:8: 1 field instead of 2",
        "a.csv:9: text after a closing quote; a quote within a quoted field is written twice",
        "a.csv:10: not UTF-8",
        "a.csv:11: not UTF-8",
        "a.csv:13: a quote is opened and never closed",
    ]


def test_a_quote_left_open_in_a_large_file_does_not_swallow_all_of_it() -> None:
    rows = "".join(f"text number {number},good\n" for number in range(20_000))
    (fault,) = faults(read("a.csv", f'text,label\n"open,good\n{rows}'))
    assert fault == "a.csv:2: a field of more than 131,072 characters; is a quote left open?"


def test_rows_of_jsonl_that_cannot_be_used_are_listed_with_their_lines() -> None:
    content = b"""{"text": "fine", "label": "good"}
{"text": "x", "label": "good"
[1, 2]

{"label": "good"}
{"text": null, "label": "good"}
{"text": "x"}
{"text": "x", "label": NaN}
{"text": ["x"], "label": "good"}
{"text": "\xff", "label": "good"}
{"text": "\\ud83d", "label": "good"}
{"text": 7, "label": "good"}
"""
    data = read("a.jsonl", content)
    assert (data.splits["train"].texts, data.splits["train"].lines) == (["fine", "7"], [1, 12])
    assert faults(data) == [
        "a.jsonl:2: not JSON",
        "a.jsonl:3: not a JSON object",
        "a.jsonl:5: no text",
        "a.jsonl:6: no text",
        "a.jsonl:7: no label",
        "a.jsonl:8: no label",
        "a.jsonl:9: the text is of the type list, not a string",
        "a.jsonl:10: not UTF-8",
        "a.jsonl:11: not UTF-8",
    ]


def test_a_file_without_one_readable_row_lists_them_all_the_same() -> None:
    assert faults(read("a.jsonl", "text\nlabel\n")) == ["a.jsonl:1: not JSON", "a.jsonl:2: not JSON"]
    assert faults(read("a.jsonl", "[" * 100_000)) == ["a.jsonl:1: not JSON"]
    assert faults(read("a.json", "[[1]]")) == ["a.json, row 1: not a JSON object"]


def test_a_json_file_may_hold_an_object_a_line_too() -> None:
    check(
        read("a.json", '{"text": "x", "label": "good"}\n\n{"text": "y", "label": "bad"}\n'), [("x", "good"), ("y", "bad")], [1, 3]
    )


@pytest.mark.parametrize("content", ["text,label\nx,good\n".encode("utf-16"), b"t\xffxt,label\nx,good\n"])
def test_a_file_in_another_encoding_says_so(content: bytes) -> None:
    with pytest.raises(DataError, match="the names of its columns are not UTF-8; save it as UTF-8"):
        read("a.csv", content)


def test_parquet_brings_the_names_of_its_class_labels(tmp_path: Path) -> None:
    kinds = {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["z", "a"]))}
    rows = {"text": ["x", "y", None], "label": [[0, 1], [], [1]]}
    datasets.Dataset.from_dict(rows, features=datasets.Features(kinds)).to_parquet(tmp_path / "a.parquet")
    data = read_text_data(str(tmp_path / "a.parquet"), ReadOptions(skip_bad=True))
    assert (data.labels, data.splits["train"].labels, data.splits["train"].lines) == (("z", "a"), [(0, 1), ()], [1, 2])
    assert faults(data) == ["a.parquet, row 3: no text"]
