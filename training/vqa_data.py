"""Questions about images: what a head learns from, in splits, with the list of answers that it chooses among."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from training.data import BadRow, DataError
from training.vqa_data_formats import Read, Row, read

HELD_OUT = 10  # one question in so many is held out
MIN_COVERAGE, MAX_ANSWERS = 0.8, 3000
COLOURS = frozenset(
    ["beige", "black", "blue", "brown", "gold", "gray", "green", "grey", "orange", "pink", "purple", "red", "silver", "teal",
     "white", "yellow"]
)  # fmt: skip
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Example:
    """A question about an image, and the place of its answer in the list of answers; -1 where it is not there.

    ``accepted`` are its answers as they were given, the label first; ``kind`` is the type it is reported under.
    """

    question: str
    image: Path
    answer: int
    accepted: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class VqaData:
    """Examples in ``train``, ``validation`` and perhaps ``test``, and the answers that a head chooses among.

    ``dropped`` counts the training questions left out because their answer is not in the list, ``bad`` those that could
    not be used.
    """

    answers: tuple[str, ...]
    splits: Mapping[str, list[Example]]
    dropped: int = 0
    bad: tuple[BadRow, ...] = ()

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

    def without(self, images: AbstractSet[Path]) -> VqaData:
        """The same data without the questions about these images; raises :class:`DataError` when a split has no others."""
        if not images:
            return self
        splits = {name: [e for e in split if e.image not in images] for name, split in self.splits.items()}
        if empty := [name for name, split in splits.items() if not split]:
            raise DataError(f"no question of the split {empty[0]!r} has an image that can be read")
        return replace(self, splits=splits)


def kind_of(answer: str) -> str:
    """``number``, ``yes_no``, ``colour`` or ``object``: which of the reported groups an answer belongs to."""
    if answer.isdigit():
        return "number"
    if answer in ("yes", "no"):
        return "yes_no"
    return "colour" if set(answer.split("_")) <= COLOURS else "object"


def load_vqa_data(
    source: Path, seed: int = 0, *, grouped: bool = False, skip_bad: bool = False, min_coverage: float = MIN_COVERAGE,
    max_answers: int = MAX_ANSWERS,
) -> VqaData:  # fmt: skip
    """Read ``source`` in any of the layouts; where it has no validation split, a tenth of the questions is held out by ``seed``.

    Of several answers the first is the label. The tenth is drawn by row, as DAQUAR's own split is, so that some questions
    are on both sides with the same image; ``grouped`` keeps those on one side. Without an answer list of its own the data
    gets its ``max_answers`` most frequent ones. Raises :class:`DataError` for rows that cannot be used, unless ``skip_bad``,
    and when less than ``min_coverage`` of the questions have their answer in the list.
    """
    found = read(source)
    if found.bad and not skip_bad:
        raise DataError(_listing(source, found))
    answers = _answers(source, found, max_answers)
    place = {answer: i for i, answer in enumerate(answers)}
    splits = {name: [_example(row, place) for row in rows] for name, rows in found.rows.items()}
    if "train" in splits and "validation" not in splits:
        splits["train"], splits["validation"] = _hold_out(splits["train"], seed, grouped=grouped)
    asked, held = splits.get("train", []), splits.get("validation", [])
    known = [example for example in asked if example.answer >= 0]
    _check_coverage(source, [*asked, *held], answers, min_coverage)
    if not known or not held:
        raise DataError(
            f"{source}: {len(asked) + len(held)} questions are too few; {len(known)} to train on and "
            f"{len(held)} held out are left"
        )
    return VqaData(answers, {**splits, "train": known}, len(asked) - len(known), tuple(found.bad))


def _example(row: Row, place: Mapping[str, int]) -> Example:
    label = row.answers[0]
    return Example(row.question, row.image, place.get(label, -1), row.answers, row.kind or kind_of(label))


def _listing(source: Path, found: Read) -> str:
    total = sum(map(len, found.rows.values())) + len(found.bad)
    first = "; ".join(map(str, found.bad[:SHOWN]))
    more = f" and {len(found.bad) - SHOWN} more" if len(found.bad) > SHOWN else ""
    return f"{source.name}: {len(found.bad)} of {total} rows cannot be used ({first}{more}); --skip-bad leaves them out"


def _answers(source: Path, found: Read, most: int) -> tuple[str, ...]:
    """The data's own list, or where there is none the answers that most questions have, those of most first."""
    counted = Counter(row.answers[0] for name, rows in found.rows.items() if name != "test" for row in rows)
    answers = found.answers or tuple(answer for answer, _ in counted.most_common(most))
    if len(answers) < 2:  # noqa: PLR2004 - a choice takes two
        raise DataError(f"{source}: {len(answers)} distinct answers; at least two are needed")
    return answers


def _check_coverage(source: Path, examples: Sequence[Example], answers: Sequence[str], least: float) -> None:
    share = sum(example.answer >= 0 for example in examples) / max(1, len(examples))
    if share < least:
        raise DataError(
            f"{source.name}: its list of {len(answers)} answers has those of {share:.1%} of the questions, at least {least:.1%} "
            f"are asked for; accepted: a longer list, a higher --max-answers, or --min-coverage {int(1000 * share) / 1000:g}"
        )


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
