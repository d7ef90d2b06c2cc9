"""What is reported of answers to questions about images: accuracy in all and by type of question, and WUPS.

WUPS is the measure of DAQUAR's authors (Malinowski and Fritz, 2014), computed as their own script does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.vqa_data import Example
from training.wordnet import WordNet, find_wordnet

THRESHOLDS = (0.9, 0.0)
DOWN = 0.1  # what is left of a similarity below the threshold
NO_WORDNET = (
    "WUPS is left out: no WordNet found; apt-get install wordnet-base, or --wordnet FOLDER with its index.noun and data.noun"
)
Similarity = Callable[[str, str], float]


def similarity_of(folder: Path | None) -> Similarity | None:
    """How alike two answers are, from WordNet in ``folder`` or where it is installed; None if it is nowhere."""
    wordnet = find_wordnet(folder)
    return None if wordnet is None else cache(lambda first, second: similarity(wordnet, first, second))


def similarity(wordnet: WordNet, first: str, second: str) -> float:
    """1 for equal answers, otherwise that of their most alike synsets; 0 for a word that WordNet does not have."""
    if first == second:
        return 1.0
    pairs = [(a, b) for a in wordnet.synsets(first) for b in wordnet.synsets(second)]
    return max((wordnet.similarity(a, b) for a, b in pairs), default=0.0)


def wups(given: Collection[str], true: Collection[str], alike: Similarity, threshold: float) -> float:
    """The score of a set of answers against the true set: the lesser of both products over the best match of each answer."""

    def scaled(first: str, second: str) -> float:
        value = alike(first, second)
        return value if value >= threshold else DOWN * value

    here = prod(max(scaled(answer, other) for other in true) for answer in given)
    return min(here, prod(max(scaled(other, answer) for answer in given) for other in true))


def figures(predicted: Sequence[str], examples: Sequence[Example], alike: Similarity | None = None) -> dict[str, float]:
    """Accuracy by each question's first answer, by any of its answers where some have several, and by type; WUPS if asked."""
    right = correct(predicted, examples)
    found = {"accuracy": _mean(right)}
    if any(len(example.accepted) > 1 for example in examples):
        found["accuracy_any"] = _mean(np.array([p in e.accepted for p, e in zip(predicted, examples, strict=True)]))
    kinds = np.array([example.kind for example in examples])
    found |= {f"accuracy_{kind}": _mean(right[kinds == kind]) for kind in sorted(set(kinds.tolist()))}
    if alike is not None:
        for threshold in THRESHOLDS:
            scores = [wups({p}, set(e.accepted), alike, threshold) for p, e in zip(predicted, examples, strict=True)]
            found[f"wups_{threshold}"] = _mean(np.array(scores))
    return found


def correct(predicted: Sequence[str], examples: Sequence[Example]) -> NDArray[np.bool_]:
    """Whether each question got its first answer, (n,)."""
    return np.array([answer == example.accepted[0] for answer, example in zip(predicted, examples, strict=True)])


def _mean(values: NDArray[np.generic]) -> float:
    return round(float(values.mean()), 4)
