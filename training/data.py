"""Text data for training and scoring, from files, folders or a hub: its rows, or the lines of those that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from reprlib import Repr
from typing import Any

from sklearn.model_selection import train_test_split

from training.data_files import Table
from training.data_layouts import tables_of
from training.data_targets import Meaning, is_blank, is_missing
from training.data_types import (
    AUTO,
    MULTI,
    PROBLEM_TYPES,
    REGRESSION,
    SINGLE,
    BadRow,
    DataError,
    ReadOptions,
    Split,
    Target,
    TextData,
)

__all__ = [
    "AUTO", "MULTI", "PROBLEM_TYPES", "REGRESSION", "SINGLE", "BadRow", "DataError", "ReadOptions", "Split", "Target", "TextData",
    "load_text_data", "read_text_data",
]  # fmt: skip
TEXT_COLUMNS = ("text", "sentence", "tweet", "content")
LABEL_COLUMNS = ("label", "labels", "class", "target", "score")
DEFAULTS = ReadOptions()
_SHORT = Repr()
_SHORT.maxstring = 40
LISTED = 10  # bad rows, or names of columns, that a message lists


def load_text_data(source: str, options: ReadOptions = DEFAULTS, seed: int = 0) -> TextData:
    """Read ``source`` for training: a file, a folder or a hub name, as :func:`read_text_data` does.

    Data without a validation split gets one: a tenth of the training split, drawn with ``seed``, and of every label alike
    for single-label data. Raises :class:`DataError` when there is nothing to learn: no training split, an empty split,
    one label only.
    """
    data = read_text_data(source, options)
    if "train" not in data.splits:
        raise DataError(f"{source}: no training split; found {', '.join(data.splits) or 'none'}")
    _check(source, data)
    return data if "validation" in data.splits else _hold_out(source, data, seed)


def read_text_data(source: str, options: ReadOptions = DEFAULTS) -> TextData:
    """Read the splits of ``source`` as they are; a single file is the split ``train``.

    A source is a CSV, TSV, JSONL, JSON or Parquet file, a folder with one per split, a TweetEval folder, a folder of texts
    by label (``LABEL/*.txt``, or that in a folder per split), or the name of a hub's data set.

    A row cannot be used without a text and a label of the mapping, in UTF-8 and as its format has it. Raises
    :class:`DataError`, listing the first such rows, unless ``options.skip_bad``, and for anything that concerns all rows.
    """
    tables = tables_of(source)
    columns = _columns(source, tables, options)
    several = len(columns) > 2  # noqa: PLR2004  # the text and more than one label
    parts = {split: Part.of(split, table, columns) for split, table in tables.items()}
    cells = [cell for part in parts.values() for cell in part.cells if not any(map(is_blank, cell if several else [cell]))]
    declared = next((table.names[columns[1]] for table in tables.values() if columns[1:] and columns[1] in table.names), None)
    meaning = Meaning.of(cells, columns[1:], declared, options)
    splits = {name: part.split(meaning) for name, part in parts.items()}
    bad = tuple(sorted((row for part in parts.values() for row in part.bad), key=lambda row: (row.split, row.line)))
    if bad and not options.skip_bad:
        raise DataError(_listing(source, bad))
    return TextData(meaning.labels, splits, meaning.problem_type, bad)


@dataclass(slots=True)
class Part:
    """The rows of one split before their labels have a meaning, and those that cannot be used."""

    name: str
    table: Table
    texts: list[str] = field(default_factory=list)
    cells: list[Any] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, table: Table, columns: Sequence[str]) -> Part:
        """Read the table, keeping the text column, the first of ``columns``, and the label columns, the others."""
        part = cls(name, table)
        for line, values in table.rows:
            if isinstance(values, str):
                part.refuse(line, values)
                continue
            text, *cells = (values.get(column) for column in columns)
            fault = _fault(text, cells)
            if fault:
                part.refuse(line, fault)
                continue
            part.texts.append(str(text))
            part.cells.append(cells if len(cells) > 1 else cells[0])
            part.lines.append(line)
        return part

    def refuse(self, line: int, reason: str) -> None:
        """Add the row at ``line`` to those that cannot be used."""
        self.bad.append(BadRow(self.name, line, reason, self.table.place(line)))

    def split(self, meaning: Meaning) -> Split:
        """The rows whose label has a meaning, with their targets; the others become bad."""
        made = Split([], [], [])
        for text, cell, line in zip(self.texts, self.cells, self.lines, strict=True):
            target = meaning.target(cell)
            if isinstance(target, str):
                self.refuse(line, target)
                continue
            made.texts.append(text)
            made.labels.append(target)
            made.lines.append(line)
        return made


def _fault(text: Any, cells: Sequence[Any]) -> str | None:
    """What is wrong with a row whatever its labels mean."""
    if is_missing(text):
        return "no text"
    if not isinstance(text, str | int | float):
        return f"the text is of the type {type(text).__name__}, not a string"
    if not str(text).strip():
        return "empty text"
    return None if all(_is_utf8(value) for value in (text, *cells)) else "not UTF-8"


def _is_utf8(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _columns(source: str, tables: dict[str, Table], options: ReadOptions) -> list[str]:
    """The text column and the label columns, which every split must have."""
    found: list[str] = []
    for table in (table for table in tables.values() if table.columns):
        if not all(map(_is_utf8, table.columns)):
            raise DataError(f"{source}: the names of its columns are not UTF-8; save it as UTF-8")
        text = [_column(source, table.columns, options.text_column, TEXT_COLUMNS, "--text-column")]
        asked = options.label_column.split(",") if options.label_column else [None]
        labels = [_column(source, table.columns, name, LABEL_COLUMNS, "--label-column") for name in asked]
        found = found or [*text, *labels]
    return found or [TEXT_COLUMNS[0], LABEL_COLUMNS[0]]


def _column(source: str, columns: Sequence[str], asked: str | None, usual: Sequence[str], option: str) -> str:
    candidates = [asked.strip()] if asked else [name for name in usual if name in columns]
    if not candidates or candidates[0] not in columns:
        listed = ", ".join(_SHORT.repr(name)[1:-1] for name in columns[:LISTED]) + (", …" if len(columns) > LISTED else "")
        raise DataError(f"{source}: no column {asked or ' or '.join(usual)}; it has {listed}: name one by {option}")
    if columns.count(candidates[0]) > 1:
        raise DataError(f"{source}: the column {candidates[0]} is there {columns.count(candidates[0])} times")
    return candidates[0]


def _listing(source: str, bad: Sequence[BadRow]) -> str:
    lines = [f"{source}: {len(bad):,} row{'s' * (len(bad) > 1)} cannot be used; mend them, or leave them out with --skip-bad"]
    lines += [f"  {row}" for row in bad[:LISTED]]
    return "\n".join(lines + [f"  and {len(bad) - LISTED:,} more"] * (len(bad) > LISTED))


def _check(source: str, data: TextData) -> None:
    for name, split in data.splits.items():
        if not split.texts:
            raise DataError(f"{source}: the split {name!r} is empty")
    targets = data.splits["train"].labels
    if data.problem_type == MULTI:
        if not any(targets):
            raise DataError(f"{source}: no row of the training split has a label")
    elif len(set(targets)) == 1:
        what = "value" if data.problem_type == REGRESSION else "label"
        raise DataError(f"{source}: only one {what} in the training split, {data.shown(targets[0])!r}; at least two are needed")


def _hold_out(source: str, data: TextData, seed: int) -> TextData:
    train = data.splits["train"]
    rows = list(range(len(train)))
    strata = train.labels if data.problem_type == SINGLE else None
    try:
        kept, held = train_test_split(rows, test_size=0.1, random_state=seed, stratify=strata)
    except ValueError:
        of_each = " with 2 of each label" if strata else ""
        raise DataError(
            f"{source}: {len(train)} training rows cannot be split into training and validation; "
            f"bring a validation split, or at least 10 rows{of_each}"
        ) from None
    splits = {**data.splits, "train": _pick(train, kept), "validation": _pick(train, held)}
    return TextData(data.labels, splits, data.problem_type, data.bad)


def _pick(split: Split, rows: Sequence[int]) -> Split:
    return Split([split.texts[i] for i in rows], [split.labels[i] for i in rows], [split.lines[i] for i in rows])
