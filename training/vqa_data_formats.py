"""The layouts that questions about images come in: DAQUAR's folder, easy-vqa's, VQA v2's JSON files, a CSV with image paths."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training.data import BadRow, DataError

TABLES = {"train": "data_train.csv", "test": "data_eval.csv"}
ANSWERS, IMAGES, EASY, EASY_NAME = "answer_space.txt", "images", "questions.json", "easy-vqa"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
IMAGE_COLUMNS = ("image_id", "image", "image_path", "path", "file")
V2_SPLITS = {"train": "train", "val": "validation", "test": "test"}
ACCEPTED = f"""a folder with {TABLES["train"]} and {IMAGES}/ (DAQUAR), one with train/{EASY} (easy-vqa), one with \
*questions*.json and *annotations*.json (VQA v2), a CSV file with image paths, or {EASY_NAME} where that package is installed"""


@dataclass(frozen=True, slots=True)
class Row:
    """A question about an image, its answers with the label first, and perhaps what type its data calls it."""

    question: str
    image: Path
    answers: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row is: its split, its file, and its line or its number there."""

    split: str
    file: Path
    line: int


@dataclass(slots=True)
class Read:
    """What was read: rows a split, the answer list where the data brings one, and the rows that cannot be used."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    bad: list[BadRow] = field(default_factory=list)

    def add(
        self, place: Place, question: str, image: Path | str, answers: Iterable[str], kind: str = ""
    ) -> None:  # fmt: skip
        """A row, or why it is none; ``image`` is text where there is no such file."""
        given = tuple(dict.fromkeys(answer for part in answers if (answer := part.strip())))
        empty = [name for name, value in (("question", question.strip()), ("answer", given), ("image", image)) if not value]
        if empty:
            self.drop(place, f"{' and '.join(empty)} empty")
        elif isinstance(image, str):
            self.drop(place, f"no image {image!r}")
        else:
            self.rows.setdefault(place.split, []).append(Row(question, image, given, kind))

    def drop(self, place: Place, reason: str) -> None:
        """Leave a row out."""
        self.bad.append(BadRow(place.split, place.line, reason, f"{place.file.name} line {place.line}"))


def read(source: Path) -> Read:
    """Every row of ``source``; raises :class:`DataError` when it has none of the layouts, saying which there are."""
    folder = _packaged() if str(source) == EASY_NAME and not source.exists() else source
    if (folder / TABLES["train"]).is_file():
        return _daquar(folder)
    if (folder / "train" / EASY).is_file():
        return _easy(folder)
    if folder.is_dir() and any(folder.glob("*questions*.json")):
        return _v2(folder)
    if folder.is_file() and folder.suffix.lower() == ".csv":
        found = Read()
        _csv(folder, folder.parent, "train", found)
        return found
    raise DataError(f"{source}: no such data; accepted: {ACCEPTED}")


def _packaged() -> Path:
    spec = find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        raise DataError(f"{EASY_NAME}: the package is not installed; pip install {EASY_NAME}, or name its data folder")
    return Path(spec.origin).parent / "data"


def _daquar(folder: Path) -> Read:
    listed = folder / ANSWERS
    found = Read(answers=_lines(listed) if listed.is_file() else ())
    for split, name in TABLES.items():
        if (folder / name).is_file():
            _csv(folder / name, folder / IMAGES, split, found)
    return found


def _csv(table: Path, images: Path, split: str, found: Read) -> None:
    """The rows of a CSV file; several answers have commas between them."""
    place = _finder(images)
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or ()
            image = next((name for name in IMAGE_COLUMNS if name in columns), None)
            if image is None or "question" not in columns or "answer" not in columns:
                raise DataError(
                    f"{table.name}: it has the columns {', '.join(columns) or 'none'}; expected question, answer and "
                    f"{' or '.join(IMAGE_COLUMNS)}"
                )
            for row in reader:
                name = (row[image] or "").strip()
                found.add(
                    Place(split, table, reader.line_num), row["question"] or "", place(name), (row["answer"] or "").split(",")
                )
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{table.name} is not a CSV file in UTF-8") from None


def _easy(folder: Path) -> Read:
    listed = folder / "answers.txt"
    found = Read(answers=_lines(listed) if listed.is_file() else ())
    for split in ("train", "test"):
        if not (folder / split / EASY).is_file():
            continue
        place = _finder(folder / split / IMAGES)
        for number, entry in enumerate(_json(folder / split / EASY), 1):
            where = Place(split, folder / split / EASY, number)
            match entry:
                case [str(question), str(answer), int(image)]:
                    found.add(where, question, place(str(image)), (answer,))
                case _:
                    found.drop(where, "not a list of question, answer and image number")
    return found


def _v2(folder: Path) -> Read:
    """Each questions file with the annotations of the same subset; images by their number, wherever they are in the folder."""
    found = Read()
    files = {path.stem: path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES}
    for questions in sorted(folder.glob("*questions*.json")):
        asked = _entries(questions, "questions")
        subset = str(asked.get("data_subtype") or _subset(questions.name))
        beside = (path for path in sorted(folder.glob("*annotations*.json")) if _subset(path.name) == _subset(questions.name))
        annotations = next(beside, None)
        split = next((name for start, name in V2_SPLITS.items() if subset.startswith(start)), None)
        if split is None:
            raise DataError(f"{questions.name}: its subset is {subset!r}; expected one that starts with {', '.join(V2_SPLITS)}")
        if annotations is None:
            if split == "train":
                raise DataError(f"{questions.name}: no *annotations*.json for {subset!r} beside it")
            continue  # the official test questions have none
        answers = {entry.get("question_id"): entry for entry in _entries(annotations, "annotations")["annotations"]}
        for number, entry in enumerate(asked["questions"], 1):
            image = _v2_image(files, subset, entry.get("image_id", ""))
            _v2_row(found, Place(split, questions, number), entry, answers.get(entry.get("question_id")), image)
    return found


def _v2_row(
    found: Read, place: Place, entry: Mapping[str, Any], answered: Mapping[str, Any] | None,
    image: Path | str,
) -> None:  # fmt: skip
    if answered is None:
        found.drop(place, f"no annotation for question_id {entry.get('question_id')!r}")
        return
    given = Counter(str(a.get("answer", "")) for a in answered.get("answers", []) if isinstance(a, Mapping))
    label = str(answered.get("multiple_choice_answer") or next((answer for answer, _ in given.most_common(1)), ""))
    answers = (label, *(answer for answer, _ in given.most_common()))
    kind = str(answered.get("answer_type", "")).replace("/", "_")
    found.add(place, str(entry.get("question", "")), image, answers, kind)


def _v2_image(files: Mapping[str, Path], subset: str, number: Any) -> Path | str:
    names = (f"COCO_{subset}_{number:012d}", f"{number:012d}", str(number)) if isinstance(number, int) else (str(number),)
    return next((files[name] for name in names if name in files), str(number))


def _subset(name: str) -> str:
    return next((start for start in V2_SPLITS if start in name.lower()), "")


def _entries(file: Path, key: str) -> Mapping[str, Any]:
    """A file's content, which has a list of objects under ``key``."""
    content = _json(file)
    entries = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        raise DataError(f"{file.name}: no list of objects under {key!r}")
    return content


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError:
        raise DataError(f"{file.name} is not a JSON file in UTF-8") from None


def _lines(file: Path) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()))


def _finder(root: Path) -> Callable[[str], Path | str]:
    """Finds an image by path or by name without its suffix; the name itself comes back where there is no such file."""
    found: dict[str, Path | str] = {}

    def place(name: str) -> Path | str:
        if name and name not in found:
            candidates = [root / f"{name}{suffix}" for suffix in (*SUFFIXES, "")]
            found[name] = next((path for path in candidates if path.is_file()), name)
        return found.get(name, name)

    return place
