"""A disk that takes no more: while an upload is written, at the database's commit, and for whatever a body spills."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from service.store.database import FILE
from tests.chaos.rows import Row
from tests.chaos.subject import Subject, Trial, tried

LARGE = 8_000_000  # bytes: more than a server keeps of a form in memory, if it spills any
CREATED, FULL = HTTPStatus.CREATED, HTTPStatus.INSUFFICIENT_STORAGE


@contextmanager
def full(pid: int, size: int) -> Iterator[None]:
    """No file of the process grows beyond so many bytes; what it is told is what a full disk says."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def full_disk(subject: Subject, folder: Path, rounds: int) -> list[Row]:
    """So many rounds of each; ``folder`` has the subject's files and its database.

    A limit below the database's size would be no full disk: what a file has, it can write again.
    """

    def files(trial: Trial) -> str:
        for _ in range(rounds):
            size = (folder / FILE).stat().st_size
            with full(subject.pid, size):
                trial.expect(subject.upload(card=2 * size), FULL)
                trial.faults += subject.faults()
        return ""

    def commit(trial: Trial) -> str:
        for _ in range(rounds):
            with full(subject.pid, (folder / FILE).stat().st_size):
                while trial.expect(subject.upload(), CREATED, FULL).status_code == CREATED:
                    pass
                trial.faults += subject.faults()
        return ""

    def everything(trial: Trial) -> str:
        for _ in range(rounds):
            with full(subject.pid, 0):
                trial.expect(subject.upload(card=LARGE), FULL)
                trial.expect(subject.move(), FULL)
                trial.faults += subject.faults()
        return f"uploads of {LARGE / 1e6:g} MB"

    return [
        tried(subject, "disk full while an upload is written", files),
        tried(subject, "disk full at the database's commit", commit),
        tried(subject, "disk takes not a byte, of temporary files either", everything),
    ]
