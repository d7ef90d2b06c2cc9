"""The training jobs of a server: asked for, looked at, cancelled; in memory for readers, and on the disk first."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from service.errors import NotFound, Overloaded, Unavailable
from service.jobs.folder import JobsFolder
from service.jobs.job import CANCELLED, FINAL, QUEUED, RUNNING, STATES, Job, Order, State, Status

MOST_KEPT = 1000  # jobs that are over; beyond, the oldest go
RETRY_SECONDS = 30  # after which a place in the queue may be free
OWNED = "another server runs the training jobs of this folder; ask that one, or give this one a JOBS_DIR of its own"


class Jobs:
    """The jobs in ``folder``, of which ``most_waiting`` may wait. Methods may be called from any thread."""

    def __init__(self, folder: JobsFolder, most_waiting: int) -> None:
        self.folder, self._most_waiting = folder, most_waiting
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = folder.load()
        self.changed = threading.Event()

    def own(self) -> bool:
        """Whether this server runs the jobs. Where another one does, what that has done is read anew."""
        with self._lock:
            if not self.folder.root.is_dir():
                return False
            if self.folder.is_owned:
                return True
            if self.folder.own():
                self.folder.tidy()
            self._jobs = self.folder.load()
            return self.folder.is_owned

    def submit(self, order: Order, data: bytes) -> Job:
        """Put a training at the end of the queue, on the disk before this returns.

        Raises :class:`Overloaded` when the queue is full, :class:`StoreFull`, and :class:`Unavailable` where another server
        runs the jobs.
        """
        with self._lock:
            self.folder.make()
            self._check_owned()
            waiting = self.counts()[QUEUED]
            if waiting >= self._most_waiting:
                raise Overloaded(f"{waiting} trainings wait already; no further one is taken", RETRY_SECONDS)
            job = Job(self._new_id(), order, Status())
            self.folder.create(job, data)
            self._jobs[job.id] = job
        self.changed.set()
        return job

    def get(self, job: str, prefix: str = "") -> Job:
        """A job by its id, if its adapter's name begins with ``prefix``; raises :class:`NotFound`."""
        found = self._jobs.get(job)
        if found is None or not found.order.name.startswith(prefix):
            raise NotFound(f"no training job {job[:80]!r}")
        return found

    def page(self, limit: int, after: str = "", prefix: str = "") -> tuple[list[Job], str | None]:
        """At most so many jobs, the newest first, from the one before ``after`` on; and what the next page comes after."""
        with self._lock:
            ids = sorted(self._jobs, reverse=True)
            older = [self._jobs[job] for job in ids if not after or job < after]
        found = [job for job in older if job.order.name.startswith(prefix)]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def counts(self) -> Mapping[State, int]:
        """How many jobs are in each state."""
        with self._lock:
            found = Counter(job.status.state for job in self._jobs.values())
        return {state: found[state] for state in STATES}

    def in_state(self, state: State) -> list[Job]:
        """The jobs in a state, the oldest first."""
        with self._lock:
            return [job for _, job in sorted(self._jobs.items()) if job.status.state == state]

    def claim(self) -> Job | None:
        """The job that has waited longest, which is running from now on."""
        with self._lock:
            waiting = self.in_state(QUEUED)
            if not waiting:
                return None
            status = waiting[0].status
            return self.update(
                waiting[0].id, state=RUNNING, attempts=status.attempts + 1, started=status.started or datetime.now(UTC)
            )

    def update(self, job: str, **changes: Any) -> Job:
        """Change a job's status, on the disk first; raises :class:`StoreFull`, and then nothing has changed."""
        with self._lock:
            present = self._jobs[job]
            status = present.status.model_copy(update=changes)
            self.folder.write(job, status)
            self._jobs[job] = changed = Job(job, present.order, status)
        self.changed.set()
        return changed

    def end(self, job: str, state: State, **changes: Any) -> None:
        """Note that a job is over, and remove what is not needed any more: its data, and the oldest of those that are over."""
        with self._lock:
            self.update(job, state=state, finished=datetime.now(UTC), **changes)
            self.folder.empty(job)
            over = sorted(known for known, one in self._jobs.items() if one.is_final)
            for known in over[:-MOST_KEPT]:
                self._remove(known)

    def cancel(self, job: str, prefix: str = "") -> Job | None:
        """Cancel a job, at once where it waits; of one that is over the record goes, and None is returned.

        Raises :class:`NotFound`, :class:`StoreFull` and :class:`Unavailable`.
        """
        with self._lock:
            found = self.get(job, prefix)
            self._check_owned()
            state = found.status.state
            if state in FINAL:
                self._remove(job)
                return None
            if state == QUEUED:
                self.end(job, CANCELLED, cancelled=True)
            elif not found.status.cancelled:
                self.update(job, cancelled=True)
            return self._jobs[job]

    def _remove(self, job: str) -> None:
        self.folder.remove(job)
        del self._jobs[job]

    def _check_owned(self) -> None:
        if not self.folder.is_owned and not self.own():
            raise Unavailable(OWNED)

    def _new_id(self) -> str:
        """Twelve digits of the milliseconds, so that ids sort by time, and eight by chance; never one before another's."""
        newest = max(self._jobs, default="")[:12]
        now = max(f"{time.time_ns() // 1_000_000:012x}", f"{int(newest or '0', 16) + 1:012x}")
        return f"{now}{secrets.token_hex(4)}"
