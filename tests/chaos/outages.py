"""What the server needs for changes is away for a while: the registry locked, PostgreSQL dead, S3 ill."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

from service.store.database import FILE
from tests.chaos.rows import Row
from tests.chaos.subject import Subject, Trial, tried
from tests.support.postgres import Postgres
from tests.support.s3 import Door, Fault

CREATED, OK, AWAY = HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE
NOTICED, BACK = 15.0, 30.0  # seconds until the server says that something is away, and that it is back
FAULTS: dict[Fault, str] = {
    "slow": "S3 slow, half a second for each answer",
    "fail": "S3 failing every request with 500",
    "lose": "S3 losing answers: done, and 500 all the same",
    "stranger": "S3 behind a proxy that answers 404",
    "truncate": "S3 breaking off amid every answer",
    "stall": "S3 accepting requests and answering none",
}
WORKING: tuple[Fault, ...] = ("slow", "lose")  # changes may succeed all the same


def locked_registry(subject: Subject, folder: Path, seconds: float) -> Row:
    """Somebody else holds SQLite's file for so long."""

    def act(trial: Trial) -> str:
        with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                trial.expect(subject.upload(), AWAY)
                trial.expect(subject.move(), AWAY)
            await_status(trial, "degraded", NOTICED)
            holder.execute("ROLLBACK")
        return await_status(trial, "ready", BACK)

    return tried(subject, f"registry locked for {seconds:g} s", act)


def dead_postgres(subject: Subject, postgres: Postgres, rounds: int) -> Row:
    """PostgreSQL is killed with all its processes, and started again, so many times."""

    def act(trial: Trial) -> str:
        for _ in range(rounds):
            trial.expect(subject.upload(), CREATED)
            postgres.kill()
            trial.expect(subject.upload(), AWAY)
            trial.expect(subject.move(), AWAY)
            await_status(trial, "degraded", NOTICED)
            postgres.revive()
            remark = await_status(trial, "ready", BACK)
        return remark

    return tried(subject, f"PostgreSQL killed and back, {rounds} times", act)


def ill_s3(subject: Subject, door: Door, fault: Fault, rounds: int) -> Row:
    """Every request to S3 goes wrong while so many uploads come."""

    def act(trial: Trial) -> str:
        door.fault = lambda _method, _path: fault
        for _ in range(rounds):
            trial.expect(subject.upload(), *((CREATED, AWAY) if fault in WORKING else (AWAY,)))
            trial.expect(subject.move(), OK)  # which needs the database alone
            trial.faults += subject.faults()
        if fault not in WORKING:
            await_status(trial, "degraded", BACK)
        door.fault = lambda _method, _path: None
        return await_status(trial, "ready", BACK)

    return tried(subject, FAULTS[fault], act)


def await_status(trial: Trial, status: str, seconds: float) -> str:
    """Wait until the server says so of itself, which it is at fault for not saying in time; says how long it took."""
    began = time.monotonic()
    while (said := trial.subject.status()) != status:
        if time.monotonic() > began + seconds:
            trial.faults.append(f"{said} after {seconds:g} s, not {status}")
            break
        time.sleep(0.1)
    return f"{status} again after {time.monotonic() - began:.1f} s"
