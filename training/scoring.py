"""Labelled rows, and scoring them by an adapter wherever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from service.store.bundle import TEXT_CLASSIFICATION, Manifest
from training.anywhere import Adapter, Scores
from training.data import DataError, ReadOptions, Split, TextData, load_text_data
from training.data_types import MULTI, REGRESSION, SINGLE
from training.metrics import HALF
from training.scored import Scored, logits_of_scores
from training.slices import slices
from training.vqa_data import Example, load_vqa_data

T = TypeVar("T")
BATCH = 32  # texts or questions at a time
IMAGES = 8  # images at a time
ALL = "all"
ELSEWHERE = "(none of its answers)"  # the true answer of a question whose answer no list holds


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts, or questions about images, with true targets by name: a label, a tuple of labels, or a tuple of values."""

    problem_type: str
    labels: tuple[str, ...]
    true: Sequence[Any]
    texts: Sequence[str] = ()
    examples: Sequence[Example] = ()
    slices: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.true)


def load_rows(source: str, split: str, manifest: Manifest, options: ReadOptions, seed: int = 0) -> Rows:
    """One split of ``source``, or ``all`` of them one after another, read for an adapter with this manifest.

    Raises :class:`DataError` for data that cannot be read, or has no such split.
    """
    if manifest.task != TEXT_CLASSIFICATION:
        data = load_vqa_data(Path(source), seed)
        return vqa_rows(data.answers, _joined(source, split, data.splits))
    read = load_text_data(source, replace(options, problem_type=manifest.problem_type), seed)
    parts = _joined(source, split, {name: list(zip(part.texts, part.labels, strict=True)) for name, part in read.splits.items()})
    texts, labels = [text for text, _ in parts], [label for _, label in parts]
    return text_rows(read, Split(texts, labels))


def text_rows(data: TextData, split: Split) -> Rows:
    """The rows of a split of text data."""
    true = [_named(data, target) for target in split.labels]
    return Rows(data.problem_type, data.labels, true, split.texts, slices=slices(split.texts))


def _named(data: TextData, target: Any) -> Any:
    if data.problem_type == SINGLE:
        return data.labels[target]
    if data.problem_type == MULTI:
        return tuple(data.labels[label] for label in target)
    return target if isinstance(target, tuple) else (target,)


def vqa_rows(answers: Sequence[str], examples: Sequence[Example]) -> Rows:
    """The rows of questions about images, with a slice for each kind of answer."""
    true = [answers[example.answer] if example.answer >= 0 else ELSEWHERE for example in examples]
    kinds: dict[str, list[int]] = {kind: [] for kind in sorted({example.kind for example in examples})}
    for row, example in enumerate(examples):
        kinds[example.kind].append(row)
    return Rows(SINGLE, tuple(dict.fromkeys(true)), true, examples=examples, slices=kinds)


def score(adapter: Adapter, rows: Rows, labels: Sequence[str] = (), console: Console | None = None) -> Scored:
    """The rows as an adapter answers them; ``labels`` are the first to count with, such as those of another adapter, too.

    Raises :class:`DataError` when a text's label, or the kind of problem, is not the adapter's.
    """
    manifest = adapter.manifest
    rows = _fitting(adapter, rows)
    known = (
        manifest.labels if rows.problem_type == REGRESSION else tuple(dict.fromkeys([*labels, *manifest.labels, *rows.labels]))
    )
    scores = _about_images(adapter, rows, console) if rows.examples else _of_texts(adapter, rows, console)
    of_label = dict(zip(manifest.labels, manifest.thresholds or (), strict=False))
    thresholds = tuple(of_label.get(label, HALF) for label in known) if of_label else None
    logits = logits_of_scores(scores, known, rows.problem_type)
    return Scored(rows.problem_type, known, _placed(rows, known), logits, thresholds, rows.slices)


def _placed(rows: Rows, labels: Sequence[str]) -> list[Any]:
    """The true targets with places in ``labels`` for names."""
    place = {label: i for i, label in enumerate(labels)}
    if rows.problem_type == SINGLE:
        return [place[label] for label in rows.true]
    return [tuple(place[label] for label in chosen) for chosen in rows.true] if rows.problem_type == MULTI else list(rows.true)


def _fitting(adapter: Adapter, rows: Rows) -> Rows:
    """The rows with the adapter's names for the values of a regression, which have no other."""
    manifest = adapter.manifest
    if manifest.problem_type != rows.problem_type:
        raise DataError(f"{adapter.name} is a {manifest.problem_type}; the data is a {rows.problem_type}")
    if rows.problem_type == REGRESSION:
        if len(rows.labels) != len(manifest.labels):
            raise DataError(f"{adapter.name} gives {len(manifest.labels)} values; the data has {len(rows.labels)}")
        return replace(rows, labels=manifest.labels)
    unknown = [] if rows.examples else sorted(set(rows.labels) - set(manifest.labels))
    if unknown:
        has = ", ".join(manifest.labels)
        raise DataError(f"label {unknown[0]!r} of the data is not that of the adapter {adapter.name}; it has {has}")
    return rows


def _of_texts(adapter: Adapter, rows: Rows, console: Console | None) -> list[Scores]:
    """The scores of each text; those of about one length are asked together."""
    order = sorted(range(len(rows)), key=lambda row: len(rows.texts[row]))
    found: list[Scores] = [{}] * len(rows)
    for start in _tracked(range(0, len(order), BATCH), console):
        chosen = order[start : start + BATCH]
        for row, scores in zip(chosen, adapter.classify([rows.texts[row] for row in chosen]), strict=True):
            found[row] = scores
    return found


def _about_images(adapter: Adapter, rows: Rows, console: Console | None) -> list[Scores]:
    """The scores of each question; those about one image are asked together."""
    about: dict[Path, list[int]] = {}
    for row, example in enumerate(rows.examples):
        about.setdefault(example.image, []).append(row)
    pieces = [(image, asked[i : i + BATCH]) for image, asked in about.items() for i in range(0, len(asked), BATCH)]
    found: list[Scores] = [{}] * len(rows)
    for start in _tracked(range(0, len(pieces), IMAGES), console):
        chosen = pieces[start : start + IMAGES]
        asked = [(image.read_bytes(), [rows.examples[row].question for row in places]) for image, places in chosen]
        places = [row for _, some in chosen for row in some]
        for row, scores in zip(places, adapter.answer(asked), strict=True):
            found[row] = scores
    return found


def _tracked(steps: range, console: Console | None) -> Any:
    return steps if console is None else track(steps, "scoring", console=console, transient=True)


def _joined(source: str, split: str, splits: Mapping[str, Sequence[T]]) -> list[T]:
    if split == ALL:
        return [row for part in splits.values() for row in part]
    if split not in splits:
        raise DataError(f"{source}: no split {split!r}; it has {', '.join(splits)}, and {ALL} means every row")
    return list(splits[split])
