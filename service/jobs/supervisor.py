"""The thread that trains: it begins what waits, looks after what runs, publishes what is done."""

from __future__ import annotations

import logging
import threading
import time

from service.errors import QuickchangeError, StoreFull, Unavailable
from service.jobs.folder import BUNDLE
from service.jobs.job import CANCELLED, FAILED, PUBLISHING, QUEUED, RUNNING, SUCCEEDED, Fault, Job
from service.jobs.jobs import Jobs
from service.jobs.process import Training, death, fault_in, is_trained
from service.jobs.publishing import publish
from service.tasks.lifecycle import Lifecycle

log = logging.getLogger(__name__)
MOST_ATTEMPTS = 3  # at a training whose process dies without a word
TURN_SECONDS = 0.25
IDLE_SECONDS = 2.0  # between looks at jobs that another server runs
AGAIN_SECONDS = 5.0  # until the next attempt to publish while database or store are away
STOP_SECONDS = 15.0  # for checkpoints when the server stops


class Supervisor:
    """Trains what is in ``jobs``, at most ``most_running`` at a time with ``threads`` each, and publishes by ``lifecycle``."""

    def __init__(self, jobs: Jobs, lifecycle: Lifecycle, most_running: int, threads: int) -> None:
        self.jobs, self._lifecycle, self._most_running, self._threads = jobs, lifecycle, most_running, threads
        self._running: dict[str, Training] = {}
        self._leaving = threading.Event()
        self._publish_at = 0.0
        self._thread = threading.Thread(target=self._run, name="training jobs", daemon=True)

    def start(self) -> None:
        """Begin; what an earlier server has left is gone on with."""
        self._thread.start()

    def leave(self) -> None:
        """Begin to stop: trainings are told to save a checkpoint and end."""
        self._leaving.set()
        self.jobs.changed.set()

    def stop(self) -> None:
        """Stop, and return when no training runs any more."""
        self.leave()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._leaving.is_set():
            self.jobs.changed.clear()
            is_mine = False
            try:
                is_mine = self.jobs.own()
                if is_mine:
                    self._turn()
            except Exception:  # whatever it is, the next turn may go better; a job's own faults end the job
                log.exception("a turn of the training jobs failed")
            self.jobs.changed.wait(TURN_SECONDS if is_mine else IDLE_SECONDS)
        self._end_all()
        self.jobs.folder.release()

    def _turn(self) -> None:
        for job in self.jobs.in_state(RUNNING):
            self._look_after(job, self._running.get(job.id))
        self._publish_all()
        while len(self._running) < self._most_running and (claimed := self.jobs.claim()) is not None:
            self._begin(claimed)

    def _begin(self, job: Job) -> None:
        try:
            self._running[job.id] = Training(self.jobs.folder.place(job.id), self._threads)
        except QuickchangeError as error:
            self._fail(job, Fault(code=error.code, detail=str(error)))
        except OSError as error:
            log.error("the training %s cannot be begun: %s", job.id, error)
            self._settle(job, "its process could not be started")

    def _look_after(self, job: Job, training: Training | None) -> None:
        if training is None:  # begun by a server that was killed, and its trainings with it
            self._settle(job, "the server ended meanwhile")
            return
        code = training.ended()
        if code is None and not job.status.cancelled:
            return
        training.kill()  # or what it may have started
        self._settle(job, death(code or 0))
        del self._running[job.id]

    def _settle(self, job: Job, said: str) -> None:
        """What becomes of a job without a process: it is published, or trained on, or over."""
        folder = self.jobs.folder.place(job.id)
        fault = fault_in(folder)
        if job.status.cancelled:
            self.jobs.end(job.id, CANCELLED)
        elif is_trained(folder):
            self.jobs.update(job.id, state=PUBLISHING)
            self._publish_at = 0.0
        elif fault is not None:
            self._fail(job, fault)
        elif job.status.attempts >= MOST_ATTEMPTS:
            self._fail(job, Fault(code="training_died", detail=f"given up after {job.status.attempts} attempts: {said}"))
        else:
            log.warning("the training %s is begun again: %s", job.id, said)
            self.jobs.update(job.id, state=QUEUED)

    def _publish_all(self) -> None:
        if time.monotonic() < self._publish_at:
            return
        for job in self.jobs.in_state(PUBLISHING):
            if job.status.cancelled:
                self.jobs.end(job.id, CANCELLED)
                continue
            try:
                result, fault = publish(job, self.jobs.folder.place(job.id) / BUNDLE, self._lifecycle)
            except (Unavailable, StoreFull) as error:
                log.warning("the training %s cannot be published now: %s", job.id, error)
                self._publish_at = time.monotonic() + AGAIN_SECONDS
                continue
            except Exception:
                log.exception("the training %s cannot be published", job.id)
                result, fault = None, Fault(code="internal", detail="something went wrong inside the server")
            self.jobs.end(job.id, SUCCEEDED if fault is None else FAILED, result=result, error=fault)

    def _fail(self, job: Job, fault: Fault) -> None:
        self.jobs.end(job.id, FAILED, error=fault)

    def _end_all(self) -> None:
        """Stop what runs; it goes on from its checkpoint when a server starts again."""
        for training in self._running.values():
            training.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and any(training.ended() is None for training in self._running.values()):
            time.sleep(0.02)
        for job, training in self._running.items():
            training.kill()
            self._put_off(self.jobs.get(job))

    def _put_off(self, job: Job) -> None:
        try:
            if job.status.cancelled or fault_in(self.jobs.folder.place(job.id)) is not None:
                self._settle(job, "")
            else:  # being stopped is no failure, so the attempt does not count
                self.jobs.update(job.id, state=QUEUED, attempts=job.status.attempts - 1)
        except QuickchangeError as error:
            log.warning("the training %s counts an attempt more than it had: %s", job.id, error)
