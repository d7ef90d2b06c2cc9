"""The faults of ``make chaos`` in their long form, each part on servers of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from loadtest.server import ServerProcess
from service.store.bundle import Bundle
from tests.chaos import traffic
from tests.chaos.full_disk import full_disk
from tests.chaos.kills import Victims, kills
from tests.chaos.outages import FAULTS, dead_postgres, ill_s3, locked_registry
from tests.chaos.rows import Row
from tests.chaos.slow_clients import slow_clients
from tests.chaos.subject import Subject
from tests.support.bundles import save_tiny_base, text_bundle
from tests.support.postgres import Postgres
from tests.support.s3 import BUCKET, S3, Door, variables
from tests.support.server import bundle_parts

Say = Callable[[str], None]
Part = Callable[[Path, Say], list[Row]]
LOCKED, TRAFFIC = 60.0, 60.0  # seconds


def _kills_sqlite(scratch: Path, say: Say) -> list[Row]:
    with Victims() as victims:
        return kills(victims, scratch, say=say)


def _kills_postgres(scratch: Path, say: Say) -> list[Row]:
    with Postgres(scratch / "postgres") as postgres, Victims() as victims:
        return kills(victims, scratch, postgres, moments=0, say=say)


def _disk(scratch: Path, say: Say) -> list[Row]:
    with _subject(scratch) as subject:
        say("full disks")
        rows = full_disk(subject, scratch / "adapters", 10)
        say(f"the registry locked for {LOCKED:g} s")
        return [*rows, locked_registry(subject, scratch / "adapters", LOCKED)]


def _postgres(scratch: Path, say: Say) -> list[Row]:
    with Postgres(scratch / "postgres") as postgres, _subject(scratch, registry_url=postgres()) as subject:
        say("PostgreSQL killed and back")
        return [dead_postgres(subject, postgres, 3)]


def _s3(scratch: Path, say: Say) -> list[Row]:
    with S3() as s3, Door(s3.port) as door:
        os.environ.update(variables(door.url))
        rows = []
        with _subject(scratch, store_url=f"s3://{BUCKET}/chaos") as subject:
            for fault, name in FAULTS.items():
                say(name)
                rows.append(ill_s3(subject, door, fault, 2))
        return rows


def _clients(scratch: Path, say: Say) -> list[Row]:
    with _server(scratch) as (server, bundle):
        files = {name: (name, data) for name, data in bundle_parts(bundle).items()}
        published = httpx.post(f"{server.url}/v1/adapters/sentiment/versions", files=files, data={"alias": "live"})
        published.raise_for_status()
        say("slow clients")
        return [Row(*slow_clients(server.port))]


def _traffic(_scratch: Path, say: Say) -> list[Row]:
    say(f"traffic on an adapter that changes, for {TRAFFIC:g} s; then sixteen writers")
    return traffic.run(TRAFFIC)


@contextmanager
def _server(scratch: Path, **settings: str) -> Iterator[tuple[ServerProcess, Bundle]]:
    """A server on a tiny base model, and an adapter for it."""
    base = save_tiny_base(scratch / "base")
    bundle = text_bundle(base, ["literal", "ironic"], seed=3, r=1)
    with ServerProcess(scratch / "adapters", scratch / "server.log", base_model=base, **settings) as server:
        yield server, bundle


@contextmanager
def _subject(scratch: Path, **settings: str) -> Iterator[Subject]:
    """A server of its own as a subject, whose files are on the disk unless it has another store."""
    folder = None if "store_url" in settings else scratch / "adapters"
    with _server(scratch, **settings) as (server, bundle), Subject(server.url, server.pid, bundle, folder) as subject:
        yield subject


PARTS: dict[str, Part] = {
    "kills": _kills_sqlite,
    "kills-postgres": _kills_postgres,
    "disk": _disk,
    "postgres": _postgres,
    "s3": _s3,
    "clients": _clients,
    "traffic": _traffic,
}
