"""What labels mean: the problem type they make, the names of the labels, and the target of each row."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from reprlib import Repr
from typing import Any

from training.data_types import AUTO, MULTI, PROBLEM_TYPES, REGRESSION, SINGLE, DataError, ReadOptions, Target

FLAGS = {"0": False, "1": True, "false": False, "true": True}
_SHORT = Repr()
_SHORT.maxstring = 40


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing, or a string of nothing but spaces."""
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def word(value: Any) -> str:
    """A label as it is named: 1.0 is ``1``, and spaces around it do not count."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def problem_type_of(cells: Sequence[Any], columns: Sequence[str], known: bool, options: ReadOptions) -> str:
    """The problem type: the one that ``options`` name, or else by the first of these rules that holds.

    ``cells`` are the cells of the label column (lists of cells where there are several columns), over all splits and without
    the blank ones; ``known`` says that the labels are, from the data's own declaration or the mapping of ``options``.

    1. Several label columns: all 0 or 1 (or true, false) make a multi-label problem whose labels are the columns; all
       numbers, with at least one fraction, a regression whose values are the columns; anything else is refused.
    2. A list in any cell: multi-label.
    3. Only numbers, with at least one fraction, and the labels not known: regression. 1.0 is the whole number 1.
    4. ``label_separator`` within any cell: multi-label.
    5. Everything else, whole numbers and strings: single-label.

    In multi-label data of one column an empty list or cell is a row without labels; everywhere else a blank cell is a label
    that is missing, and so is null.

    Raises :class:`DataError` for columns that are neither, or an unknown ``options.problem_type``.
    """
    if options.problem_type != AUTO:
        if options.problem_type not in PROBLEM_TYPES:
            raise DataError(f"no problem type {options.problem_type!r}; accepted: {AUTO}, {', '.join(PROBLEM_TYPES)}")
        return options.problem_type
    if len(columns) > 1:
        words = {word(one) for cell in cells for one in cell}
        if all(one.lower() in FLAGS for one in words):
            return MULTI
        if _are_fractions(words):
            return REGRESSION
        raise DataError(
            f"the label columns {', '.join(columns)} hold neither only 0 and 1 nor fractions; "
            f"say by --problem-type which they are meant as, {MULTI} or {REGRESSION}"
        )
    if any(isinstance(cell, list) for cell in cells):
        return MULTI
    words = {word(cell) for cell in cells}
    if not known and _are_fractions(words):
        return REGRESSION
    return MULTI if any(options.label_separator in one for one in words) else SINGLE


def _are_fractions(words: Iterable[str]) -> bool:
    numbers = [_number(one) for one in words]
    return None not in numbers and any(number is not None and not number.is_integer() for number in numbers)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the label columns of a data set mean: each cell's target is an index into ``labels``, several, or values."""

    problem_type: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    separator: str

    @classmethod
    def of(cls, cells: Sequence[Any], columns: Sequence[str], declared: tuple[str, ...] | None, options: ReadOptions) -> Meaning:
        """The meaning of the cells that are not blank, over all splits. Raises :class:`DataError` for a contradiction."""
        kind = problem_type_of(cells, columns, bool(declared or options.labels), options)
        made = cls(kind, options.labels or declared or (), tuple(columns), options.label_separator)
        if len(set(made.labels)) < len(made.labels):
            raise DataError(f"the mapping has a label twice: {', '.join(made.labels)}")
        if kind == SINGLE and len(columns) > 1:
            raise DataError(f"{SINGLE} takes one label column, not {', '.join(columns)}")
        if kind == REGRESSION:
            return made._with(made._names_of_values(options))
        if len(columns) > 1:
            unknown = set(columns) - set(made.labels) if made.labels else set()
            if unknown:
                raise DataError(f"the label column {min(unknown)!r} is not in the mapping; it has {', '.join(made.labels)}")
            return made if made.labels else made._with(tuple(columns))
        return made if made.labels else made._with(_in_order({one for cell in cells for one in made._words(cell)}))

    def _with(self, labels: tuple[str, ...]) -> Meaning:
        return Meaning(self.problem_type, labels, self.columns, self.separator)

    def _names_of_values(self, options: ReadOptions) -> tuple[str, ...]:
        names = options.labels or self.columns
        if len(names) != len(self.columns):
            raise DataError(f"the mapping names {len(names)} values for {len(self.columns)} label columns")
        return names

    def target(self, cell: Any) -> Target | str:
        """The target that a cell means (a list of cells where there are several columns), or why it means none."""
        several = len(self.columns) > 1
        cells = cell if several else [cell]
        lacks = is_missing if self.problem_type == MULTI and not several else is_blank
        for column, one in zip(self.columns, cells, strict=True):
            if lacks(one):
                return f"no value in the column {column!r}" if several else "no label"
        if self.problem_type == REGRESSION:
            return self._values(cells)
        if several:
            return self._flags(cells)
        if self.problem_type == SINGLE and isinstance(cell, list | dict):
            return "a list of labels where one is expected"
        words = self._words(cell)
        for one in words:
            if one not in self.labels:
                return f"label {_SHORT.repr(one)} is not in the mapping; it has {', '.join(self.labels)}"
        return self.labels.index(words[0]) if self.problem_type == SINGLE else tuple(sorted({*map(self.labels.index, words)}))

    def _words(self, cell: Any) -> list[str]:
        """The labels that a cell of one column names."""
        if self.problem_type == SINGLE:
            return [word(cell)]
        parts = cell if isinstance(cell, list) else word(cell).split(self.separator)
        return [word(part) for part in parts if not is_blank(part)]

    def _flags(self, cells: Sequence[Any]) -> Target | str:
        for column, one in zip(self.columns, cells, strict=True):
            if word(one).lower() not in FLAGS:
                return f"{_SHORT.repr(word(one))} in the column {column!r} is neither 0 nor 1"
        return tuple(sorted(self.labels.index(c) for c, one in zip(self.columns, cells, strict=True) if FLAGS[word(one).lower()]))

    def _values(self, cells: Sequence[Any]) -> Target | str:
        values: list[float] = []
        for one in cells:
            number = _number(word(one))
            if number is None:
                return f"{_SHORT.repr(word(one))} is not a number"
            values.append(number)
        return values[0] if len(values) == 1 else tuple(values)


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Whole numbers by value, anything else by the alphabet."""
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
