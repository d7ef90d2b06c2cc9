"""What is prepared together, and what holds up nobody but itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.engine import preparation
from service.engine.preparation import Preparation
from service.errors import InvalidInput


@dataclass
class Spelling:
    """Spells words; capital ones are slow, and wait for ``gate``, as ``held`` ones do; ``raised`` has what words raise."""

    gate: threading.Event = field(default_factory=threading.Event)
    raised: dict[str, BaseException] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    prepared: list[str] = field(default_factory=list)
    threads: dict[str, int] = field(default_factory=dict)

    def prepare(self, word: str) -> Sequence[str]:
        self.prepared.append(word)
        self.threads[word] = threading.get_ident()
        if word in self.held or not self.is_quick(word):
            assert self.gate.wait(10)
        if word in self.raised:
            raise self.raised[word]
        return list(word)

    def is_quick(self, word: str) -> bool:
        return word.islower()


@asynccontextmanager
async def spelling(
    task: Spelling, pool: ThreadPoolExecutor | None = None, *, any_quick: bool = True
) -> AsyncIterator[Preparation[str, str]]:
    with pool or ThreadPoolExecutor(4) as threads:
        prepare = Preparation(task.prepare, threads, task.is_quick if any_quick else None)
        try:
            yield prepare
        finally:
            task.gate.set()
            prepare.close()


def test_quick_requests_are_prepared_on_one_thread_in_their_order_and_others_on_others() -> None:
    async def scenario() -> None:
        task, words = Spelling(), [f"w{number}" for number in range(40)]
        task.gate.set()
        async with spelling(task) as prepare:
            waiting = list(map(prepare, [*words, "SLOW"]))
            assert await asyncio.gather(*waiting) == [list(word) for word in (*words, "SLOW")]
            assert await prepare("alone") == list("alone")
        assert [word for word in task.prepared if word != "SLOW"] == [*words, "alone"]
        assert len({task.threads[word] for word in [*words, "alone"]}) == 1
        assert task.threads["SLOW"] != task.threads["alone"]

    asyncio.run(scenario())


def test_without_quick_ones_every_request_has_a_thread() -> None:
    async def scenario() -> None:
        task = Spelling()
        async with spelling(task, any_quick=False) as prepare:
            slow, quick = prepare("SLOW"), prepare("quick")
            assert await asyncio.wait_for(quick, 5) == list("quick")
            task.gate.set()
            assert await slow == list("SLOW")
        assert task.threads["SLOW"] != task.threads["quick"]

    asyncio.run(scenario())


@pytest.mark.parametrize(("seconds", "done"), [(0, True), (10, False)])
def test_what_is_done_is_handed_back_after_a_turn(seconds: float, done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "TURN_SECONDS", seconds)

    async def scenario() -> None:
        task = Spelling(held={"last"})
        async with spelling(task) as prepare:
            first, last = prepare("first"), prepare("last")
            while "last" not in task.prepared:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            assert first.done() == done
            task.gate.set()
            assert [await first, await last] == [list("first"), list("last")]

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
            prepare.close()
            for waiting in [prepare("one"), prepare("two"), prepare("SLOW")]:
                with pytest.raises(RuntimeError, match="shutdown"):
                    await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_one_whose_client_left_before_its_turn_is_not_prepared() -> None:
    async def scenario() -> None:
        task = Spelling()
        async with spelling(task, ThreadPoolExecutor(1), any_quick=False) as prepare:
            slow = prepare("SLOW")  # it has the only thread
            gone, stays = prepare("gone"), prepare("stays")
            gone.cancel()
            task.gate.set()
            assert [await slow, await stays] == [list("SLOW"), list("stays")]
        assert task.prepared == ["SLOW", "stays"]

    asyncio.run(scenario())
