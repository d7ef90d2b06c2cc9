"""What text data is once it is read: texts with their targets in splits, the rows that could not be used, and how to read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PROBLEM_TYPES = (SINGLE, MULTI, REGRESSION)
AUTO = "auto"

Target = int | tuple[int, ...] | float | tuple[float, ...]
"""A label's index; the indices of all labels, ascending; a value, or a value for each label."""


class DataError(Exception):
    """The data cannot be used as it is; the text says what was found and what would be accepted."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why; ``line`` is 1-based, and the row's number where the format has no lines.

    ``place`` is where that is, as messages name it: the file and the line.
    """

    split: str
    line: int
    reason: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(slots=True)
class Split:
    """Texts, each one's :data:`Target` by the problem type, and the line where each begins (by default the row's number)."""

    texts: list[str]
    labels: list[Any]
    lines: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = self.lines or list(range(1, len(self.texts) + 1))

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class TextData:
    """Texts with targets in splits (``train``, ``validation`` and perhaps ``test``), and the names of the labels or values.

    ``bad`` are the rows left out because they could not be used.
    """

    labels: tuple[str, ...]
    splits: dict[str, Split]
    problem_type: str = SINGLE
    bad: tuple[BadRow, ...] = ()

    @property
    def digest(self) -> str:
        """``sha256:…`` over every text and target in order."""
        digest = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            for text, target in zip(split.texts, split.labels, strict=True):
                digest.update(f"{name}\x1f{self.shown(target)}\x1f{text}\x1e".encode())
        return f"sha256:{digest.hexdigest()}"

    def shown(self, target: Any) -> str:
        """A target in words: the label, the labels joined by ``|``, or the value or values."""
        if self.problem_type == SINGLE:
            return str(self.labels[target])
        parts = target if isinstance(target, tuple) else (target,)
        return "|".join(self.labels[i] if self.problem_type == MULTI else repr(float(i)) for i in parts)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read data: which columns, what the labels mean, and whether rows that cannot be used are left out.

    ``label_column`` may name several columns, with commas. ``labels`` is the mapping: the names in their order, where a
    row with any other label cannot be used. ``label_separator`` joins the labels of a multi-label cell.
    """

    text_column: str | None = None
    label_column: str | None = None
    problem_type: str = AUTO
    label_separator: str = "|"
    labels: tuple[str, ...] | None = None
    skip_bad: bool = False
