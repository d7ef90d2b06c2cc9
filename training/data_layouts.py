"""Where the tables of a data source are: a file, a folder in one of the known layouts, or a data set of a hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.models.sources import is_hub_id
from training.data_files import ENCODING, READERS, Table, Values, declared, named, read_file
from training.data_types import DataError

SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "dev": "validation", "test": "test"}
ACCEPTED = (
    f"{', '.join(READERS)} files; a folder with one per split (train, val, test), TweetEval's train_text.txt, "
    "train_labels.txt and mapping.txt, or LABEL/*.txt in it or in a folder per split"
)
TEXT, LABEL = "text", "label"


def tables_of(source: str) -> dict[str, Table]:
    """The table of each split of ``source``; the split names are ``train``, ``validation`` and ``test``.

    Raises :class:`DataError` when there is no such source or nothing in it has an accepted form.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in READERS:
            raise DataError(f"{source}: cannot read {path.suffix or 'a file without a suffix'}; accepted: {', '.join(READERS)}")
        return {"train": read_file(path)}
    if path.is_dir():
        return _folder(path)
    return _hub(source)


def _folder(folder: Path) -> dict[str, Table]:
    if (folder / "train_text.txt").is_file():
        return _tweeteval(folder)
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(file.stem)
        if split is None or file.suffix not in READERS:
            continue
        if split in files:
            raise DataError(f"{folder}: the split {split!r} is there twice: {files[split].name} and {file.name}")
        files[split] = file
    tables = {split: read_file(file) for split, file in files.items()} or _texts_by_label(folder)
    if not tables:
        raise DataError(f"{folder}: no data in that folder; accepted: {ACCEPTED}")
    return tables


def _tweeteval(folder: Path) -> dict[str, Table]:
    mapping = _mapping(folder / "mapping.txt")
    found = [short for short in ("train", "val", "test") if (folder / f"{short}_text.txt").is_file()]
    return {SPLIT_NAMES[short]: _tweeteval_split(folder, short, mapping) for short in found}


def _mapping(file: Path) -> dict[str, str]:
    if not file.is_file():
        raise DataError(f"{file}: no such file; it holds a label's number, a tab and its name on each line")
    pairs = [line.split("\t", 1) for line in _lines(file) if line]
    wrong = next((number for number, pair in enumerate(pairs, 1) if len(pair) != 2 or not pair[0].isdecimal()), None)  # noqa: PLR2004
    if wrong:
        raise DataError(f"{file}:{wrong}: expected a label's number, a tab and its name")
    return dict(sorted(pairs, key=lambda pair: int(pair[0])))


def _tweeteval_split(folder: Path, short: str, mapping: dict[str, str]) -> Table:
    ids_file = folder / f"{short}_labels.txt"
    if not ids_file.is_file():
        raise DataError(f"{ids_file}: no such file; it holds the label's number of each line of {short}_text.txt")
    texts, ids = _lines(folder / f"{short}_text.txt"), _lines(ids_file)
    if len(texts) != len(ids):
        raise DataError(f"{folder}: {len(texts)} texts but {len(ids)} labels in the split {short!r}")

    def values(text: str, label: str) -> Values:
        if label and label not in mapping:
            return f"label {label!r} is not in mapping.txt; it has {', '.join(mapping)}"
        return {TEXT: text, LABEL: mapping.get(label)}

    rows = [(line, values(text, label)) for line, (text, label) in enumerate(zip(texts, ids, strict=True), 1)]
    return Table([TEXT, LABEL], rows, lambda line: f"{short}_text.txt:{line}", {LABEL: tuple(mapping.values())})


def _lines(file: Path) -> list[str]:
    # Not str.splitlines: it also splits at characters that tweets contain, such as U+2028.
    with file.open(newline="\n", **ENCODING) as opened:
        return [line.rstrip("\r") for line in opened.read().rstrip("\n").split("\n")]


def _texts_by_label(folder: Path) -> dict[str, Table]:
    by_split = {SPLIT_NAMES[sub.name]: sub for sub in sorted(folder.iterdir()) if sub.is_dir() and sub.name in SPLIT_NAMES}
    found = {split: list(_text_files(sub)) for split, sub in by_split.items()}
    if not any(found.values()):
        found = {"train": list(_text_files(folder))}
    return {split: _of_text_files(folder, files) for split, files in found.items() if files or split in by_split}


def _text_files(folder: Path) -> Iterator[Path]:
    for label in sorted(folder.iterdir()):
        if label.is_dir() and not label.name.startswith("."):
            yield from sorted(label.glob("*.txt"))


def _of_text_files(folder: Path, files: list[Path]) -> Table:
    rows = ((row, {TEXT: file.read_text(**ENCODING).strip(), LABEL: file.parent.name}) for row, file in enumerate(files, 1))
    return Table([TEXT, LABEL], rows, lambda row: files[row - 1].relative_to(folder).as_posix())


def _hub(source: str) -> dict[str, Table]:
    name, _, configuration = source.partition(":")
    if not is_hub_id(name) or Path(name).suffix in READERS or name.count("/") > 1:
        raise DataError(
            f"{source}: no such file or folder; accepted: {ACCEPTED}; or a hub name such as OWNER/NAME or NAME:CONFIG"
        )
    from datasets import load_dataset

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else every retry is a line
    try:
        loaded = load_dataset(name, configuration or None)
    except Exception as error:  # the library raises a dozen unrelated kinds, all meaning the same to the caller
        raise DataError(
            f"{source}: no such file or folder, and no hub data set by that name could be loaded "
            f"({type(error).__name__}); accepted: {ACCEPTED}; or a hub name such as OWNER/NAME or NAME:CONFIG"
        ) from None
    return {SPLIT_NAMES[split]: _of_dataset(split, rows) for split, rows in loaded.items() if split in SPLIT_NAMES}


def _of_dataset(split: str, dataset: Any) -> Table:
    names = declared(dataset.features)
    return Table(dataset.column_names, named(dataset, names), lambda row: f"{split}, row {row}", names)
