"""What is prepared together, and what holds up nobody but itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.engine import preparation
from service.engine.preparation import TOGETHER, Preparation
from service.errors import InvalidInput


@dataclass
class Spelling:
    """Spells words; a capital one is slow, and waits for ``gate``; what ``raised`` has for a word is raised."""

    gate: threading.Event = field(default_factory=threading.Event)
    raised: dict[str, BaseException] = field(default_factory=dict)
    prepared: list[str] = field(default_factory=list)

    def prepare(self, word: str) -> Sequence[str]:
        self.prepared.append(word)
        if not self.is_quick(word):
            assert self.gate.wait(10)
        if word in self.raised:
            raise self.raised[word]
        return list(word)

    def is_quick(self, word: str) -> bool:
        return word.islower()


class Counting(ThreadPoolExecutor):
    """Notes how many requests each job brings."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.jobs: list[int] = []

    def submit(self, call: Any, /, *given: Any, **named: Any) -> Any:
        self.jobs.append(len(given[-1]))
        return super().submit(call, *given, **named)


@asynccontextmanager
async def spelling(task: Spelling, pool: ThreadPoolExecutor | None = None) -> AsyncIterator[Preparation[str, str]]:
    with pool or ThreadPoolExecutor(4) as threads:
        try:
            yield Preparation(task.prepare, task.is_quick, threads)
        finally:
            task.gate.set()


def test_quick_requests_that_come_together_share_a_job_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "TURN_SECONDS", 10)

    async def scenario() -> None:
        pool, words = Counting(4), [f"w{number}" for number in range(TOGETHER + 3)]
        async with spelling(Spelling(), pool) as prepare:
            assert await asyncio.gather(*map(prepare, words)) == [list(word) for word in words]
            assert pool.jobs == [TOGETHER, 3]
            assert await prepare("alone") == list("alone")
        assert pool.jobs == [TOGETHER, 3, 1]

    asyncio.run(scenario())


def test_what_takes_longer_than_a_turn_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "TURN_SECONDS", 0)

    async def scenario() -> None:
        pool, words = Counting(4), ["one", "two", "three"]
        async with spelling(Spelling(), pool) as prepare:
            assert await asyncio.gather(*map(prepare, words)) == [list(word) for word in words]
        assert pool.jobs == [3, 2, 1]

    asyncio.run(scenario())


def test_a_slow_request_holds_up_no_quick_one() -> None:
    async def scenario() -> None:
        task = Spelling()
        async with spelling(task) as prepare:
            slow = [prepare(word) for word in ("SLOW", "SLOWER")]
            quick = [prepare(word) for word in ("one", "two")]
            assert await asyncio.wait_for(asyncio.gather(*quick), 5) == [list("one"), list("two")]
            assert not any(future.done() for future in slow)
            task.gate.set()
            assert await asyncio.gather(*slow) == [list("SLOW"), list("SLOWER")]

    asyncio.run(scenario())


@pytest.mark.parametrize("raised", [InvalidInput("bad"), StopIteration("bad"), BaseException("bad")])
def test_one_that_fails_fails_alone(raised: BaseException) -> None:
    async def scenario() -> None:
        async with spelling(Spelling(raised={"bad": raised})) as prepare:
            first, bad, last = (prepare(word) for word in ("first", "bad", "last"))
            with pytest.raises(RuntimeError if isinstance(raised, StopIteration) else type(raised), match="bad"):
                await bad
            assert [await first, await last] == [list("first"), list("last")]

    asyncio.run(scenario())


def test_threads_that_are_shut_down_are_an_error_of_every_request() -> None:
    async def scenario() -> None:
        pool = ThreadPoolExecutor(1)
        async with spelling(Spelling(), pool) as prepare:
            pool.shutdown()
            for waiting in [prepare("one"), prepare("two"), prepare("SLOW")]:
                with pytest.raises(RuntimeError, match="shutdown"):
                    await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_one_whose_client_left_before_its_turn_is_not_prepared() -> None:
    async def scenario() -> None:
        task = Spelling()
        async with spelling(task, ThreadPoolExecutor(1)) as prepare:
            slow = prepare("SLOW")
            await asyncio.sleep(0.01)  # it has the only thread
            gone, stays = prepare("gone"), prepare("stays")
            await asyncio.sleep(0.01)
            gone.cancel()
            task.gate.set()
            assert [await slow, await stays] == [list("SLOW"), list("stays")]
        assert task.prepared == ["SLOW", "stays"]

    asyncio.run(scenario())
