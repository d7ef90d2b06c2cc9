"""A made-up problem that a tiny model learns in seconds, and recipes for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from training.data import Split, TextData
from training.data_types import MULTI, REGRESSION, SINGLE
from training.text_model import Recipe

WORDS = {"bad": ["awful", "terrible", "sad"], "good": ["great", "lovely", "happy"]}


def problem(rows: int = 160, problem_type: str = SINGLE, held_out: int = 40) -> TextData:
    """Texts of bad or good words. Multi-label rows may hold both; a regression's value is 100 and 10 for each good word."""
    pick = random.Random(0)
    texts, targets = [], []
    for row in range(rows):
        kinds = ["bad", "good"] if problem_type == MULTI and row % 3 == 0 else [("bad", "good")[row % 2]]
        good = pick.randint(0, 6)
        counts = {"good": good, "bad": 6 - good} if problem_type == REGRESSION else dict.fromkeys(kinds, pick.randint(2, 5))
        texts.append(" ".join(word for kind, count in counts.items() for word in pick.choices(WORDS[kind], k=count)))
        present: Any = tuple(sorted(("bad", "good").index(kind) for kind in kinds))
        targets.append({SINGLE: present[0], MULTI: present, REGRESSION: 100.0 + 10 * good}[problem_type])
    cut = rows - held_out
    splits = {"train": Split(texts[:cut], targets[:cut]), "validation": Split(texts[cut:], targets[cut:])}
    return TextData(("value",) if problem_type == REGRESSION else ("bad", "good"), splits, problem_type)


def recipe(base: Path, **changes: Any) -> Recipe:
    """A recipe that learns it: three epochs of small batches in float32."""
    chosen: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", **changes}
    return Recipe(base_model=str(base), **chosen)


def as_csv(data: TextData, file: Path) -> Path:
    """Every row of the data as a CSV file with the columns text and label."""
    rows = [pair for part in data.splits.values() for pair in zip(part.texts, part.labels, strict=True)]
    file.write_text("text,label\n" + "".join(f"{text},{data.shown(label)}\n" for text, label in rows), "utf-8")
    return file
