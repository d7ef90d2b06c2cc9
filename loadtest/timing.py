"""Times of calls that are compared: taken in turns, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median


def seconds(call: Callable[[], object]) -> float:
    """The time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each call over so many rounds, every other one in reverse; a round before them is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, rounds):
        for name in sorted(calls, reverse=bool(number % 2)):
            times[name].append(seconds(calls[name]))
    return {name: median(found[1:]) for name, found in times.items()}
