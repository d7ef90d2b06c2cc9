"""What there is to know of text data before training on it; no text of it is ever shown, only where it stands."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from training.data import MULTI, REGRESSION, BadRow, Split, TextData

PERCENTILES = (50, 90, 95, 99, 100)
CHUNK = 1000  # texts that the tokenizer gets at once
EXAMPLES = 5  # places that a list shows
MUCH = 0.01  # share of truncated texts worth a remark
UNEVEN = 10  # times as many rows of one label as of another, worth a remark


@dataclass(frozen=True, slots=True)
class SplitReport:
    """One split: its rows, its classes or values, its lengths in tokens, and what in it is doubtful.

    ``classes`` counts the rows of each label, ``values`` holds mean, standard deviation, minimum and maximum of each target of
    a regression. ``duplicates`` are rows whose normalised text came before, ``tokenless`` those without a token of their own.
    """

    rows: int
    classes: dict[str, int]
    values: dict[str, dict[str, float]]
    without_label: int
    lengths: dict[str, int]
    truncated: int
    tokenless: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a data set holds, and what may spoil what is learned from it.

    ``shared`` counts, for two splits ``a/b``, the rows of b whose normalised text is in a. ``conflicts`` are normalised texts
    with different targets, and ``conflict_rows`` the rows that have them, of which ``conflict_places`` names some.
    """

    problem_type: str
    labels: tuple[str, ...]
    max_length: int
    splits: dict[str, SplitReport]
    shared: dict[str, int]
    conflicts: int
    conflict_rows: int
    conflict_places: tuple[str, ...]
    bad: tuple[BadRow, ...]

    def as_json(self) -> str:
        """The report as a JSON document."""
        return json.dumps({**asdict(self), "remarks": self.remarks()}, indent=2, ensure_ascii=False)

    def table(self) -> Group:
        """A table and the remarks, for a terminal."""
        table = Table(self.problem_type, *self.splits)
        for row in _rows(self):
            table.add_row(*map(escape, row)) if row else table.add_section()
        return Group(table, *(f"[yellow]•[/] {escape(remark)}" for remark in self.remarks()))

    def remarks(self) -> list[str]:
        """What is worth looking into, a sentence each."""
        found = [_about_bad(self.bad)] if self.bad else []
        if "validation" not in self.splits:
            found.append("no validation split: training holds out a tenth of the training split")
        found += [f"{_count(n)} of {b} with a text that {a} has too: figures on {b} flatter" for (a, b), n in self._shared() if n]
        if self.conflicts:
            places = ", ".join(self.conflict_places) + ", …" * (self.conflict_rows > EXAMPLES)
            found.append(f"{_count(self.conflict_rows)} with a text that has different labels: {places}")
        for name, split in self.splits.items():
            found += _about_split(name, split, self.max_length)
        return found + _about_balance(self.splits["train"].classes if "train" in self.splits else {})

    def _shared(self) -> Iterator[tuple[list[str], int]]:
        return ((pair.split("/"), n) for pair, n in self.shared.items())


def report_on(data: TextData, tokenizer: Any, max_length: int) -> DataReport:
    """Look over the data as a model with this tokenizer and ``max_length`` tokens will see it."""
    keys = {name: [normalised(text) for text in split.texts] for name, split in data.splits.items()}
    splits = {name: _of_split(data, split, keys[name], tokenizer, max_length) for name, split in data.splits.items()}
    known = {name: set(of_split) for name, of_split in keys.items()}
    shared = {f"{a}/{b}": sum(key in known[a] for key in keys[b]) for a, b in combinations(keys, 2)}
    targets: dict[str, set[Any]] = defaultdict(set)
    for name, split in data.splits.items():
        for key, target in zip(keys[name], split.labels, strict=True):
            targets[key].add(target)
    disputed = {key for key, found in targets.items() if len(found) > 1}
    places = [
        f"{name}:{line}"
        for name, split in data.splits.items()
        for key, line in zip(keys[name], split.lines, strict=True)
        if key in disputed
    ]
    return DataReport(
        problem_type=data.problem_type,
        labels=data.labels,
        max_length=max_length,
        splits=splits,
        shared=shared,
        conflicts=len(disputed),
        conflict_rows=len(places),
        conflict_places=tuple(places[:EXAMPLES]),
        bad=data.bad,
    )


