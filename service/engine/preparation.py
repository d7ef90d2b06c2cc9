"""Brings requests to the CPU threads: the quick ones that came together to one of their own, and every other one to any.

A request's way to a thread and back takes as long as tokenising a short text does; and of several threads that do nothing
else, each would wait for Python's lock, and the event loop for all of them (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Item = TypeVar("Item")
TURN_SECONDS = 0.001  # after which the thread of quick requests hands back those that it has


class Preparation(Generic[Request, Item]):
    """Runs ``prepare`` on ``threads``, or on a thread of its own where ``is_quick`` tells that it is short and waits for nothing.

    To be called on the event loop's thread alone. Without ``is_quick``, no request is quick.
    """

    def __init__(
        self,
        prepare: Callable[[Request], Sequence[Item]],
        threads: ThreadPoolExecutor,
        is_quick: Callable[[Request], bool] | None = None,
    ) -> None:
        self._prepare, self._threads, self._is_quick = prepare, threads, is_quick
        self._quick = ThreadPoolExecutor(1, "quick")
        self._came: list[_Waiting[Request, Item]] = []

    def __call__(self, request: Request) -> asyncio.Future[Sequence[Item]]:
        """A request's items, or what ``prepare`` raised; cancelled before its turn, it is not prepared at all."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Item]] = loop.create_future()
        if self._is_quick is None:
            self._submit(self._threads, self._run, loop, [(request, future)])
            return future
        if not self._came:
            loop.call_soon(self._begin, loop)  # when all that came with this one are read
        self._came.append((request, future))
        return future

    def close(self) -> None:
        """End the thread of quick requests, when it has prepared those that came."""
        self._quick.shutdown()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        came, self._came = self._came, []
        self._submit(self._quick, self._sort_out, loop, came)

    @staticmethod
    def _submit(
        threads: ThreadPoolExecutor,
        run: Callable[[asyncio.AbstractEventLoop, Sequence[_Waiting[Request, Item]]], None],
        loop: asyncio.AbstractEventLoop,
        waiting: Sequence[_Waiting[Request, Item]],
    ) -> None:
        try:
            threads.submit(run, loop, waiting)
        except RuntimeError as error:  # they are shut down
            loop.call_soon_threadsafe(_settle, [(future, error) for _, future in waiting])

    def _sort_out(self, loop: asyncio.AbstractEventLoop, came: Sequence[_Waiting[Request, Item]]) -> None:
        """Prepare the quick ones of these, handing them back every now and then, and leave the others to the other threads."""
        quick: list[_Waiting[Request, Item]] = []
        for request, future in came:
            if self._is_quick is not None and self._is_quick(request):
                quick.append((request, future))
            else:
                self._submit(self._threads, self._run, loop, [(request, future)])
        self._run(loop, quick)

    def _run(self, loop: asyncio.AbstractEventLoop, waiting: Sequence[_Waiting[Request, Item]]) -> None:
        done: list[_Prepared[Item]] = []
        end = time.monotonic() + TURN_SECONDS
        for request, future in waiting:
            if future.cancelled():
                continue
            done.append((future, self._outcome(request)))
            if time.monotonic() >= end:
                loop.call_soon_threadsafe(_settle, done)
                done, end = [], time.monotonic() + TURN_SECONDS
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
_Prepared = tuple["asyncio.Future[Sequence[Item]]", Sequence[Item] | BaseException]


def _settle(done: Sequence[_Prepared[Item]]) -> None:
    for future, outcome in done:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
