"""What the users of one load test share: the mix, the adapters to choose from, images, and the server's own times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from loadtest.images import drawing
from loadtest.texts import texts

REPEATED_IMAGES = 8
REPEATS = 0.5  # the share of image requests whose image the server has seen before
ZIPF = 1.0
TIMES = {"queue": "x-queue-time", "inference": "x-inference-time"}


class Load:
    """One run's choices and observations; ``mix`` has a weight for each kind of request."""

    def __init__(self, mix: Mapping[str, float], adapters: Sequence[str], seed: int = 0) -> None:
        self.random = Random(seed)
        self.texts = texts(self.random)
        self.adapters = list(adapters)
        self._kinds, self._weights = list(mix), list(mix.values())
        self._images = [drawing(self.random) for _ in range(REPEATED_IMAGES)]
        self._times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def kind(self) -> str:
        """The next request's kind."""
        return self.random.choices(self._kinds, self._weights)[0]

    def adapter(self) -> str:
        """An adapter, by Zipf's law: the first is asked for most often."""
        weights = [1 / place**ZIPF for place in range(1, len(self.adapters) + 1)]
        return self.random.choices(self.adapters, weights)[0]

    def image(self) -> bytes:
        """One of the few images that come again, or a new one."""
        return self.random.choice(self._images) if self.random.random() < REPEATS else drawing(self.random)

    def observe(self, kind: str, headers: Mapping[str, str]) -> None:
        """Note the times that an answer's headers report."""
        for name, header in TIMES.items():
            if header in headers:
                self._times[kind][name].append(float(headers[header]))

    def server_times(self, kind: str) -> dict[str, float]:
        """Median and 95th percentile of the server's times for a kind, in milliseconds: ``queue_p50`` and so on."""
        found = self._times.get(kind, {})
        return {f"{name}_p{percent}": percentile(values, percent / 100) for name, values in found.items() for percent in (50, 95)}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
