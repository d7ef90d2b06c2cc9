"""What tells that another server has changed something."""

from __future__ import annotations

import logging
import select
import socket
import threading
from contextlib import suppress
from typing import Any, cast

from sqlalchemy import URL

log = logging.getLogger(__name__)
CHANNEL = "quickchange"
SOCKET_SECONDS = 15  # until a database that does not answer counts as away


class Bell:
    """Waits for a change by another server, or for a time: SQLite tells nobody."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait, at most so long; whether to go on waiting after that."""
        return not self._stopped.wait(seconds)

    def stop(self) -> None:
        """End every wait."""
        self._stopped.set()

    def close(self) -> None:
        """Give back what it holds, once nobody waits any more."""


class Listener(Bell):
    """Waits for PostgreSQL's notifications; while the database is away, for the time alone."""

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._url = url
        self._heard, self._calls = socket.socketpair()
        self._connection: Any = None
        self._socket: socket.socket | None = None

    def wait(self, seconds: float) -> bool:
        """Wait for a notification, at most so long; whether to go on waiting after that."""
        try:
            if self._connection is None:
                self._listen()
            ready = select.select([cast("socket.socket", self._socket), self._heard], [], [], seconds)[0]
            if self._socket in ready:
                self._connection.run("SELECT 1")  # reads what has come
        except Exception as error:  # whatever the driver makes of a lost connection
            log.debug("not listening: %s", error)
            self._hang_up()
            self._stopped.wait(seconds)
        return not self._stopped.is_set()

    def stop(self) -> None:
        """End every wait."""
        super().stop()
        self._calls.send(b"x")

    def close(self) -> None:
        """Give the connection back, once nobody waits any more."""
        self._hang_up()
        self._heard.close()
        self._calls.close()

    def _listen(self) -> None:
        import pg8000.native

        path, url = unix_socket(self._url), self._url
        if path is not None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(SOCKET_SECONDS)
            self._socket.connect(path)
        else:
            self._socket = socket.create_connection((url.host or "127.0.0.1", url.port or 5432), SOCKET_SECONDS)
        self._connection = pg8000.native.Connection(
            url.username or "postgres", database=url.database, password=url.password, sock=self._socket
        )
        self._connection.run(f"LISTEN {CHANNEL}")

    def _hang_up(self) -> None:
        with suppress(Exception):
            self._connection.close()
        with suppress(Exception):
            cast("socket.socket", self._socket).close()
        self._connection = self._socket = None


def unix_socket(url: URL) -> str | None:
    """The path of the server's socket, where the address has ``?host=/folder`` as PostgreSQL's own tools write it."""
    host = url.query.get("host")
    return f"{host}/.s.PGSQL.{url.port or 5432}" if isinstance(host, str) and host.startswith("/") else None
