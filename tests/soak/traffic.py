"""Requests for recognisable adapters while their versions come and go."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import uvloop

from loadtest.client import post, request
from service.store.selector import LIVE
from tests.soak.ledger import OK, REFUSED, Line, Question
from tests.soak.recognisable import TEXTS, Maker
from tests.soak.wire import Wire, upload

CHANGED = (200, 201, 204)
PAUSE = 0.01  # seconds
LEAD = 0.01  # the part of all by which requests may be ahead of rounds, or these of them
CLIENTS, CHANGERS = 12, 2
SHOWN = 20  # faults that are kept in words


class Unexpected(Exception):
    """The server answered a change otherwise than it must."""


@dataclass(slots=True)
class Count:
    """What came of the traffic: answers by status, rounds of a version coming and another going, and faults."""

    statuses: Counter[int] = field(default_factory=Counter)
    rounds: int = 0
    wrong: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def answers(self) -> int:
        """Requests that were answered, each of them checked."""
        return self.statuses[OK]

    def fault(self, text: str) -> None:
        """Note a fault, in words for the first of them."""
        self.wrong += 1
        if len(self.faults) < SHOWN:
            self.faults.append(text)


class Traffic:
    """Clients and changers over the adapters ``names``; what they do follows from ``seed``, but for the order of answers."""

    def __init__(self, port: int, maker: Maker, names: Sequence[str], kept: int, seed: int = 0) -> None:
        self._port, self._maker, self._kept = port, maker, kept
        self._lines = [Line(name) for name in names]
        self._random, self._serial = Random(seed), 0
        self._count, self._wanted = Count(), (0, 0)

    def fill(self) -> None:
        """Publish as many versions of every adapter as are kept."""

        async def publish(wire: Wire) -> None:
            for line in self._lines:
                for _ in range(self._kept):
                    await self._publish(wire, line)

        self._run(self._with_wire(publish))

    def run(self, requests: int, rounds: int, say: Callable[[str], None]) -> Count:
        """At least so many answers and rounds, the ones in step with the others; ``say`` is told of every twentieth part."""
        self._count, self._wanted = Count(), (requests, rounds)
        self._run(self._all(say))
        return self._count

    @property
    def _asked(self) -> float:
        """The part of the requests that have been answered."""
        return self._count.answers / self._wanted[0]

    @property
    def _changed(self) -> float:
        """The part of the rounds that are over."""
        return self._count.rounds / self._wanted[1]

    @property
    def _ended(self) -> bool:
        return min(self._asked, self._changed) >= 1

    def _run(self, work: Coroutine[None, None, None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)

    async def _all(self, say: Callable[[str], None]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self._with_wire(self._ask))
            for place in range(CHANGERS):
                tasks.create_task(self._with_wire(partial(self._change, self._lines[place::CHANGERS])))
            tasks.create_task(self._watch(say))

    async def _watch(self, say: Callable[[str], None]) -> None:
        told = 0
        while not self._ended:
            if int(20 * self._changed) > told:
                told = int(20 * self._changed)
                say(f"{self._count.answers:,} answers, {self._count.rounds:,} rounds, {self._count.wrong} wrong")
            await asyncio.sleep(PAUSE)

    async def _with_wire(self, work: Callable[[Wire], Coroutine[None, None, None]]) -> None:
        wire = await Wire.open(self._port)
        try:
            await work(wire)
        finally:
            await wire.close()

    async def _ask(self, wire: Wire) -> None:
        while not self._ended:
            if self._asked - self._changed > LEAD:
                await asyncio.sleep(PAUSE)
                continue
            question = self._question()
            status, answer = await wire.ask(post("/v1/classify", question.body))
            self._count.statuses[status] += 1
            if fault := question.fault(status, answer):
                self._count.fault(fault)

    def _question(self) -> Question:
        """Mostly a text for what is live of an adapter; at times several, or versions by number, of which some are deleted."""
        random = self._random
        several = random.random() < 0.1
        lines = random.sample(self._lines, 3 if several else 1)
        asked = [(line, self._some_version(line) if random.random() < 0.3 else None) for line in lines]
        return Question.about(random.sample(range(len(TEXTS)), 2 if several else 1), asked)

    def _some_version(self, line: Line) -> int:
        return self._random.randint(max(1, line.published - self._kept - 1), line.published)

    async def _change(self, lines: Sequence[Line], wire: Wire) -> None:
        while not self._ended:
            if self._changed - self._asked > LEAD:
                await asyncio.sleep(PAUSE)
                continue
            await self._round(wire, self._random.choice(lines))
            self._count.rounds += 1

    async def _round(self, wire: Wire, line: Line) -> None:
        """A version comes, at times another becomes live, and of the others one goes."""
        await self._publish(wire, line)
        if self._random.random() < 0.2:
            await self._point(wire, line, self._random.choice(line.kept))
        await self._delete(wire, line, self._random.choice([number for number in line.kept if number != line.live[-1]]))

    async def _publish(self, wire: Wire, line: Line) -> None:
        """The next version, made live with its upload or after it."""
        number, at_once = line.published + 1, self._random.random() < 0.7
        line.versions[number], parts = self._maker.version(line.name, self._serial)
        self._serial += 1
        if at_once:
            line.live.append(number)
        answer = await done(wire, upload(f"/v1/adapters/{line.name}/versions", parts, LIVE if at_once else None))
        if answer["version"] != number:
            raise Unexpected(f"{line.name}: an upload became version {answer['version']}, expected {number}")
        line.published = number
        line.settle()
        if not at_once:
            await self._point(wire, line, number)

    async def _point(self, wire: Wire, line: Line, number: int) -> None:
        line.live.append(number)
        body = json.dumps({"version": number}).encode()
        await done(wire, request("PUT", f"/v1/adapters/{line.name}/aliases/{LIVE}", body))
        line.settle()

    async def _delete(self, wire: Wire, line: Line, number: int) -> None:
        line.deleting.add(number)
        await done(wire, request("DELETE", f"/v1/adapters/{line.name}/versions/{number}"))
        line.deleted.add(number)


async def done(wire: Wire, change: bytes) -> dict[str, Any]:
    """What the server answers to a change, which is asked for again while all memory is in use."""
    while True:
        status, answer = await wire.ask(change)
        if status in CHANGED:
            return answer
        if status != REFUSED:
            raise Unexpected(f"a change was answered by {status} {answer}")
        await asyncio.sleep(PAUSE)
