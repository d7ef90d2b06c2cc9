"""Questions about images: DAQUAR's folder layout, or a CSV file with a column of image paths."""

from __future__ import annotations

import csv
import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data import DataError

QUESTIONS, ANSWERS, IMAGES = "data_train.csv", "answer_space.txt", "images"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
IMAGE_COLUMNS = ("image_id", "image", "image_path", "path", "file")
HELD_OUT = 10  # one question in so many is held out
COLOURS = frozenset(
    ["beige", "black", "blue", "brown", "gold", "gray", "green", "grey", "orange", "pink", "purple", "red", "silver", "white",
     "yellow"]
)  # fmt: skip
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Example:
    """A question about an image, and the place of its answer in the list of answers; -1 where it is not there."""

    question: str
    image: Path
    answer: int


@dataclass(frozen=True, slots=True)
class VqaData:
    """Examples in ``train`` and ``validation``, and the answers that a head chooses among.

    ``dropped`` counts the training questions left out because their answer is not in the list.
    """

    answers: tuple[str, ...]
    splits: Mapping[str, list[Example]]
    dropped: int = 0

    @property
    def digest(self) -> str:
        """``sha256:…`` over every question, image name and answer in order; the images' bytes are not read."""
        digest = hashlib.sha256("\x1f".join(self.answers).encode())
        for name, split in sorted(self.splits.items()):
            for example in split:
                digest.update(f"{name}\x1f{example.question}\x1f{example.image.name}\x1f{example.answer}\x1e".encode())
        return f"sha256:{digest.hexdigest()}"

    @property
    def repeated(self) -> int:
        """How many held-out questions are also among the training ones, about the same image."""
        known = {(example.question.strip(), example.image) for example in self.splits["train"]}
        return sum((example.question.strip(), example.image) in known for example in self.splits["validation"])


def kind_of(answer: str) -> str:
    """``number``, ``colour`` or ``object``: which of the three reported groups an answer belongs to."""
    if answer.isdigit():
        return "number"
    return "colour" if set(answer.split("_")) <= COLOURS else "object"


def load_vqa_data(source: Path, seed: int = 0, *, grouped: bool = False) -> VqaData:
    """Read ``source``, a folder laid out as DAQUAR's or a CSV file, and hold out a tenth of the questions by ``seed``.

    Of several answers with commas between them the first is the label. The tenth is drawn by row, as DAQUAR's own split
    is, so that some questions are on both sides with the same image; ``grouped`` keeps those on one side. Raises
    :class:`DataError` when something is missing, named with what would be accepted.
    """
    table = source / QUESTIONS if source.is_dir() else source
    if not table.is_file():
        raise DataError(f"{source}: no such file, and no folder with {QUESTIONS} and {IMAGES}/; accepted: either of them")
    rows = _rows(table)
    answers = _answers(source, [answer for _, _, answer in rows])
    paths = _paths(source, {image for _, image, _ in rows})
    place = {answer: i for i, answer in enumerate(answers)}
    examples = [Example(question, paths[image], place.get(answer, -1)) for question, image, answer in rows]
    train, held = _hold_out(examples, seed, grouped=grouped)
    known = [example for example in train if example.answer >= 0]
    if not known or not held:
        raise DataError(
            f"{source}: {len(examples)} questions are too few; {len(known)} to train on and {len(held)} held out are left"
        )
    return VqaData(answers, {"train": known, "validation": held}, len(train) - len(known))


def _rows(table: Path) -> list[tuple[str, str, str]]:
    """Question, image and first answer of every row."""
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
            rows = [(row["question"] or "", row[image] or "", (row["answer"] or "").split(",")[0].strip()) for row in reader]
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{table.name} is not a CSV file in UTF-8") from None
    empty = [number for number, row in enumerate(rows, start=2) if not all(part.strip() for part in row)]
    if empty:
        raise DataError(f"{table.name}: question, answer or image is empty in line {empty[0]} and {len(empty) - 1} more")
    return rows


def _answers(source: Path, given: Sequence[str]) -> tuple[str, ...]:
    """The answers in ``answer_space.txt``, or where there is none those that occur, the most frequent first."""
    listed = source / ANSWERS
    if not listed.is_file():
        found = tuple(answer for answer, _ in Counter(given).most_common())
    else:
        found = tuple(dict.fromkeys(line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip()))
    if len(found) < 2:  # noqa: PLR2004 - a choice takes two
        raise DataError(f"{source}: {len(found)} distinct answers; at least two are needed")
    return found


def _paths(source: Path, names: set[str]) -> dict[str, Path]:
    """The file of each image: by name in ``images/`` of a folder, else by path from the CSV's own folder."""
    root = source / IMAGES if source.is_dir() else source.parent
    found = {name: path for name in names if (path := _path(root, name)) is not None}
    if missing := sorted(names - set(found)):
        raise DataError(
            f"{source}: {len(missing)} of {len(names)} images are missing, the first {', '.join(missing[:SHOWN])}; "
            f"expected files in {root.name}/ with one of {', '.join(SUFFIXES)}"
        )
    return found


def _path(root: Path, name: str) -> Path | None:
    candidates = [root / name, *(root / f"{name}{suffix}" for suffix in SUFFIXES)]
    return next((path for path in candidates if path.is_file()), None)


def _hold_out(examples: Sequence[Example], seed: int, *, grouped: bool) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples, in the file's order; ``grouped`` keeps equal questions about one image together."""
    units = [(example.question.strip(), example.image) if grouped else row for row, example in enumerate(examples)]
    order = list(dict.fromkeys(units))
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, not a secret
    held = set(order[: len(order) // HELD_OUT])
    sides: tuple[list[Example], list[Example]] = ([], [])
    for unit, example in zip(units, examples, strict=True):
        sides[unit in held].append(example)
    return sides
