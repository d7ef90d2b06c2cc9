"""A training job's progress as server-sent events: ``state``, ``progress``, ``metrics``, and one ``end``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter
from litestar.response import Stream

from service.errors import BadRequest, NotFound, Overloaded
from service.jobs.folder import PROGRESS
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.progress import read_on
from service.routes.caller import Caller
from service.routes.guards import KEEPS_TO_PREFIX
from service.routes.keys import READ
from service.routes.problems import documented
from service.routes.services import Lifetime, Services
from service.routes.training_jobs import JOB, TAG, jobs_of, view

POLL_SECONDS = 0.2
HEARTBEAT_SECONDS = 10.0
MOST_READERS = 64  # at a time
MOST_DIGITS = 15  # of an event's id
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
LastEventId = Annotated[str | None, HeaderParameter(name="last-event-id", description="go on after the event of this id")]


@get(
    JOB + "/events",
    opt={"scope": READ, KEEPS_TO_PREFIX: True},
    tags=[TAG],
    summary="Follow a training job",
    media_type="text/event-stream",
    responses=documented(400, 401, 403, 404, 429, 503),
    sync_to_thread=False,
)
def events(
    job: FromPath[str],
    services: NamedDependency[Services],
    caller: NamedDependency[Caller],
    last_event_id: LastEventId = None,
) -> Stream:
    """Its state, its progress and each epoch's figures as they come; `end` has all of the job once it is over."""
    jobs = jobs_of(services)
    jobs.get(job, caller.prefix)
    start = _place(last_event_id)
    if services.readers.open >= MOST_READERS:
        raise Overloaded(f"{services.readers.open} readers follow training jobs already; no further one is taken", 5)
    return Stream(_events(jobs, job, start, services), headers=HEADERS)


async def _events(jobs: Jobs, job: str, place: int, services: Services) -> AsyncIterator[bytes]:
    services.readers.open += 1
    try:
        async for event in _follow(jobs, job, place, services.lifetime):
            yield event
    finally:
        services.readers.open -= 1


async def _follow(jobs: Jobs, job: str, place: int, lifetime: Lifetime) -> AsyncIterator[bytes]:
    """The events from a place in the job's reports on, until it is over, removed, or the server drains."""
    told, spoken = "", time.monotonic()
    found: Job | None = jobs.get(job)
    while found is not None and not lifetime.draining:
        reports = await asyncio.to_thread(read_on, jobs.folder.place(job) / PROGRESS, place)
        # What led to a state comes before it, but for the first: a reader begins with where the job is.
        state = [_event("state", {"state": found.status.state})] if found.status.state != told else []
        told_of = [_event(report.event, report.content, report.end) for report in reports]
        for event in [*told_of, *state] if told else [*state, *told_of]:
            yield event
        told = found.status.state
        place = reports[-1].end if reports else place
        if not reports and found.is_final:
            shown = await asyncio.to_thread(view, jobs, found)
            yield _event("end", shown.model_dump(mode="json"), place)
            return
        if reports or state:
            spoken = time.monotonic()
        elif time.monotonic() - spoken > HEARTBEAT_SECONDS:
            spoken = time.monotonic()
            yield b": still here\n\n"
        if not reports:
            await asyncio.sleep(POLL_SECONDS)
        found = _still_there(jobs, job)


def _still_there(jobs: Jobs, job: str) -> Job | None:
    try:
        return jobs.get(job)
    except NotFound:
        return None


def _event(kind: str, content: dict[str, Any], place: int | None = None) -> bytes:
    numbered = f"id: {place}\n" if place is not None else ""
    return f"event: {kind}\n{numbered}data: {json.dumps(content)}\n\n".encode()


def _place(last_event_id: str | None) -> int:
    given = (last_event_id or "0").strip()
    if not (given.isascii() and given.isdecimal() and len(given) <= MOST_DIGITS):
        raise BadRequest(f"last-event-id {given[:40]!r} is the id of no event here; accepted: the last one that came")
    return int(given)
