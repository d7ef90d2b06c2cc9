"""How late the event loop is: the wait that any request meets before any of our code runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL = 0.5  # seconds


class LoopDelay:
    """A timer that goes off every half second and tells ``observe`` by how many seconds it was late."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; needs a running event loop."""
        loop = asyncio.get_running_loop()
        due = loop.time() + INTERVAL
        self._timer = loop.call_at(due, lambda: self._went_off(loop.time() - due))

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    def _went_off(self, late: float) -> None:
        self._observe(max(0.0, late))
        self.start()
