"""What the logits of a text adapter's head say: one label of several, any number of labels, or values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple, Protocol

import torch

from service.store.bundle import Manifest
from service.store.problem_types import DEFAULT_THRESHOLD, MULTI_LABEL, REGRESSION

ALIKE = 0.1  # how far two values may be apart and still agree, as a part of the larger
_score = itemgetter(1)


class Read(NamedTuple):
    """What a row's logits say: scores by label, of which the first is the answer, and the labels that apply.

    Labels apply only where each is decided for itself. Scores are sorted from the best down, but a regression's values
    are in the order of their names.
    """

    scores: list[tuple[str, float]]
    labels: list[str] | None = None


class Reading(Protocol):
    """How the logits of one version are read; chosen when it is loaded, so that no row asks for its kind."""

    def read(self, logits: Sequence[float]) -> Read:
        """What finite logits, one for each label, say."""

    def agrees(self, one: Read, other: Read) -> bool:
        """Whether a row of this version and another's are decided alike; of ``one``, the first score is enough."""


@dataclass(frozen=True, slots=True)
class SingleLabel:
    """One label of several: softmax; two rows agree on the best.

    In Python: torch would let go of its lock for each row, and the device might wait long to have it back.
    """

    names: tuple[str, ...]

    def read(self, logits: Sequence[float]) -> Read:
        most = max(logits)
        parts = [math.exp(logit - most) for logit in logits]
        whole = sum(parts)
        scores = [part / whole for part in parts]
        return Read(sorted(zip(self.names, scores, strict=True), key=_score, reverse=True))

    def agrees(self, one: Read, other: Read) -> bool:
        return one.scores[0][0] == other.scores[0][0]


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """Each label for itself: sigmoid; those that reach their threshold apply, and two rows agree when these are the same.

    By torch's sigmoid, as thresholds were tuned.
    """

    thresholds: Mapping[str, float]

    def read(self, logits: Sequence[float]) -> Read:
        scores = torch.tensor(logits).sigmoid().tolist()
        ranked = sorted(zip(self.thresholds, scores, strict=True), key=_score, reverse=True)
        return Read(ranked, [label for label, score in ranked if score >= self.thresholds[label]])

    def agrees(self, one: Read, other: Read) -> bool:
        return other.labels is not None and set(one.labels or ()) == set(other.labels)


@dataclass(frozen=True, slots=True)
class Regression:
    """Values as they are; two rows agree when their first values are at most :data:`ALIKE` apart."""

    names: tuple[str, ...]

    def read(self, logits: Sequence[float]) -> Read:
        return Read(list(zip(self.names, logits, strict=True)))

    def agrees(self, one: Read, other: Read) -> bool:
        (name, value), (other_name, other_value) = one.scores[0], other.scores[0]
        return name == other_name and math.isclose(value, other_value, rel_tol=ALIKE)


def reading_of(manifest: Manifest) -> Reading:
    """How logits of a version with this manifest are read."""
    labels = manifest.labels
    if manifest.problem_type == MULTI_LABEL:
        thresholds = manifest.thresholds or (DEFAULT_THRESHOLD,) * len(labels)
        return MultiLabel(dict(zip(labels, thresholds, strict=True)))
    return Regression(labels) if manifest.problem_type == REGRESSION else SingleLabel(labels)
