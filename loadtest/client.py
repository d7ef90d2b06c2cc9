"""An HTTP client that costs the machine as little as it can, since it shares the cores with the server that it measures.

Requests are bytes made beforehand, connections are kept, and of an answer only status and length are read. A closed loop
keeps every connection busy; an open loop sends at given times, whatever the server does, and counts from those times.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import cast

import httpx
import uvloop

from loadtest.outcome import NO_ANSWER, Outcome

HOST = "127.0.0.1"
PATIENCE = 40.0  # seconds to wait for what was sent last: longer than the server's own deadline
CONNECTIONS = 800  # at most; a process may often have no more than 1,024 files open
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
END = b"\r\n\r\n"


def request(method: str, path: str, content: bytes = b"", kind: str = "application/json") -> bytes:
    """The bytes of a request with content of this type."""
    head = f"{method} {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def post(path: str, body: object) -> bytes:
    """The bytes of a POST of JSON."""
    return request("POST", path, json.dumps(body, ensure_ascii=False).encode())


def post_form(path: str, files: Mapping[str, tuple[str, bytes, str]], fields: Mapping[str, str]) -> bytes:
    """The bytes of a POST of a multipart form; each file has its name, its content and its type."""
    form = httpx.Request("POST", f"http://{HOST}{path}", files=files, data=fields)
    return request("POST", path, form.read(), form.headers["content-type"])


def get(path: str) -> bytes:
    """The bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()


def is_whole(answer: bytes) -> bool:
    """Whether all of an answer has arrived; its length must be in its head."""
    end = answer.find(END)
    length = LENGTH.search(answer, 0, end) if end >= 0 else None
    return length is not None and len(answer) >= end + len(END) + int(length[1])


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that goes out every ``interval`` seconds beside the others."""

    request: bytes
    interval: float = 0.02


def closed_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Outcome:
    """Keep so many connections busy for so long, each with one request at a time; requests are taken in turn."""
    run = _Run(port, requests)
    return _measure(run, run.closed(connections, seconds))


def probed(port: int, requests: Sequence[bytes], connections: int, seconds: float, probe: Probe) -> tuple[Outcome, Outcome]:
    """A closed loop, and the outcome of a probe that goes out all the while."""
    run, beside = _Run(port, requests), _Run(port, [probe.request])
    times = [i * probe.interval for i in range(round(seconds / probe.interval))]

    async def both() -> None:
        await asyncio.gather(run.closed(connections, seconds), beside.open(times, seconds))

    return _measure(run, both()), beside.outcome


def open_loop(port: int, requests: Sequence[bytes], times: Sequence[float], seconds: float) -> Outcome:
    """Send a request at each of ``times``, in seconds from the start and in rising order, the last before ``seconds``."""
    run = _Run(port, requests)
    return _measure(run, run.open(times, seconds))


def _measure(run: _Run, coroutine: Coroutine[None, None, None]) -> Outcome:
    with _no_collection(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        before = time.thread_time()
        runner.run(coroutine)
        run.outcome.cpu = time.thread_time() - before
    return run.outcome


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector would stop the client for longer than some answers take."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Run:
    """A run of either kind: its connections, the requests that wait for one, and the outcome so far."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self.outcome = Outcome()
        self._port, self._requests = port, cycle(requests)
        self._idle: list[_Connection] = []
        self._waiting: deque[float] = deque()
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._started = self._until = 0.0
        self._pending = 0

    async def closed(self, connections: int, seconds: float) -> None:
        """See :func:`closed_loop`."""
        self._started, self._until = time.perf_counter(), seconds
        for _ in range(connections):
            self.send(0.0)
        await self._finish(seconds)

    async def open(self, times: Sequence[float], seconds: float) -> None:
        """See :func:`open_loop`."""
        self._started = time.perf_counter()
        for due in times:
            wait = due - self._now()
            if wait > 0:
                await asyncio.sleep(wait)
            self.send(due)
        await self._finish(seconds)

    def send(self, due: float) -> None:
        """Send the next request on an idle connection, or as soon as one is free."""
        self._pending += 1
        if self._idle:
            self._idle.pop().ask(next(self._requests), due)
            return
        self._waiting.append(due)
        if len(self._connections) < CONNECTIONS:
            connection = _Connection(self)
            self._connections[connection] = asyncio.get_running_loop().create_task(self._connect(connection))

    def free(self, connection: _Connection) -> None:
        """Give a connection the request that has waited longest, or keep it for the next."""
        if self._waiting:
            connection.ask(next(self._requests), self._waiting.popleft())
        else:
            self._idle.append(connection)

    def answered(self, connection: _Connection, due: float, status: int) -> None:
        """Note an answer; in a closed loop the connection goes on with the next request."""
        now = self._note(due, status)
        if now < self._until:
            self._pending += 1
            connection.ask(next(self._requests), now)
        else:
            self.free(connection)

    def lost(self, connection: _Connection, due: float | None) -> None:
        """Forget a connection. A request that the server did not read before closing one that it had kept goes out again."""
        self._connections.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)
        if due is None:
            return
        if connection.kept:
            self._pending -= 1
            self.send(due)
        else:
            self._note(due, NO_ANSWER)

    async def _connect(self, connection: _Connection) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, HOST, self._port)
        except OSError:
            self.lost(connection, self._waiting.popleft() if self._waiting else None)

    async def _finish(self, seconds: float) -> None:
        """Wait for every answer, and close the connections; what was never answered counts as such."""
        self.outcome.seconds = seconds
        await asyncio.sleep(max(0.0, seconds - self._now()))
        deadline = self._now() + PATIENCE
        while self._pending and self._now() < deadline:
            await asyncio.sleep(0.01)
        for connection, connecting in list(self._connections.items()):
            connecting.cancel()
            if connecting.done():
                connection.close()
        for due in self._waiting:
            self._note(due, NO_ANSWER)
        await asyncio.sleep(0.01)  # the connections' ends are noted in the loop's next turn

    def _note(self, due: float, status: int) -> float:
        now = self._now()
        self.outcome.add(due, now - due, status)
        self._pending -= 1
        return now

    def _now(self) -> float:
        return time.perf_counter() - self._started


class _Connection(asyncio.Protocol):
    """A connection with at most one request in flight; ``kept`` once it has answered one."""

    def __init__(self, run: _Run) -> None:
        self.kept = False
        self._run = run
        self._transport: asyncio.Transport
        self._due: float | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._run.free(self)

    def ask(self, request: bytes, due: float) -> None:
        """Send a request."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        if not is_whole(received):
            self._received = received
            return
        self._received, self.kept, due = b"", True, self._due
        self._due = None
        if due is not None:
            self._run.answered(self, due, int(received[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        due, self._due = self._due, None
        self._run.lost(self, due)

    def close(self) -> None:
        """Leave; a request still in flight then has no answer."""
        self.kept = False
        self._transport.abort()
