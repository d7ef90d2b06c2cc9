"""Versions that answer beside others and are compared with them, and never heard."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Loaded = TypeVar("Loaded")
MOST = 1000  # comparisons that are kept; of more, the oldest goes


@dataclass(slots=True)
class Tally:
    """What came of the rows that two versions of an adapter have both answered.

    ``agreed`` counts rows that both decide alike, ``drift`` adds up by how much the score of the returned label differs,
    ``seconds`` the times of the forwards that both were in.
    """

    version: int
    shadow: int
    rows: int = 0
    agreed: int = 0
    drift: float = 0.0
    seconds: float = 0.0
    errors: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def compared(self, agrees: bool, drift: float, seconds: float) -> None:
        """Count a row that both have answered."""
        with self._lock:
            self.rows += 1
            self.agreed += agrees
            self.drift += drift
            self.seconds += seconds

    def failed(self, rows: int) -> None:
        """Count rows for which the shadow had no answer."""
        with self._lock:
            self.errors += rows


@dataclass(frozen=True, slots=True)
class Shadow(Generic[Loaded]):
    """A loaded version that answers beside another, and where the comparison is kept."""

    loaded: Loaded
    tally: Tally


class Comparisons:
    """The tallies of this server's shadows, by alias; an alias that compares other versions begins a new one."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._lock = threading.Lock()

    def tally(self, alias: str, version: int, shadow: int) -> Tally:
        """Where an alias's comparison of these versions is kept; ``alias`` is ``name@alias``."""
        found = self._tallies.get(alias)
        if found is not None and (found.version, found.shadow) == (version, shadow):
            return found
        with self._lock:
            self._tallies.pop(alias, None)
            while len(self._tallies) >= MOST:
                del self._tallies[next(iter(self._tallies))]
            return self._tallies.setdefault(alias, Tally(version, shadow))

    def get(self, alias: str) -> Tally | None:
        """An alias's comparison, where there is one."""
        return self._tallies.get(alias)

    def totals(self) -> dict[str, int]:
        """Rows of all comparisons that are kept, those that agreed, and those without an answer of the shadow."""
        tallies = list(self._tallies.values())
        return {
            "rows": sum(tally.rows for tally in tallies),
            "agreed": sum(tally.agreed for tally in tallies),
            "failed": sum(tally.errors for tally in tallies),
        }
