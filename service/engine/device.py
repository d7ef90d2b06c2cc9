"""The one thread that runs forwards: the device computes one batch at a time, whichever pipeline it comes from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


class Device:
    """A thread that everything touching the models' forward passes goes through, in order of arrival.

    ``prepare`` runs on it first, once.
    """

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device", initializer=prepare)

    def submit(self, call: Callable[[], object], /) -> None:
        """Run ``call`` on the device thread some time; what it raises is logged."""
        self._thread.submit(call).add_done_callback(_log_failure)

    def call(self, call: Callable[[], T], /) -> T:
        """Run ``call`` on the device thread and block this thread, which must be neither it nor the event loop's."""
        return self._thread.submit(call).result()

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._thread.shutdown()


def _log_failure(done: Future[object]) -> None:
    if error := done.exception():
        log.error("a call on the device thread failed", exc_info=error)