def normalised(text: str) -> str:
    """A text as duplicates are compared: Unicode's compatible form, without case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _of_split(data: TextData, split: Split, keys: Sequence[str], tokenizer: Any, max_length: int) -> SplitReport:
    lengths = _lengths(tokenizer, split.texts)
    ranks = np.percentile(lengths, PERCENTILES, method="higher") if len(split) else np.zeros(len(PERCENTILES))
    is_regression = data.problem_type == REGRESSION
    return SplitReport(
        rows=len(split),
        classes={} if is_regression else _classes(data, split),
        values=_values(data, split) if is_regression and split.texts else {},
        without_label=sum(target == () for target in split.labels),
        lengths={_rank(rank): int(n) for rank, n in zip(PERCENTILES, ranks, strict=True)},
        truncated=int((lengths > max_length).sum()),
        tokenless=int((lengths <= tokenizer.num_special_tokens_to_add()).sum()),
        duplicates=len(keys) - len(set(keys)),
    )


def _lengths(tokenizer: Any, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Tokens of each text before anything is cut, those that the model's input begins and ends with included."""
    found: list[int] = []
    for start in range(0, len(texts), CHUNK):
        found += map(len, tokenizer(list(texts[start : start + CHUNK]), verbose=False)["input_ids"])
    return np.array(found, dtype=int)


def _classes(data: TextData, split: Split) -> dict[str, int]:
    counts = Counter(i for target in split.labels for i in (target if data.problem_type == MULTI else (target,)))
    return {label: counts[i] for i, label in enumerate(data.labels)}


def _values(data: TextData, split: Split) -> dict[str, dict[str, float]]:
    columns = np.array(split.labels, dtype=float).reshape(-1, len(data.labels)).T
    return {
        label: {name: round(float(getattr(column, name)()), 6) for name in ("mean", "std", "min", "max")}
        for label, column in zip(data.labels, columns, strict=True)
    }


def _rows(report: DataReport) -> Iterator[tuple[str, ...]]:
    """The rows of the table: a name, then a cell for each split; an empty row is a rule."""
    splits = report.splits.values()
    yield ("rows", *(f"{split.rows:,}" for split in splits))
    for rank in PERCENTILES:
        name = _rank(rank)
        yield (f"tokens, {name}", *(f"{split.lengths[name]:,}" for split in splits))
    yield (f"over {report.max_length} tokens", *(_share(split.truncated, split.rows) for split in splits))
    yield ("without a token", *(_share(split.tokenless, split.rows) for split in splits))
    yield ("duplicates", *(_share(split.duplicates, split.rows) for split in splits))
    yield ()
    for label in report.labels:
        if report.problem_type == REGRESSION:
            yield (label, *(_spread(split.values.get(label)) for split in splits))
        else:
            yield (label, *(_share(split.classes[label], split.rows) for split in splits))
    if report.problem_type == MULTI:
        yield ("no label", *(_share(split.without_label, split.rows) for split in splits))


def _rank(rank: int) -> str:
    return f"p{rank}" if rank < PERCENTILES[-1] else "max"


def _share(count: int, rows: int) -> str:
    return f"{count:,} ({count / rows:.1%})" if count else "–"


def _spread(values: dict[str, float] | None) -> str:
    return "{mean:.4g} ± {std:.4g}, {min:.4g} to {max:.4g}".format(**values) if values else "–"


def _about_bad(bad: Sequence[BadRow]) -> str:
    places = "; ".join(map(str, bad[:EXAMPLES])) + "; …" * (len(bad) > EXAMPLES)
    return f"{_count(len(bad))} cannot be used; training stops there unless --skip-bad: {places}"


def _count(rows: int) -> str:
    return f"{rows:,} row{'s' * (rows > 1)}"


def _about_split(name: str, split: SplitReport, max_length: int) -> Iterator[str]:
    if not split.rows:
        yield f"the split {name} is empty"
    elif split.truncated / split.rows >= MUCH:
        cut = f"{split.truncated / split.rows:.1%} of {name} are cut at {max_length} tokens"
        yield f"{cut}; {split.lengths['p99']} would keep 99% whole"
    if split.tokenless:
        yield f"{_count(split.tokenless)} of {name} without a token"
    if split.duplicates:
        yield f"{_count(split.duplicates)} of {name} with a text that it has before"


def _about_balance(classes: dict[str, int]) -> list[str]:
    unseen = [label for label, count in classes.items() if not count]
    if unseen:
        return [f"no training row has the label {', '.join(unseen)}"]
    if len(classes) > 1 and (most := max(classes.values())) >= UNEVEN * (least := min(classes.values())):
        return [f"the most frequent label has {most / least:.0f} times the rows of the rarest; --class-weights evens that out"]
    return []
