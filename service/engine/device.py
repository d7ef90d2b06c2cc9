"""The one thread that runs forwards: the device computes one batch at a time, whichever pipeline it comes from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Device:
    """A thread that everything touching the models' forward passes goes through, in order of arrival.

    ``prepare`` runs on it first, once.
    """

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device", initializer=prepare)

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` on the device thread without blocking the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def call(self, call: Callable[[], T], /) -> T:
        """Run ``call`` on the device thread and block this thread, which must be neither it nor the event loop's."""
        return self._thread.submit(call).result()

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._thread.shutdown()
