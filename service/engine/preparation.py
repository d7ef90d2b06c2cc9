"""Brings requests to the CPU threads: the quick ones that came together in one go, and every other one by itself.

A request's way to a thread of its own and back takes as long as tokenising a short text does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Item = TypeVar("Item")
TOGETHER = 16  # requests that one thread is given at a time
TURN_SECONDS = 0.001  # after which it hands back those that it has, and leaves the others to whichever thread is free


class Preparation(Generic[Request, Item]):
    """Runs ``prepare`` on ``threads``; there ``is_quick`` tells of a request whether others may wait behind it.

    To be called on the event loop's thread alone.
    """

    def __init__(
        self,
        prepare: Callable[[Request], Sequence[Item]],
        is_quick: Callable[[Request], bool],
        threads: ThreadPoolExecutor,
    ) -> None:
        self._prepare, self._is_quick, self._threads = prepare, is_quick, threads
        self._came: list[_Waiting[Request, Item]] = []

    def __call__(self, request: Request) -> asyncio.Future[Sequence[Item]]:
        """A request's items, or what ``prepare`` raised; cancelled before its turn, it is not prepared at all."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Item]] = loop.create_future()
        if not self._came:
            loop.call_soon(self._begin, loop)  # when all that came with this one are read
        self._came.append((request, future))
        return future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        came, self._came = self._came, []
        for start in range(0, len(came), TOGETHER):
            self._submit(loop, came[start : start + TOGETHER])

    def _submit(self, loop: asyncio.AbstractEventLoop, together: Sequence[_Waiting[Request, Item]]) -> None:
        try:
            self._threads.submit(self._run, loop, together)
        except RuntimeError as error:  # they are shut down
            loop.call_soon_threadsafe(_settle, [(future, error) for _, future in together])

    def _run(self, loop: asyncio.AbstractEventLoop, together: Sequence[_Waiting[Request, Item]]) -> None:
        done: list[tuple[asyncio.Future[Sequence[Item]], Sequence[Item] | BaseException]] = []
        end = time.monotonic() + TURN_SECONDS
        for place, (request, future) in enumerate(together):
            if place and time.monotonic() >= end:
                self._submit(loop, together[place:])
                break
            if future.cancelled():
                continue
            if len(together) > 1 and not self._is_quick(request):
                self._submit(loop, [together[place]])
            else:
                done.append((future, self._outcome(request)))
        if done:
            loop.call_soon_threadsafe(_settle, done)

    def _outcome(self, request: Request) -> Sequence[Item] | BaseException:
        try:
            return self._prepare(request)
        except StopIteration as error:
            return RuntimeError(str(error))  # which no future takes
        except BaseException as error:
            return error


_Waiting = tuple[Request, "asyncio.Future[Sequence[Item]]"]


def _settle(done: Sequence[tuple[asyncio.Future[Sequence[Item]], Sequence[Item] | BaseException]]) -> None:
    for future, outcome in done:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
