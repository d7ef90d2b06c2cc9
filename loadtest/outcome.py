"""What came of a run of requests: when each was due, how long it took, what was answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from loadtest.load import percentile

OK, REFUSED, NO_ANSWER = 200, 429, 0
RAMP = 0.1  # the share of a run in which it gets up to speed, which its rate leaves out


@dataclass(slots=True)
class Outcome:
    """A run's requests in the order of their ends; times are in seconds.

    ``due`` is when each was to be sent, from the run's start, ``took`` how long it was until the answer from then, and
    ``status`` the answer's, 0 without one. Requests were sent for ``seconds``; ``cpu`` is the client's own processor time.
    """

    due: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0

    def __len__(self) -> int:
        return len(self.due)

    def add(self, due: float, took: float, status: int) -> None:
        """Note one more request."""
        self.due.append(due)
        self.took.append(took)
        self.status.append(status)

    @property
    def rate(self) -> float:
        """Answers with 200 a second, while requests were sent."""
        start = RAMP * self.seconds
        ends = [due + took for due, took, status in zip(self.due, self.took, self.status, strict=True) if status == OK]
        return sum(start < end <= self.seconds for end in ends) / (self.seconds - start)

    def count(self, wanted: Callable[[int], bool]) -> int:
        """How many requests had such a status."""
        return sum(map(wanted, self.status))

    def milliseconds(self, share: float, status: int = OK) -> float:
        """A percentile of the times of the requests with this status; not a number where there was none."""
        times = [took for took, found in zip(self.took, self.status, strict=True) if found == status]
        return 1e3 * percentile(times, share) if times else float("nan")

    def between(self, start: float, stop: float) -> Outcome:
        """The requests that were due from ``start`` up to ``stop``."""
        chosen = [i for i, due in enumerate(self.due) if start <= due < stop]
        picked = Outcome(seconds=stop - start)
        for i in chosen:
            picked.add(self.due[i] - start, self.took[i], self.status[i])
        return picked
