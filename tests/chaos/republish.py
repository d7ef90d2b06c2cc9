"""Requests at a steady rate for one adapter that is republished, canaried, shadowed, promoted, rolled back and deleted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from statistics import quantiles
from typing import Any

import uvloop

from loadtest.client import post, request
from service.store.selector import LIVE
from tests.chaos.rows import Row
from tests.soak.ledger import Line, Question
from tests.soak.recognisable import TEXTS, Maker
from tests.soak.traffic import Count, Unexpected, done
from tests.soak.wire import Wire, upload

RATE = 200  # requests a second
NAME = "mood"
BY_NUMBER = 0.3  # of the requests ask for a version by its number
RECENT = 8  # versions that are asked for, of which most are deleted
BREATH = 0.02  # seconds between two changes, for requests to meet what is in force


class Republish:
    """An open loop of clients, and one who changes the adapter all the while; ``count`` and ``seconds`` are what they found.

    Every request is sent when it is due, on a connection of its own where none is free.
    """

    def __init__(self, port: int, maker: Maker, seed: int = 0) -> None:
        self._port, self._maker = port, maker
        self._line, self._random = Line(NAME), Random(seed)
        self._idle: list[Wire] = []
        self._ending = asyncio.Event()
        self.count, self.seconds = Count(), list[float]()

    def run(self, seconds: float) -> Row:
        """Go on for so long."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._all(seconds))
        statuses = ", ".join(f"{status}: {times:,}" for status, times in sorted(self.count.statuses.items()))
        p99 = 1e3 * quantiles(self.seconds, n=100)[-1]
        detail = f"{self.count.rounds} rounds of changes; {statuses}; p99 {p99:.0f} ms"
        fault = f"{RATE} requests/s on an adapter republished, canaried, shadowed, promoted, rolled back, deleted"
        return Row(fault, len(self.seconds), self.count.wrong, "; ".join([detail, *self.count.faults]))

    async def _all(self, seconds: float) -> None:
        async with self._wire() as wire:
            await self._publish(wire, alias=LIVE)
            async with asyncio.TaskGroup() as tasks:
                changing = tasks.create_task(self._change(wire))
                await self._send(seconds, tasks)
                self._ending.set()
                await changing
        for idle in self._idle:
            await idle.close()

    async def _send(self, seconds: float, tasks: asyncio.TaskGroup) -> None:
        started = time.perf_counter()
        for number in range(round(RATE * seconds)):
            due = started + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(self._ask(due))

    @asynccontextmanager
    async def _wire(self) -> AsyncIterator[Wire]:
        # In turn: the server closes a connection that idles for seconds, which is no answer lost.
        wire = self._idle.pop(0) if self._idle else await Wire.open(self._port)
        yield wire
        self._idle.append(wire)

    async def _ask(self, due: float) -> None:
        question = self._question()
        try:
            async with self._wire() as wire:
                status, answer = await wire.ask(post("/v1/classify", question.body))
        except (OSError, EOFError) as error:
            self.count.fault(f"{question.body}: no answer, {type(error).__name__}")
            return
        finally:
            self.seconds.append(time.perf_counter() - due)
        self.count.statuses[status] += 1
        if fault := question.fault(status, answer):
            self.count.fault(fault)

    def _question(self) -> Question:
        newest = self._line.published
        version = self._random.randint(max(1, newest - RECENT), newest) if self._random.random() < BY_NUMBER else None
        return Question.about([self._random.randrange(len(TEXTS))], [(self._line, version)])

    async def _change(self, wire: Wire) -> None:
        while not self._ending.is_set():
            try:
                await self._round(wire)
            except Unexpected as error:
                self.count.fault(str(error))
                return
            self.count.rounds += 1

    async def _round(self, wire: Wire) -> None:
        """A version comes by a canary and a shadow, one at once, which is rolled back; then all but the live one go."""
        live = self._line.live[-1]
        new = await self._publish(wire)
        await self._point(wire, {"split": {str(live): 90, str(new): 10}}, live, new)
        await self._point(wire, {"version": live, "shadow": new}, live)
        await self._point(wire, {"version": new}, new)
        await self._publish(wire, alias=LIVE)
        await self._move(wire, request("POST", f"/v1/adapters/{NAME}/aliases/{LIVE}/rollback"), new)
        for number in self._line.kept:
            if number != new:
                self._line.deleting.add(number)
                await done(wire, request("DELETE", f"/v1/adapters/{NAME}/versions/{number}"))
                self._line.deleted.add(number)
        await self._publish(wire, again=new)

    async def _publish(self, wire: Wire, alias: str | None = None, again: int | None = None) -> int:
        """Upload the next version, or once more the files of one that there is."""
        number = again or self._line.published + 1
        version, parts = self._maker.version(NAME, number)
        self._line.versions.setdefault(number, version)
        if alias is not None:
            self._line.live.append(number)
        answer = await done(wire, upload(f"/v1/adapters/{NAME}/versions", parts, alias))
        if answer["version"] != number:
            raise Unexpected(f"an upload became version {answer['version']}, expected {number}")
        self._line.published = max(number, self._line.published)
        if alias is not None:
            self._line.settle()
        await asyncio.sleep(BREATH)
        return number

    async def _point(self, wire: Wire, target: dict[str, Any], *versions: int) -> None:
        await self._move(wire, request("PUT", f"/v1/adapters/{NAME}/aliases/{LIVE}", json.dumps(target).encode()), *versions)

    async def _move(self, wire: Wire, change: bytes, *versions: int) -> None:
        self._line.live += versions
        await done(wire, change)
        self._line.settle(len(versions))
        await asyncio.sleep(BREATH)
