"""What is prepared together, and what holds up nobody but itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.engine.preparation import TOGETHER, Preparation
from service.errors import InvalidInput


@dataclass
class Spelling:
    """Spells words, and notes the thread of each; a capital word is slow, and waits for ``gate``; "bad" is refused."""

    gate: threading.Event = field(default_factory=threading.Event)
    prepared: dict[str, int] = field(default_factory=dict)

    def prepare(self, word: str) -> Sequence[str]:
        self.prepared[word] = threading.get_ident()
        if word.isupper():
            assert self.gate.wait(10)
        if word == "bad":
            raise InvalidInput("bad")
        return list(word)


@asynccontextmanager
async def spelling(task: Spelling, threads: int = 4) -> AsyncIterator[Preparation[str, str]]:
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield Preparation(task.prepare, str.islower, pool)
        finally:
            task.gate.set()


def test_quick_requests_that_come_together_share_a_thread_up_to_a_number() -> None:
    async def scenario() -> None:
        task, words = Spelling(), [f"w{number}" for number in range(TOGETHER + 3)]
        async with spelling(task) as prepare:
            assert await asyncio.gather(*map(prepare, words)) == [list(word) for word in words]
        assert len({task.prepared[word] for word in words[:TOGETHER]}) == 1
        assert len({task.prepared[word] for word in words[TOGETHER:]}) == 1

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


def test_one_that_is_refused_fails_alone() -> None:
    async def scenario() -> None:
        async with spelling(Spelling()) as prepare:
            first, bad, last = (prepare(word) for word in ("first", "bad", "last"))
            with pytest.raises(InvalidInput, match="bad"):
                await bad
            assert [await first, await last] == [list("first"), list("last")]

    asyncio.run(scenario())


def test_one_whose_client_left_before_its_turn_is_not_prepared() -> None:
    async def scenario() -> None:
        task = Spelling()
        async with spelling(task, threads=1) as prepare:
            slow, gone, stays = (prepare(word) for word in ("SLOW", "gone", "stays"))
            await asyncio.sleep(0.01)
            gone.cancel()
            task.gate.set()
            assert [await slow, await stays] == [list("SLOW"), list("stays")]
        assert list(task.prepared) == ["SLOW", "stays"]

    asyncio.run(scenario())
