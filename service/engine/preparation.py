"""Brings requests to the CPU threads: the quick ones that came together in one go, and every other one by itself.

A request on a thread of its own costs two changes of thread, which take longer than tokenising a short text does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Request = TypeVar("Request")
Item = TypeVar("Item")
TOGETHER = 16  # requests that one thread prepares before it hands any of them back


class Preparation(Generic[Request, Item]):
    """Runs ``prepare`` on ``threads``; ``is_quick`` tells of a request whether others may wait behind it.

    For the event loop's thread alone.
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
        waiting: _Waiting[Request, Item] = request, loop.create_future()
        if not self._is_quick(request):
            self._threads.submit(self._run, loop, [waiting])
        else:
            if not self._came:
                loop.call_soon(self._begin, loop)  # when all that came with this one are read
            self._came.append(waiting)
        return waiting[1]

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        came, self._came = self._came, []
        for start in range(0, len(came), TOGETHER):
            self._threads.submit(self._run, loop, came[start : start + TOGETHER])

    def _run(self, loop: asyncio.AbstractEventLoop, together: Sequence[_Waiting[Request, Item]]) -> None:
        outcomes = [None if future.cancelled() else self._outcome(request) for request, future in together]
        loop.call_soon_threadsafe(_settle, [future for _, future in together], outcomes)

    def _outcome(self, request: Request) -> Sequence[Item] | Exception:
        try:
            return self._prepare(request)
        except Exception as error:
            return error


_Waiting = tuple[Request, "asyncio.Future[Sequence[Item]]"]


def _settle(futures: Sequence[asyncio.Future[Sequence[Item]]], outcomes: Sequence[Sequence[Item] | Exception | None]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.done() or outcome is None:
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
