"""Files of rows: CSV, TSV, JSONL, JSON and Parquet, each row with its line, and each row that cannot be read with why."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.data_types import DataError

Values = Mapping[str, Any] | str
"""What a row holds by column, or why it cannot be read."""

ENCODING: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape"}  # so that one bad byte spoils one row only
WORDING = {
    "unexpected end of data": "a quote is opened and never closed",
    "field larger than field limit": f"a field of more than {csv.field_size_limit():,} characters; is a quote left open?",
}
OPEN_QUOTE = "text after a closing quote; a quote within a quoted field is written twice"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one split: their line and values, to be read once.

    ``place`` says where a line is, as messages name it; ``names`` are the labels that a column declares.
    """

    columns: list[str]
    rows: Iterable[tuple[int, Values]]
    place: Callable[[int], str]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_file(path: Path) -> Table:
    """The table in a file, by its suffix. Raises :class:`DataError` when nothing of it can be read."""
    try:
        return READERS[path.suffix](path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None


def _read_csv(path: Path) -> Table:
    rows = list(_csv_rows(path, "\t" if path.suffix == ".tsv" else ","))
    if not rows:
        raise DataError(f"{path}: the file is empty; its first line names the columns")
    columns = rows[0][1]
    if isinstance(columns, str):
        raise DataError(f"{path}:{rows[0][0]}: the line that names the columns cannot be read: {columns}")

    def values(row: list[str] | str) -> Values:
        if isinstance(row, str):
            return row
        if len(row) != len(columns):
            return f"{len(row)} field{'s' * (len(row) > 1)} instead of {len(columns)}"
        return dict(zip(columns, row, strict=True))

    return Table(columns, ((line, values(row)) for line, row in rows[1:]), lambda line: f"{path.name}:{line}")


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """The line where each row begins, and its fields or what is wrong with it; blank lines are no rows."""
    with path.open(newline="", **ENCODING) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, next((ours for theirs, ours in WORDING.items() if str(error).startswith(theirs)), OPEN_QUOTE)
            else:
                if row:
                    yield line, row


def _read_jsonl(path: Path) -> Table:
    with path.open(newline="\n", **ENCODING) as file:  # other line ends, such as U+2028, may stand in a text
        rows = [(number, _object(line)) for number, line in enumerate(file, 1) if line.strip()]
    return _of_objects(path, rows, lambda line: f"{path.name}:{line}")


def _object(line: str) -> Values:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    return value if isinstance(value, dict) else "not a JSON object"


def _read_json(path: Path) -> Table:
    content = path.read_text(**ENCODING)
    if not content.lstrip().startswith("["):
        return _read_jsonl(path)
    try:
        values = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON; expected an array of objects, or an object a line") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON; expected an array of objects, or an object a line") from None
    rows = [(number, value if isinstance(value, dict) else "not a JSON object") for number, value in enumerate(values, 1)]
    return _of_objects(path, rows, lambda row: f"{path.name}, row {row}")


def _of_objects(path: Path, rows: Sequence[tuple[int, Values]], place: Callable[[int], str]) -> Table:
    if not rows:
        raise DataError(f"{path}: the file is empty")
    columns = list(dict.fromkeys(key for _, values in rows if not isinstance(values, str) for key in values))
    return Table(columns, rows, place)


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid:
        raise DataError(f"{path}: not a Parquet file, or a damaged one") from None
    names = declared(Features.from_arrow_schema(table.schema))
    every = (values for batch in table.to_batches() for values in batch.to_pylist())
    return Table(table.column_names, named(every, names), lambda row: f"{path.name}, row {row}", names)


def declared(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The names of the labels of each column of class labels, or of lists of them, of a data set's features."""
    found = {column: getattr(getattr(kind, "feature", kind), "names", None) for column, kind in features.items()}
    return {column: tuple(names) for column, names in found.items() if names}


def named(rows: Iterable[Mapping[str, Any]], names: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[int, Values]]:
    """Rows with their numbers, with names in the place of class labels; −1, which stands for no label, becomes none."""

    def name(column: str, value: Any) -> Any:
        if isinstance(value, list):
            return [name(column, one) for one in value]
        return None if value is None or value < 0 else names[column][value]

    for number, values in enumerate(rows, 1):
        yield number, {**values, **{column: name(column, values[column]) for column in names}}


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
