"""uvicorn's HTTP connections, with bounds on a request's head: uvicorn waits for the end of it for ever, whatever its size."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """Closes when a request's head takes longer than ``head_seconds`` or more than ``head_bytes``.

    Between two requests uvicorn's own time for idle connections (5 s) counts. A request in work is none of its business:
    :mod:`service.routes.boundary` sees to bodies.
    """

    head_seconds = 20.0
    head_bytes = 65_536
    _timer: asyncio.TimerHandle | None = None
    _read = 0
    _is_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        was_body = self._is_body
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            return  # what came is a request, or belongs to one
        self._wait()
        if not was_body and not self._is_body:
            self._read += len(data)
            if self._read > self.head_bytes:
                self._close()

    def on_headers_complete(self) -> None:
        self._stop()
        self._read, self._is_body = 0, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self.transport.close()
