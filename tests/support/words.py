"""A small problem in which one word tells the label, as data and as a folder that commands read."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from training.data import Split, TextData

WORDS = {"bad": ["awful", "terrible", "sad"], "good": ["great", "lovely", "happy"], "plain": ["table", "street", "paper"]}


def words_data(train: int = 48, held: int = 24, seed: int = 0) -> TextData:
    """The problem with three labels, of which each row has some noise."""
    pick, labels = random.Random(seed), list(WORDS)

    def split(rows: int) -> Split:
        texts = [
            " ".join([*pick.choices(WORDS[labels[row % 3]], k=4), *pick.choices(WORDS[pick.choice(labels)], k=1)])
            for row in range(rows)
        ]
        return Split(texts, [row % 3 for row in range(rows)])

    return TextData(tuple(labels), {"train": split(train), "validation": split(held), "test": split(held)})


def write_words(folder: Path) -> Path:
    """The problem as a folder with train.csv, validation.csv and test.csv."""
    data = words_data()
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in data.splits.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["text", "label"])
            out.writerows((text, data.labels[label]) for text, label in zip(split.texts, split.labels, strict=True))
    return folder
