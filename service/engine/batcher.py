"""Forms batches and has them computed: as large as they can be when the device is free, ahead of time when rows abound."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.engine.admission import Admission
from service.engine.device import Device
from service.engine.observer import BatchReport, Observer
from service.engine.queue import FairQueue
from service.engine.ticket import Costed, Queued, Ticket
from service.errors import ForwardFailed, QuickchangeError

log = logging.getLogger(__name__)
LARGE = 1 / 8  # of the token budget: batches of which the next may be no larger than the one that is computed
Item = TypeVar("Item", bound=Costed)
Item_contra = TypeVar("Item_contra", bound=Costed, contravariant=True)
Batch = TypeVar("Batch")
Output = TypeVar("Output")
Output_co = TypeVar("Output_co", covariant=True)


class Computation(Protocol[Item_contra, Batch, Output_co]):
    """What is done with items: ``collate`` on any thread, then ``forward`` on the device's, one output or error each."""

    def collate(self, items: Sequence[Item_contra], /) -> Batch: ...

    def forward(self, batch: Batch, /) -> Sequence[Output_co | Exception]: ...


@dataclass(frozen=True, slots=True)
class _Formed(Generic[Item, Batch, Output]):
    """Rows taken out of the queue together, those of them that somebody waits for, and the batch of these.

    ``batch`` is None where collating failed; ``seconds`` is what collating took.
    """

    rows: Sequence[Queued[Item, Output]]
    live: Sequence[Queued[Item, Output]]
    batch: Batch | None
    seconds: float


