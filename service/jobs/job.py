"""One training: what was asked for, which never changes, and how far it has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

QUEUED: Final = "queued"
RUNNING: Final = "running"
PUBLISHING: Final = "publishing"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
State = Literal["queued", "running", "publishing", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = (QUEUED, RUNNING, PUBLISHING, SUCCEEDED, FAILED, CANCELLED)
FINAL = frozenset((SUCCEEDED, FAILED, CANCELLED))


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Order(_Record):
    """What was asked for: ``name`` is the adapter's, ``source`` what the data's file was called, ``data`` what it is here.

    ``options`` has only what was given; ``who`` is the caller, for the audit log.
    """

    name: str
    task: str
    source: str
    data: str
    base_model: str
    options: Mapping[str, Any]
    alias: str | None = None
    require: Mapping[str, str] | None = None
    gate: Mapping[str, float] | None = None
    who: str
    created: datetime


class Result(_Record):
    """The bundle that came of it: its version once that is published, and the alias that was pointed at it."""

    digest: str
    metrics: Mapping[str, Mapping[str, float]]
    version: int | None = None
    alias: str | None = None


class Fault(_Record):
    """Why it failed: a stable word, and a line for a person."""

    code: str
    detail: str


class Status(_Record):
    """How far it has come; ``attempts`` counts the processes begun for it that were not told to stop.

    ``cancelled`` is set as soon as somebody has asked for that.
    """

    state: State = QUEUED
    attempts: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    cancelled: bool = False
    result: Result | None = None
    error: Fault | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A training by its id; ids sort by when they were made."""

    id: str
    order: Order
    status: Status

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status.state in FINAL
