"""Text classification data: TweetEval folders, CSV, TSV, JSONL and Parquet files, folders of them, hub names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn.model_selection import train_test_split

from training.data_types import BadRow, DataError, ReadOptions, Split, Target, TextData

__all__ = ["BadRow", "DataError", "ReadOptions", "Split", "Target", "TextData", "load_text_data"]

READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "dev": "validation", "test": "test"}
TEXT_COLUMNS = ("text", "sentence", "tweet", "content")
LABEL_COLUMNS = ("label", "labels", "class", "target")
DEFAULTS = ReadOptions()


def load_text_data(source: str, options: ReadOptions = DEFAULTS, seed: int = 0) -> TextData:
    """Read ``source``: a TweetEval folder, a file, a folder with a file per split, or a ``datasets`` hub name.

    Data without a validation split gets one: a stratified tenth of the training split, drawn with ``seed``.
    Raises :class:`DataError` when nothing readable is found or a split holds no usable rows.
    """
    path = Path(source)
    is_tweeteval = (path / "train_text.txt").is_file()
    data = _tweeteval(path) if is_tweeteval else _table(source, path, options.text_column, options.label_column)
    if "train" not in data.splits:
        raise DataError(f"{source}: no training split; found {', '.join(data.splits) or 'nothing'}")
    data = _without_empty_texts(data)
    _check(source, data)
    return data if "validation" in data.splits else _hold_out(data, seed)


def _tweeteval(folder: Path) -> TextData:
    mapping = dict(line.split("\t", 1) for line in _lines(folder / "mapping.txt") if line)
    names = tuple(mapping[key] for key in sorted(mapping, key=int))
    splits = {}
    for short in ("train", "val", "test"):
        if not (folder / f"{short}_text.txt").is_file():
            continue
        texts, ids = _lines(folder / f"{short}_text.txt"), _lines(folder / f"{short}_labels.txt")
        if len(texts) != len(ids):
            raise DataError(f"{folder}: {len(texts)} texts but {len(ids)} labels in the split {short!r}")
        unknown = sorted(set(ids) - set(mapping))
        if unknown:
            raise DataError(f"{folder}: label {unknown[0]!r} is not in mapping.txt; it has {', '.join(mapping)}")
        splits[SPLIT_NAMES[short]] = Split(texts, [int(label) for label in ids])
    return TextData(names, splits)


def _lines(file: Path) -> list[str]:
    # Not str.splitlines: it also splits at characters that tweets contain, such as U+2028.
    return [line.rstrip("\r") for line in file.read_text("utf-8").rstrip("\n").split("\n")]


def _table(source: str, path: Path, text_column: str | None, label_column: str | None) -> TextData:
    from datasets import load_dataset

    files = _files(source, path)
    if files:
        suffix = Path(next(iter(files.values()))).suffix
        options: dict[str, Any] = {"sep": "\t"} if suffix == ".tsv" else {}
        table = load_dataset(READERS[suffix], data_files=files, **options)
    else:
        try:
            table = load_dataset(source)
        except Exception as error:  # the library raises a dozen unrelated kinds, all meaning the same to the caller
            raise DataError(
                f"{source}: no such file or folder, and no hub data set by that name could be loaded "
                f"({type(error).__name__}); accepted: a TweetEval folder, {', '.join(READERS)}, or a hub name"
            ) from None
    columns = next(iter(table.values())).column_names
    text = _column(source, columns, text_column, TEXT_COLUMNS, "--text-column")
    label = _column(source, columns, label_column, LABEL_COLUMNS, "--label-column")
    named = getattr(next(iter(table.values())).features[label], "names", None)
    raw = {SPLIT_NAMES[name]: split for name, split in table.items() if name in SPLIT_NAMES}
    found = {value for split in raw.values() for value in split[label] if value is not None}
    order = list(range(len(named))) if named else sorted(found)
    index = {value: i for i, value in enumerate(order)}
    splits = {name: Split([str(t) for t in split[text]], [index[v] for v in split[label]]) for name, split in raw.items()}
    return TextData(tuple(named or map(str, order)), splits)


def _files(source: str, path: Path) -> dict[str, str]:
    if path.is_file():
        if path.suffix not in READERS:
            raise DataError(f"{source}: cannot read {path.suffix or 'a file without a suffix'}; accepted: {', '.join(READERS)}")
        return {"train": str(path)}
    if not path.is_dir():
        return {}
    found = {SPLIT_NAMES[f.stem]: str(f) for f in sorted(path.iterdir()) if f.suffix in READERS and f.stem in SPLIT_NAMES}
    if not found:
        raise DataError(f"{source}: no train_text.txt and no train{{{','.join(READERS)}}} in that folder")
    if len({Path(f).suffix for f in found.values()}) > 1:
        raise DataError(f"{source}: the splits are in files of different kinds: {', '.join(sorted(found.values()))}")
    return found


def _column(source: str, columns: Sequence[str], asked: str | None, usual: Sequence[str], option: str) -> str:
    candidates = [asked] if asked else [name for name in usual if name in columns]
    if not candidates or candidates[0] not in columns:
        raise DataError(f"{source}: no column {asked or ' or '.join(usual)}; it has {', '.join(columns)}: name one by {option}")
    return candidates[0]


def _check(source: str, data: TextData) -> None:
    if len(data.labels) <= 1:
        raise DataError(
            f"{source}: only one label, {data.labels[0]!r}; at least two are needed" if data.labels else f"{source}: no labels"
        )
    for name, split in data.splits.items():
        if not split.texts:
            raise DataError(f"{source}: the split {name!r} is empty")


def _without_empty_texts(data: TextData) -> TextData:
    kept = {name: [i for i, text in enumerate(split.texts) if text.strip()] for name, split in data.splits.items()}
    bad = tuple(
        BadRow(name, split.lines[i], "empty text")
        for name, split in data.splits.items()
        for i in set(range(len(split))) - set(kept[name])
    )
    return TextData(data.labels, {name: _pick(data.splits[name], rows) for name, rows in kept.items()}, bad=bad)


def _pick(split: Split, rows: Sequence[int]) -> Split:
    return Split(*([column[i] for i in rows] for column in (split.texts, split.labels, split.lines)))


def _hold_out(data: TextData, seed: int) -> TextData:
    train = data.splits["train"]
    rows = list(range(len(train)))
    try:
        kept, held = train_test_split(rows, test_size=0.1, random_state=seed, stratify=train.labels)
    except ValueError:
        raise DataError(
            f"{len(train)} training rows cannot be split by label into training and validation; "
            "bring a validation split, or at least 10 rows with 2 of each label"
        ) from None
    splits = {**data.splits, "train": _pick(train, kept), "validation": _pick(train, held)}
    return TextData(data.labels, splits, data.problem_type, data.bad)
