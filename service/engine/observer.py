"""What the engine tells of its work, to whoever counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One batch that was computed.

    ``tokens`` are those of all rows, ``longest`` those of the longest, ``shares`` counts whose rows they were;
    ``waited`` has for each row the seconds until its forward began. ``collate`` and ``forward`` are seconds.
    """

    rows: int
    tokens: int
    longest: int
    shares: int
    waited: Sequence[float]
    collate: float
    forward: float


class Observer(Protocol):
    """Hears of every batch, on the event loop, after its answers are given."""

    def computed(self, report: BatchReport, /) -> None: ...
