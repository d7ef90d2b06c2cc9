"""A small problem in which one word tells the label, as data and as a folder that commands read."""

from __future__ import annotations

import csv
import random
from pathlib import Path

WORDS = {"bad": ["awful", "terrible", "sad"], "good": ["great", "lovely", "happy"], "plain": ["table", "street", "paper"]}


def write_words(folder: Path, train: int = 48, held: int = 24, seed: int = 0) -> Path:
    """A folder with train.csv, validation.csv and test.csv of three labels."""
    pick = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    labels = list(WORDS)
    for split, rows in (("train", train), ("validation", held), ("test", held)):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["text", "label"])
            for row in range(rows):
                label = labels[row % 3]
                noise = pick.choices(WORDS[pick.choice(labels)], k=1)
                out.writerow([" ".join([*pick.choices(WORDS[label], k=4), *noise]), label])
    return folder
