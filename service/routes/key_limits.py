"""What each API key may ask for at a time: requests a second, and requests in work."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from service.errors import Overloaded
from service.routes.keys import ApiKey

CLOSE = 1e-9  # to a whole request: what sums of floats lose


class Usage:
    """What one key uses now: a bucket of requests that fills at its rate, and the requests in work."""

    __slots__ = ("_at", "_left", "_running")

    def __init__(self) -> None:
        self._left, self._at, self._running = math.inf, 0.0, 0

    def begin(self, key: ApiKey) -> None:
        """Count one more request; raises :class:`Overloaded` when that is more than the key may."""
        if key.concurrency is not None and self._running >= key.concurrency:
            raise Overloaded(f"this API key has {self._running} requests in work; it may have {key.concurrency}")
        if key.rate is not None:
            self._spend(key.rate)
        self._running += 1

    def end(self) -> None:
        """The request is over, however it ended."""
        self._running -= 1

    def _spend(self, rate: float) -> None:
        now = time.monotonic()
        self._left = min(max(1.0, rate), self._left + (now - self._at) * rate)
        self._at = now
        if self._left < 1 - CLOSE:
            raise Overloaded(f"this API key may send {rate:g} requests a second", math.ceil((1 - self._left) / rate))
        self._left -= 1


class KeyLimits:
    """The usage of every key that has limits; only the event loop's thread may call it."""

    def __init__(self) -> None:
        self._usage: dict[str, Usage] = {}

    def begin(self, key: ApiKey) -> Usage | None:
        """Count one more request of a key, unless nothing limits it; raises as :meth:`Usage.begin` does."""
        if key.rate is None and key.concurrency is None:
            return None
        usage = self._usage.get(key.sha256)
        if usage is None:
            usage = self._usage[key.sha256] = Usage()
        usage.begin(key)
        return usage

    def keep(self, keys: Sequence[ApiKey]) -> None:
        """Forget the usage of all keys but these."""
        known = {key.sha256 for key in keys}
        self._usage = {sha256: usage for sha256, usage in self._usage.items() if sha256 in known}
