"""The cheap client, against servers that answer as real ones do and as broken ones do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from loadtest.client import Probe, closed_loop, get, open_loop, post, probed
from loadtest.outcome import NO_ANSWER, OK, REFUSED, Outcome

BODY = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextmanager
def serving(handle: Handler) -> Iterator[int]:
    """A port where ``handle`` serves each connection, in a thread of its own."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(closing, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0.01))  # the ends of the connections
        loop.close()


async def read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")), 0)
    return head + await reader.readexactly(length)


@pytest.fixture
def null_server() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", "loadtest.null_server", "300"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.terminate()
    process.wait()
    process.stdout.close()


def test_a_closed_loop_keeps_its_connections_busy(null_server: int) -> None:
    outcome = closed_loop(null_server, [post("/v1/sentiment", {"text": "é" * 9})], connections=4, seconds=0.5)
    assert set(outcome.status) == {OK} and outcome.rate > 100
    assert len(outcome) / outcome.seconds == pytest.approx(outcome.rate, rel=0.5)
    assert 0 < outcome.milliseconds(0.5) <= outcome.milliseconds(0.99) < 500
    assert 0 < outcome.cpu < 0.6


def test_a_probe_goes_out_beside_the_load(null_server: int) -> None:
    outcome, beside = probed(null_server, [get("/a")], 4, 0.4, Probe(get("/health/live"), 0.02))
    assert len(outcome) > len(beside) == 20 and set(beside.status) == {OK}


def test_requests_are_taken_in_turn_and_answers_may_come_in_pieces() -> None:
    seen: list[bytes] = []

    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read(reader))
            for part in (b"HTTP/1.1 429 X\r\ncontent-", b"length: 2\r\n", b"\r\n{", b"}"):
                writer.write(part)
                await asyncio.sleep(0.002)

    with serving(in_pieces) as port:
        outcome = open_loop(port, [get("/a"), get("/b")], [0.0, 0.05, 0.1], 0.15)
    assert outcome.status == [REFUSED] * 3 and outcome.rate == 0
    assert [request.split()[1] for request in seen] == [b"/a", b"/b", b"/a"]


def test_an_open_loop_counts_from_the_time_that_was_due_and_waits_for_no_answer() -> None:
    """No answer is given until all three have asked, on connections of their own; the first was due a second ago."""
    together = asyncio.Barrier(3)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        await together.wait()
        writer.write(BODY % OK)

    with serving(slow) as port:
        outcome = open_loop(port, [get("/")], [-1.0, 0.0, 0.01], 0.1)
    assert outcome.status == [OK] * 3
    assert max(outcome.took) >= 1.0


def test_a_kept_connection_that_the_server_closes_loses_no_request() -> None:
    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        writer.write(BODY % OK)
        await writer.drain()
        await asyncio.sleep(0.05)

    with serving(one_each) as port:
        outcome = open_loop(port, [get("/")], [0.0, 0.02, 0.2], 0.3)
    assert outcome.status == [OK] * 3


def test_a_server_that_hangs_up_gives_no_answer() -> None:
    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    with serving(hang_up) as port:
        outcome = closed_loop(port, [get("/")], 2, 0.2)
    assert outcome.status == [NO_ANSWER] * 2
    assert closed_loop(port, [get("/")], 2, 0.1).status == [NO_ANSWER] * 2  # and one that is gone gives none either


def test_a_part_of_an_outcome_has_the_requests_due_in_it() -> None:
    outcome = Outcome([0.0, 1.0, 2.0], [0.5, 0.1, 0.2], [OK, REFUSED, 500], seconds=3.0)
    part = outcome.between(1.0, 3.0)
    assert (part.due, part.took, part.status, part.seconds) == ([0.0, 1.0], [0.1, 0.2], [REFUSED, 500], 2.0)
    assert part.count(lambda status: status >= 500) == 1
    assert part.milliseconds(0.5, REFUSED) == 100.0 and part.milliseconds(0.5) != part.milliseconds(0.5)
