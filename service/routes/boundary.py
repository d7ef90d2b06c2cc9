"""The outermost layer of the application: request ids, total time, the body's deadline, clients that leave."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.errors import DeadlineExceeded
from service.routes.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
REQUEST_ID = re.compile(rb"[\w.:-]{1,128}")


class Boundary:
    """An ASGI application around another; it counts the requests in flight and can wait for the last of them."""

    def __init__(self, app: App, metrics: Metrics, body_seconds: float) -> None:
        self._app, self._metrics, self._body_seconds = app, metrics, body_seconds
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._in_flight += 1
        self._idle.clear()
        try:
            await _Exchange(scope, receive, send, self._metrics, self._body_seconds).run(self._app)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def idle(self, seconds: float) -> bool:
        """Wait until no request is in flight, at most so long; whether that was reached."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: Metrics, body_seconds: float) -> None:
        self._scope, self._receive, self._send, self._metrics = scope, receive, send, metrics
        self._started = time.perf_counter()
        self._body_deadline = asyncio.get_running_loop().time() + body_seconds
        self._body_seconds = body_seconds
        self._body_read, self._gone = asyncio.Event(), asyncio.Event()
        self._late = self._left = False
        self._status = 0

    async def run(self, app: App) -> None:
        """Run the application, and stop it when the client leaves."""
        task = asyncio.current_task()
        watcher = asyncio.create_task(self._watch(task))
        try:
            await app(self._scope, self._read, self._write)
        except asyncio.CancelledError:
            if not self._left or task is None:
                raise
            task.uncancel()
        finally:
            watcher.cancel()
        route = self._scope.get("path_template") or "unmatched"
        if self._left:
            self._metrics.left(route)
        else:
            self._metrics.answered(route, self._status, time.perf_counter() - self._started)

    async def _read(self) -> Message:
        """The next part of the body; a body that takes too long raises :class:`DeadlineExceeded`."""
        if self._body_read.is_set():
            await self._gone.wait()
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout_at(self._body_deadline):
                message = await self._receive()
        except TimeoutError:
            self._late = True
            raise DeadlineExceeded(f"the request's body did not arrive within {self._body_seconds:g} s") from None
        if not message.get("more_body", False):
            self._body_read.set()
        if message["type"] == "http.disconnect":
            await self._gone.wait()  # the watcher stops this task, before the framework makes an error of half a body
        return message

    async def _watch(self, task: asyncio.Task[Any] | None) -> None:
        # What the framework never does itself: a handler goes on though nobody waits for its answer.
        await self._body_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if not self._status and task is not None:
            self._left = True
            task.cancel()

    async def _write(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._headers()]
        await self._send(message)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        given = next((value for name, value in self._scope["headers"] if name == b"x-request-id"), b"")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        total = f"{1e3 * (time.perf_counter() - self._started):.2f}".encode()
        closing = [(b"connection", b"close")] if self._late else []
        return [(b"x-request-id", request_id), (b"x-total-time", total), *closing]
