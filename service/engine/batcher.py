"""Forms the next batch while the device is busy: under a token budget, without rows that nobody waits for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from service.engine.device import Device
from service.errors import ForwardFailed, Overloaded, QuickchangeError

log = logging.getLogger(__name__)


class Costed(Protocol):
    """What the batcher must know of an item: its cost in tokens."""

    @property
    def tokens(self) -> int: ...


Item = TypeVar("Item", bound=Costed)
Output = TypeVar("Output")
Forward = Callable[[Sequence[Item]], Sequence[Output | Exception]]


@dataclass(slots=True, eq=False)
class Queued(Generic[Item, Output]):
    """An item in the queue, the future of its output, and when it arrived and went to the device (seconds)."""

    item: Item
    future: asyncio.Future[Output]
    arrived: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    finished: float = 0.0


class Batcher(Generic[Item, Output]):
    """A bounded queue of items and the task that feeds them to the device, batch after batch.

    ``forward`` runs on the device thread and returns one output or exception per item, in order.
    """

    def __init__(self, forward: Forward[Item, Output], device: Device, max_batch_tokens: int, max_queue_tokens: int) -> None:
        self._forward, self._device = forward, device
        self._max_batch_tokens, self._max_queue_tokens = max_batch_tokens, max_queue_tokens
        self._queue: list[Queued[Item, Output]] = []
        self._queued_tokens = 0
        self._arrival = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """Items that wait for a batch."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to serve; needs a running event loop."""
        self._loop = asyncio.create_task(self._serve(), name="batcher")

    async def stop(self) -> None:
        """Stop serving; what is still queued is cancelled."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        for queued in self._queue:
            queued.future.cancel()

    def submit(self, items: Sequence[Item]) -> list[Queued[Item, Output]]:
        """Queue items, all or none; raises :class:`Overloaded` when their tokens do not fit into the queue."""
        cost = sum(item.tokens for item in items)
        if self._queued_tokens and self._queued_tokens + cost > self._max_queue_tokens:
            raise Overloaded(
                f"{self._queued_tokens} tokens are queued and this request has {cost}; at most {self._max_queue_tokens} may wait"
            )
        loop = asyncio.get_running_loop()
        queued = [Queued[Item, Output](item, loop.create_future()) for item in items]
        self._queue += queued
        self._queued_tokens += cost
        self._arrival.set()
        return queued

    async def _serve(self) -> None:
        while True:
            await self._arrival.wait()
            batch = self._take()
            if not self._queue:
                self._arrival.clear()
            if batch:
                await self._run(batch)

    def _take(self) -> list[Queued[Item, Output]]:
        """Remove the next batch: the oldest item and those nearest to it in length, up to the token budget."""
        self._queue = [queued for queued in self._queue if not queued.future.done()]
        if not self._queue:
            self._queued_tokens = 0
            return []
        oldest = self._queue[0]
        near = sorted(self._queue, key=lambda queued: abs(queued.item.tokens - oldest.item.tokens))
        batch: list[Queued[Item, Output]] = []
        tokens = 0
        for queued in near:
            if batch and tokens + queued.item.tokens > self._max_batch_tokens:
                break
            batch.append(queued)
            tokens += queued.item.tokens
        taken = set(map(id, batch))
        self._queue = [queued for queued in self._queue if id(queued) not in taken]
        self._queued_tokens = sum(queued.item.tokens for queued in self._queue)
        return batch

    async def _run(self, batch: list[Queued[Item, Output]]) -> None:
        started, outputs = await self._device.run(lambda: self._timed([queued.item for queued in batch]))
        finished = time.perf_counter()
        for queued, output in zip(batch, outputs, strict=True):
            queued.started, queued.finished = started, finished
            if queued.future.done():
                continue
            if isinstance(output, Exception):
                queued.future.set_exception(output)
            else:
                queued.future.set_result(output)

    def _timed(self, items: Sequence[Item]) -> tuple[float, Sequence[Output | Exception]]:
        return time.perf_counter(), self._isolated(items)

    def _isolated(self, items: Sequence[Item]) -> Sequence[Output | Exception]:
        """Outputs of a batch; when it fails as a whole, each item runs again alone, so that only the bad one fails."""
        try:
            outputs = self._forward(items)
            if len(outputs) != len(items):
                raise RuntimeError(f"{len(outputs)} outputs for {len(items)} items")
            return outputs
        except Exception as error:
            if len(items) > 1:
                log.warning("a batch of %d rows failed (%s); running each alone", len(items), type(error).__name__)
                return [output for item in items for output in self._isolated([item])]
            if isinstance(error, QuickchangeError):
                return [error]
            log.exception("a forward failed")
            return [ForwardFailed("the model failed on this input")]
