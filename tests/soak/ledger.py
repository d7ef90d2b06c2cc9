"""What has been published, and which answers are right: kept beside the server, by what it was told and has confirmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.soak.recognisable import TEXTS, Version

OK, GONE, REFUSED = 200, 410, 429
TOLERANCE = 1e-3  # of a probability's logarithm: far more than float32 needs, far less than lies between two versions


@dataclass(slots=True)
class Line:
    """One adapter's versions, and all that its alias ``live`` pointed at in turn.

    An entry of ``live`` is there before the server is asked for it; those before ``settled`` are over, as the server has said.
    Versions up to the number ``published`` have been confirmed. ``deleting`` holds those whose deletion was asked for,
    ``deleted`` those whose deletion was confirmed.
    """

    name: str
    versions: dict[int, Version] = field(default_factory=dict)
    published: int = 0
    live: list[int] = field(default_factory=list)
    settled: int = 0
    deleting: set[int] = field(default_factory=set)
    deleted: set[int] = field(default_factory=set)

    @property
    def kept(self) -> list[int]:
        """The versions that exist."""
        return [number for number in self.versions if number not in self.deleting]

    def settle(self, versions: int = 1) -> None:
        """The server has confirmed what it was asked for last, be it a split over several versions."""
        self.settled = len(self.live) - versions


@dataclass(frozen=True, slots=True)
class Question:
    """Texts, by their numbers, for the adapters of some lines, by a version's number, or None for what is live.

    ``settled`` and ``deleted`` are what was certain of each line when the question was asked.
    """

    texts: Sequence[int]
    lines: Sequence[Line]
    versions: Sequence[int | None]
    settled: Sequence[int]
    deleted: bool

    @classmethod
    def about(cls, texts: Sequence[int], asked: Sequence[tuple[Line, int | None]]) -> Question:
        """A question that is asked now."""
        lines, versions = [line for line, _ in asked], [version for _, version in asked]
        gone = any(version in line.deleted for line, version in asked)
        return cls(texts, lines, versions, [line.settled for line in lines], gone)

    @property
    def body(self) -> dict[str, object]:
        """The request's body."""
        selectors = [
            line.name if version is None else f"{line.name}:{version}"
            for line, version in zip(self.lines, self.versions, strict=True)
        ]
        texts = [TEXTS[number] for number in self.texts]
        if len(texts) == len(selectors) == 1:
            return {"text": texts[0], "adapter": selectors[0]}
        return {"texts": texts, "adapters": selectors}

    def fault(self, status: int, answer: Mapping[str, Any]) -> str:
        """What is wrong with the answer, or nothing; to be refused for lack of room is not wrong."""
        if status == REFUSED or (status == GONE and self._may_be_gone()):
            return ""
        if status != OK:
            return f"{self.body}: {status} {answer}"
        if self.deleted:
            return f"{self.body}: answered, though a version had been deleted before"
        wanted = [(text, place) for text in self.texts for place in range(len(self.lines))]
        rows = answer.get("results", [answer])
        if len(rows) != len(wanted):
            return f"{self.body}: {len(rows)} results, expected {len(wanted)}"
        faults = (self._row_fault(text, place, row) for (text, place), row in zip(wanted, rows, strict=True))
        return next(filter(None, faults), "")

    def _may_be_gone(self) -> bool:
        return any(version in line.deleting for line, version in zip(self.lines, self.versions, strict=True))

    def _row_fault(self, text: int, place: int, row: Mapping[str, Any]) -> str:
        line, asked = self.lines[place], self.versions[place]
        right = {asked} if asked is not None else set(line.live[self.settled[place] :])
        if row["adapter"] != line.name or row["version"] not in right:
            return f"{line.name}: answered by {row['adapter']}:{row['version']}, where versions {right} were right"
        version = line.versions[row["version"]]
        if set(row["scores"]) != set(version.labels):
            return f"{line.name}:{row['version']}: labels {list(row['scores'])}, expected {version.labels}"
        found, expected = [row["scores"][label] for label in version.labels], version.log_scores[text]
        if min(found) <= 0 or not np.abs(np.log(found) - expected).max() <= TOLERANCE:
            return f"{line.name}:{row['version']}: scores {found} of text {text}, expected {np.exp(expected).tolist()}"
        if row["label"] != next(iter(row["scores"])) or row["score"] != max(found):
            return f"{line.name}:{row['version']}: the best of {row['scores']} is not {row['label']} with {row['score']}"
        return ""