class Batcher(Generic[Item, Batch, Output]):
    """A bounded queue of rows, and the turns on the device thread that empty it.

    There is at most one turn at a time; it ends by asking for the next one, behind whatever else the device has to do, so
    batchers that share a device take turns. Rows whose client has left, or whose deadline has passed, are not computed.
    """

    def __init__(
        self,
        task: Computation[Item, Batch, Output],
        device: Device,
        threads: ThreadPoolExecutor,
        observer: Observer,
        max_batch_tokens: int,
        admission: Admission,
    ) -> None:
        self._task, self._device, self._threads, self._observer = task, device, threads, observer
        self._max_batch_tokens, self._admission = max_batch_tokens, admission
        self._queue: FairQueue[Queued[Item, Output]] = FairQueue()
        self._tickets: set[Ticket[Output]] = set()  # the event loop's
        self._ahead: Future[_Formed[Item, Batch, Output]] | None = None
        self._waiting = 0
        self._enough = max_batch_tokens  # tokens that are worth a batch ahead of time
        self._turning = self._stopped = False
        self._lock = threading.Lock()  # over the queue and the five fields above

    @property
    def depth(self) -> int:
        """Rows that wait for the device."""
        return self._waiting

    def refuses(self) -> bool:
        """Whether so much waits already that no further request should be read."""
        return self._admission.refuses(self._queue.tokens)

    def start(self) -> None:
        """Begin to serve; needs the running event loop."""
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Stop serving; every request that is not answered yet is cancelled."""
        with self._lock:
            self._stopped = True
        for ticket in self._tickets:
            ticket.future.cancel()

    def submit(self, ticket: Ticket[Output], items: Sequence[Item]) -> list[Queued[Item, Output]]:
        """Queue a ticket's items, all or none; raises :class:`Overloaded` when they would wait for too long."""
        rows = [Queued(item, ticket, place) for place, item in enumerate(items)]
        with self._lock:
            self._admission.check(self._queue, rows)
            for row in rows:
                self._queue.push(row)
            self._waiting += len(rows)
            if self._turning:
                self._form_ahead()
            else:
                self._turning = True
                self._device.submit(self._turn)
        self._tickets.add(ticket)
        return rows

    def withdraw(self, ticket: Ticket[Output], rows: Sequence[Queued[Item, Output]]) -> None:
        """Forget a ticket, and take those of its rows out that still wait."""
        self._tickets.discard(ticket)
        if not ticket.is_complete:
            with self._lock:
                self._waiting -= sum(self._queue.remove(row) for row in rows)

    def _form_ahead(self) -> None:
        """While a batch is computed, have the next one ready, provided that waiting would make it no larger, or not by much."""
        if self._ahead is None and self._queue.tokens >= self._enough:
            self._ahead = self._threads.submit(self._form)

    def _turn(self) -> None:
        """One batch, on the device thread."""
        try:
            formed = self._next()
            if formed.live:
                self._compute(formed)
        finally:
            with self._lock:
                self._turning = not self._stopped and bool(self._queue or self._ahead)
                if self._turning:
                    self._device.submit(self._turn)

    def _next(self) -> _Formed[Item, Batch, Output]:
        """The batch that was formed ahead, or else one of what waits now; and the next one is begun if there is enough."""
        with self._lock:
            ahead, self._ahead = self._ahead, None
        formed = self._form() if ahead is None or ahead.cancel() else ahead.result()
        if any(row.ticket.is_over() for row in formed.live):
            formed = self._collate(formed.rows)
        with self._lock:
            self._waiting -= len(formed.rows)
            tokens, budget = sum(row.tokens for row in formed.rows), self._max_batch_tokens
            self._enough = min(tokens, budget) if tokens >= LARGE * budget else budget
            self._form_ahead()
        return formed

    def _form(self) -> _Formed[Item, Batch, Output]:
        with self._lock:
            rows = self._queue.take(self._max_batch_tokens)
        return self._collate(rows)

    def _collate(self, rows: Sequence[Queued[Item, Output]]) -> _Formed[Item, Batch, Output]:
        live = [row for row in rows if not row.ticket.is_over()]
        batch, started = None, time.monotonic()
        # What fails here is collated again by halves, which finds the row that it fails on.
        with suppress(Exception):
            batch = self._task.collate([row.item for row in live]) if live else None
        return _Formed(rows, live, batch, time.monotonic() - started)

    def _compute(self, formed: _Formed[Item, Batch, Output]) -> None:
        started = time.monotonic()
        outputs = self._outputs([row.item for row in formed.live], formed.batch)
        finished = time.monotonic()
        self._admission.served(sum(row.tokens for row in formed.live), finished - started)
        self._loop.call_soon_threadsafe(self._deliver, formed, outputs, started, finished)

    def _outputs(self, items: Sequence[Item], batch: Batch | None = None) -> Sequence[Output | Exception]:
        """Outputs of a batch; when it fails as a whole, by halves, so that only the bad row fails in the end."""
        try:
            outputs = self._task.forward(self._task.collate(items) if batch is None else batch)
            if len(outputs) != len(items):
                raise RuntimeError(f"{len(outputs)} outputs for {len(items)} items")
            return outputs
        except Exception as error:
            if len(items) > 1:
                log.warning("a batch of %d rows failed (%s); running its halves", len(items), type(error).__name__)
                middle = len(items) // 2
                return [*self._outputs(items[:middle]), *self._outputs(items[middle:])]
            if isinstance(error, QuickchangeError):
                return [error]
            log.exception("a forward failed")
            return [ForwardFailed("the model failed on this input")]

    def _deliver(
        self, formed: _Formed[Item, Batch, Output], outputs: Sequence[Output | Exception], started: float, finished: float
    ) -> None:
        for row, output in zip(formed.live, outputs, strict=True):
            row.ticket.settle(row.place, output, started, finished)
        self._observer.computed(_report(formed, started, finished))


def _report(formed: _Formed[Item, Batch, Output], started: float, finished: float) -> BatchReport:
    rows, tokens = formed.live, [row.tokens for row in formed.live]
    return BatchReport(
        rows=len(rows),
        tokens=sum(tokens),
        longest=max(tokens),
        shares=len({row.share for row in rows}),
        waited=[started - row.ticket.arrived for row in rows],
        collate=formed.seconds,
        forward=finished - started,
    )
