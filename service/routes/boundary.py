"""The outermost layer of the application: request ids, total time, the body's deadline, clients that leave.

Every request pays for it, so no request has a task or a timer of its own: one sweep over all that are in flight sees to
those that take long.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from itertools import count
from typing import Any, cast

from service.errors import DeadlineExceeded
from service.routes.asgi import PROBLEM, App, Message, Receive, Scope, Send, header
from service.routes.metrics import Metrics

REQUEST_ID = re.compile(rb"[\w.:-]{1,128}")
SWEEP_SECONDS = 0.05  # an answer that takes less is not worth watching its client


class Boundary:
    """An ASGI application around another; it counts the requests in flight and can wait for the last of them."""

    def __init__(self, app: App, metrics: Metrics, body_seconds: float) -> None:
        self._app, self._metrics, self._body_seconds = app, metrics, body_seconds
        self._in_flight: set[_Exchange] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_sweeping = False
        self._ids = _request_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or whatever else a server tells its application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._body_seconds, self._ids)
        self._begin(exchange)
        try:
            await self._app(scope, exchange.read, exchange.write)
        except asyncio.CancelledError:
            if not exchange.left:
                raise
            exchange.task.uncancel()
        finally:
            self._end(exchange)
        route = scope.get("path_template") or "unmatched"
        if exchange.left:
            self._metrics.left(route)
        else:
            self._metrics.answered(route, exchange.status, time.monotonic() - exchange.started, scope.get(PROBLEM))

    async def idle(self, seconds: float) -> bool:
        """Wait until no request is in flight, at most so long; whether that was reached."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _begin(self, exchange: _Exchange) -> None:
        if not self._in_flight:
            self._idle.clear()
        self._in_flight.add(exchange)
        if not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _end(self, exchange: _Exchange) -> None:
        exchange.close()
        self._in_flight.discard(exchange)
        if not self._in_flight:
            self._idle.set()

    def _sweep(self) -> None:
        now = time.monotonic()
        for exchange in self._in_flight:
            exchange.look_after(now)
        self._is_sweeping = bool(self._in_flight)
        if self._is_sweeping:
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)


class _Exchange:
    """One request and its answer: ``left`` once its client is known to be gone, ``status`` as soon as the answer begins."""

    __slots__ = (
        "_body_read", "_body_seconds", "_ids", "_late", "_reading", "_receive", "_scope", "_send", "_watcher",
        "left", "started", "status", "task",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_seconds: float, ids: Iterator[bytes]) -> None:
        self._scope, self._receive, self._send, self._body_seconds, self._ids = scope, receive, send, body_seconds, ids
        self.started = time.monotonic()
        self.task = cast("asyncio.Task[Any]", asyncio.current_task())
        self.status = 0
        self.left = self._late = self._reading = self._body_read = False
        self._watcher: asyncio.Task[None] | None = None

    async def read(self) -> Message:
        """The next part of the body; a body that takes too long raises :class:`DeadlineExceeded`."""
        if self._body_read:
            await asyncio.wait([self._watched()])
            return {"type": "http.disconnect"}
        self._reading = True
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if not self._late:
                raise
            self.task.uncancel()
            raise DeadlineExceeded(f"the request's body did not arrive within {self._body_seconds:g} s") from None
        finally:
            self._reading = False
        if message["type"] == "http.disconnect":
            self.left = True
            raise asyncio.CancelledError  # before the framework makes an error of half a body
        self._body_read = not message.get("more_body", False)
        return message

    async def write(self, message: Message) -> None:
        """Send a part of the answer, with our own headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._headers()]
        await self._send(message)

    def look_after(self, now: float) -> None:
        """End the wait for a body whose time is up; begin to watch the client of an answer that takes long."""
        age = now - self.started
        if self._reading and age >= self._body_seconds and not self._late:
            self._late = True
            self.task.cancel()
        elif self._body_read and not self.status and age >= SWEEP_SECONDS:
            self._watched()

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()

    def _watched(self) -> asyncio.Task[None]:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        return self._watcher

    async def _watch(self) -> None:
        # What the framework never does itself: a handler goes on though nobody waits for its answer.
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.status:
            self.left = True
            self.task.cancel()

    def _headers(self) -> list[tuple[bytes, bytes]]:
        given = header(self._scope, b"x-request-id")
        request_id = given if REQUEST_ID.fullmatch(given) else next(self._ids)
        headers = [(b"x-request-id", request_id), (b"x-total-time", b"%.2f" % (1e3 * (time.monotonic() - self.started)))]
        return [*headers, (b"connection", b"close")] if self._late else headers


def _request_ids() -> Iterator[bytes]:
    """Names for requests, of 32 hexadecimal digits: half of them are this process's, by chance, the others count."""
    mine = os.urandom(8).hex()
    return (f"{mine}{number:016x}".encode() for number in count())
