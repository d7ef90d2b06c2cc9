"""Takes over what other servers change, on a thread of its own."""

from __future__ import annotations

import logging
import threading

from service.errors import QuickchangeError, Unavailable
from service.store.registry import Registry

log = logging.getLogger(__name__)
SECONDS = 0.5  # between looks at a database that tells nobody of changes


class Watcher:
    """Keeps a registry's index up to date; ``problems`` says what does not answer at present.

    What is loaded goes on answering meanwhile.
    """

    def __init__(self, registry: Registry, seconds: float = SECONDS) -> None:
        self._registry, self._seconds = registry, seconds
        self._bell = registry.records.database.bell()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self.problems: tuple[str, ...] = ()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._bell.stop()
        self._thread.join()
        self._bell.close()

    def look(self) -> None:
        """Take over changes now, and note what does not answer."""
        problems = []
        for check in (self._registry.refresh, self._registry.store.check):
            try:
                check()
            except Unavailable as error:
                problems.append(str(error))
        self.problems = tuple(problems)

    def _watch(self) -> None:
        self._collect()
        while self._bell.wait(self._seconds):
            try:
                self.look()
            except Exception:
                log.exception("changes by other servers were not taken over")

    def _collect(self) -> None:
        try:
            self._registry.collect()
        except QuickchangeError as error:
            log.warning("left-over files stay for now: %s", error)
