"""The registry's database: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from service.errors import StartupError, StoreFull, Unavailable
from service.store.bell import SOCKET_SECONDS, Bell, Listener, unix_socket

log = logging.getLogger(__name__)
HEAD = "0001"  # the newest migration
FILE = "registry.db"
LOCK_SECONDS = 5  # to wait for another's change before a client is told to come again
POSTGRES = "postgresql"
FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, "53100", "53400"}
ACCEPTED = "sqlite:///FILE, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


class Database:
    """Transactions on a database whose tables are up to date.

    SQLite keeps its rollback journal: with the write-ahead log, versions before 3.51.3 can damage the file when several
    processes write. Raises :class:`StartupError` for an address that is none, or where no database answers.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url = _parsed(url, folder)
        if url is None:
            folder.mkdir(parents=True, exist_ok=True)
        self.is_postgres = self._url.get_backend_name() == POSTGRES
        self._engine = _postgres(self._url) if self.is_postgres else _sqlite(self._url)
        self._changing = threading.Lock()
        try:
            with self.change() as connection:
                _migrate(connection, is_postgres=self.is_postgres)
        except (Unavailable, StoreFull):
            raise StartupError(f"QUICKCHANGE_REGISTRY_URL={self}: no database that can be read and written") from None

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of everything; raises :class:`Unavailable` when the database does not answer."""
        with _errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """A transaction that writes, durable when it ends without an exception.

        Raises :class:`Unavailable` when the database does not answer or others hold it for long, and :class:`StoreFull`.
        """
        if not self._changing.acquire(timeout=LOCK_SECONDS):
            raise Unavailable("the registry is busy with other changes; ask again in a moment")
        try:
            with _errors(), self._engine.execution_options(writes=True).begin() as connection:
                yield connection
        finally:
            self._changing.release()

    def bell(self) -> Bell:
        """What tells that another server has changed something."""
        return Listener(self._url) if self.is_postgres else Bell()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def _parsed(url: str | None, folder: Path) -> URL:
    if url is None:
        return URL.create("sqlite", database=str(folder / FILE))
    with suppress(ArgumentError, ValueError):
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite" and parsed.database:
            return parsed.set(drivername="sqlite")
        if backend in (POSTGRES, "postgres"):
            return parsed.set(drivername=f"{POSTGRES}+pg8000")
    raise StartupError(f"QUICKCHANGE_REGISTRY_URL={url.partition('://')[0][:20]}://…: no such database; accepted: {ACCEPTED}")


def _sqlite(url: URL) -> Engine:
    # No pool: a connection is opened in less than a millisecond, and kept ones would come and go with the threads that ask.
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # else the driver begins transactions of its own
        # EXTRA is FULL and an fsync of the folder after the journal is removed, without which a power cut can undo a commit.
        for pragma in ("journal_mode=DELETE", "synchronous=EXTRA", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and then writes fails at once when another writes, whatever the time-out.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres(url: URL) -> Engine:
    path = unix_socket(url)
    if path is not None:
        url = url.set(query={}).update_query_dict({"unix_sock": path})
    engine = create_engine(url, pool_pre_ping=True, connect_args={"timeout": SOCKET_SECONDS, "tcp_keepalive": True})

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        cursor.execute("SET default_transaction_isolation = 'repeatable read'")
        connection.commit()
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            # Under repeatable read the second of two changes would fail; they are to wait for each other instead.
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    return engine


def _migrate(connection: Connection, *, is_postgres: bool) -> None:
    if is_postgres:
        connection.execute(text("SELECT pg_advisory_xact_lock(7331)"))  # several servers may start at once
    known = inspect(connection)
    if known.has_table("alembic_version") and connection.scalar(text("SELECT version_num FROM alembic_version")) == HEAD:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "service.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        original = getattr(error, "orig", None) if isinstance(error, DBAPIError) else error
        log.warning("the registry's database: %s", str(original or error).partition("\n")[0])
        details = original.args[0] if original is not None and original.args else {}
        code = getattr(original, "sqlite_errorcode", None) or (details.get("C") if isinstance(details, dict) else None)
        if code in FULL:
            raise StoreFull("the registry's database cannot take another byte; nothing was changed") from None
        raise Unavailable("the registry's database does not answer now; ask again in a moment") from None
