"""The calls about training jobs, and how their events are followed over lost connections."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from service.client.call import Call, nothing, reading
from service.client.folders import read_file
from service.client.retries import BUSY, FIRST, LONGEST, Outcome
from service.errors import InvalidInput
from service.routes.training_views import JobList, JobView
from service.store.selector import check_name

PATH = "/v1/training-jobs"
PAGE = 100  # jobs asked for at a time
END = "end"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a training job: ``state``, ``progress``, ``metrics`` or ``end``, whose content is the whole job."""

    kind: str
    content: Mapping[str, Any]


def submit_job(
    data: Path,
    name: str,
    *,
    task: str | None = None,
    options: Mapping[str, Any] | None = None,
    alias: str | None = None,
    require: Mapping[str, str] | None = None,
    gate: Mapping[str, float] | None = None,
) -> Call[JobView]:
    """Train a version of the adapter ``name`` on the labelled texts in the file ``data``, and point ``alias`` at it.

    ``options`` are those of the training, such as ``{"epochs": 5}``; ``require`` is what the alias requires, as when it is
    moved; ``gate`` has what metrics must reach, such as ``{"accuracy": 0.8}``, else nothing is published.
    """
    form = {"name": check_name(name), "task": task, "alias": check_name(alias, "alias") if alias else None}
    documents = {"options": options, "require": require, "gate": gate}
    given = {key: value for key, value in form.items() if value is not None}
    given |= {key: json.dumps(dict(value)) for key, value in documents.items() if value}
    return Call(
        "POST", PATH, reading(JobView), form=given, files={"data": (data.name, read_file(data))}, repeatable=False
    )  # twice would be two trainings


def job(job: str) -> Call[JobView]:
    """How far a training job is, or what came of it."""
    return Call("GET", _at(job), reading(JobView))


def job_page(after: str | None = None, limit: int = PAGE) -> Call[JobList]:
    """At most so many training jobs, the newest first; ``next`` is where the following page begins."""
    query: dict[str, str | int] = {"limit": limit, **({"after": after} if after is not None else {})}
    return Call("GET", PATH, reading(JobList), query=query)


def cancel_job(job: str) -> Call[JobView | None]:
    """Cancel a training job; of one that is over the record is removed, and None is the answer."""

    def read(response: httpx.Response) -> JobView | None:
        return None if response.status_code == HTTPStatus.NO_CONTENT else reading(JobView)(response)

    return Call("DELETE", _at(job), read, repeatable=False)


@dataclass(slots=True)
class Following:
    """Following one job: what to ask for next, and what the lines mean that come.

    ``patience`` is how long, in seconds, nothing at all may come before the server counts as gone.
    """

    job: str
    patience: float
    ended: bool = False
    _last_id: str | None = None
    _kind: str = ""
    _data: list[str] = field(default_factory=list)
    _attempts: int = 0
    _heard: float = field(default_factory=time.monotonic)

    def call(self) -> Call[None]:
        """The request for the events after the last that came."""
        headers = {"last-event-id": self._last_id} if self._last_id is not None else {}
        return Call("GET", f"{_at(self.job)}/events", nothing, headers=headers)

    def read(self, line: str) -> JobEvent | None:
        """The event that a line completes, if it does."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "id":
            self._last_id = value
        elif name == "data":
            self._data.append(value)
        elif not line and self._data:
            event = JobEvent(self._kind, json.loads("\n".join(self._data)))
            self._data, self._attempts, self._heard = [], 0, time.monotonic()
            self.ended = event.kind == END
            return event
        return None

    def pause(self, outcome: Outcome) -> float | None:
        """Seconds until the events are asked for again, or None where this outcome is the last word."""
        if isinstance(outcome, httpx.Response) and outcome.status_code not in BUSY:
            return None
        self._data, seconds = [], min(LONGEST, FIRST * 2**self._attempts)
        self._attempts += 1
        return seconds if time.monotonic() + seconds < self._heard + self.patience else None


def _at(job: str) -> str:
    if not (job.isascii() and job.isalnum()):
        raise InvalidInput(f"{job[:80]!r} is the id of no training job; expected letters and digits, as jobs list shows them")
    return f"{PATH}/{job}"
