"""Training jobs as folders, which are the truth about them: a job is there from when its folder has its name.

A job's folder has ``job.json`` and the data, both written once, and ``state.json``; its training adds ``progress.jsonl``,
``error.json``, checkpoints and the bundle.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from service.errors import StoreFull, Unavailable
from service.jobs.job import Job, Order, Status

log = logging.getLogger(__name__)
ID = re.compile(r"[0-9a-f]{20}")
ORDER, STATE, PROGRESS, ERROR, LOG = "job.json", "state.json", "progress.jsonl", "error.json", "training.log"
BUNDLE = "bundle"
KEPT = (ORDER, STATE, PROGRESS, LOG)  # of a job that is over
LOCK, INCOMING, LEAVING = ".lock", ".incoming-", ".leaving-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class JobsFolder:
    """The folder of all jobs, made by the first of them. One process at a time may change it: the one that owns it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock: int | None = None

    @property
    def is_owned(self) -> bool:
        """Whether :meth:`own` has said yes."""
        return self._lock is not None

    def own(self) -> bool:
        """Whether this process may change the folder, from now until :meth:`release` or its end, however that comes."""
        lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def release(self) -> None:
        """Let another process own the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def place(self, job: str) -> Path:
        """A job's folder."""
        return self.root / job

    def make(self) -> None:
        """Make the folder itself; raises :class:`StoreFull` where that is not possible."""
        with _writing():
            self.root.mkdir(parents=True, exist_ok=True)

    def create(self, job: Job, data: bytes) -> None:
        """Write a new job, which is there whole or not at all; raises :class:`StoreFull`."""
        staging = self.root / f"{INCOMING}{job.id}"
        try:
            with _writing():
                staging.mkdir()
                _write(staging / job.order.data, data)
                _write(staging / ORDER, job.order.model_dump_json(indent=2).encode())
                _write(staging / STATE, job.status.model_dump_json(indent=2).encode())
                _sync(staging)
                staging.rename(self.place(job.id))
                _sync(self.root)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def load(self) -> dict[str, Job]:
        """Every job by its id, in order; one that cannot be read is left out, and said in the log."""
        if not self.root.is_dir():
            return {}
        found = {}
        for name in sorted(entry.name for entry in self.root.iterdir() if ID.fullmatch(entry.name)):
            try:
                order = Order.model_validate_json((self.place(name) / ORDER).read_bytes())
                found[name] = Job(name, order, Status.model_validate_json((self.place(name) / STATE).read_bytes()))
            except (OSError, ValidationError) as error:
                log.error("the training job %s cannot be read: %s", name, type(error).__name__)
        return found

    def write(self, job: str, status: Status) -> None:
        """Replace a job's state at once; raises :class:`StoreFull`."""
        staged = self.place(job) / f"{INCOMING}{STATE}"
        with _writing():
            _write(staged, status.model_dump_json(indent=2).encode())
            staged.replace(self.place(job) / STATE)
            _sync(self.place(job))

    def empty(self, job: str) -> None:
        """Remove all that a job which is over needs no more: its data above all."""
        for path in self.place(job).iterdir():
            if path.name not in KEPT:
                _remove(path)

    def remove(self, job: str) -> None:
        """Remove a job; what an interruption leaves of it has no job's name."""
        leaving = self.root / f"{LEAVING}{job}"
        with suppress(FileNotFoundError):
            self.place(job).rename(leaving)
        _remove(leaving)

    def tidy(self) -> None:
        """Remove what interrupted changes have left."""
        for path in self.root.iterdir():
            if path.name.startswith((INCOMING, LEAVING)):
                _remove(path)


def _write(file: Path, data: bytes) -> None:
    with file.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.error("the folder of the training jobs cannot be written: %s", error.strerror)
        if error.errno in FULL:
            raise StoreFull("the folder of the training jobs cannot take another byte; nothing was changed") from None
        raise Unavailable("the folder of the training jobs cannot be written now; nothing was changed") from None
