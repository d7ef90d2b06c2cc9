"""A request's way through the engine: admission, prepare on a CPU thread, the batcher, the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.engine.admission import Admission
from service.engine.batcher import Batcher
from service.engine.device import Device
from service.engine.observer import Observer
from service.engine.preparation import Preparation
from service.engine.ticket import Costed, Ticket
from service.errors import DeadlineExceeded, Overloaded


class Sized(Protocol):
    """What admission must know of a request: how many rows it will become."""

    @property
    def rows(self) -> int: ...


Request = TypeVar("Request", bound=Sized)
Request_contra = TypeVar("Request_contra", bound=Sized, contravariant=True)
Item = TypeVar("Item", bound=Costed)
Batch = TypeVar("Batch")
Output = TypeVar("Output")
Output_co = TypeVar("Output_co", covariant=True)


class Task(Protocol[Request_contra, Item, Batch, Output_co]):
    """What is computed: from a request to items, from items to a batch (both on CPU threads), and from that to outputs."""

    def prepare(self, request: Request_contra, /) -> Sequence[Item]: ...

    def collate(self, items: Sequence[Item], /) -> Batch: ...

    def forward(self, batch: Batch, /) -> Sequence[Output_co | Exception]: ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time went, in milliseconds; queue and inference are those of its slowest row."""

    prepare: float
    queue: float
    inference: float


@dataclass(frozen=True, slots=True)
class Answer(Generic[Output]):
    """A request's outputs, one per row, and its timing."""

    outputs: Sequence[Output]
    timing: Timing


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a pipeline: rows in it, tokens of a batch, seconds' worth and tokens in the queue, and a request's seconds."""

    rows: int
    batch_tokens: int
    queue_seconds: float
    queue_tokens: int
    seconds: float


class Pipeline(Generic[Request, Item, Output]):
    """One task behind admission, CPU threads and a batcher; every pipeline shares the device thread.

    ``is_quick`` tells, on a CPU thread, whether preparing a request is short and waits for nothing, so that others may wait
    behind it; without it, none is.
    """

    def __init__(
        self,
        task: Task[Request, Item, Batch, Output],
        device: Device,
        threads: ThreadPoolExecutor,
        observer: Observer,
        limits: Limits,
        is_quick: Callable[[Request], bool] | None = None,
    ) -> None:
        self._prepare: Preparation[Request, Item] = Preparation(task.prepare, threads, is_quick)
        self._limits = limits
        admission = Admission(limits.queue_seconds, limits.queue_tokens, limits.batch_tokens)
        self._batcher = Batcher(task, device, threads, observer, limits.batch_tokens, admission)
        self._rows = 0
        self.start = self._batcher.start

    def stop(self) -> None:
        """Stop serving; every request that is not answered yet is cancelled."""
        self._batcher.stop()
        self._prepare.close()

    @property
    def rows(self) -> int:
        """Rows that are being prepared, waiting or running."""
        return self._rows

    def check(self) -> None:
        """Raise :class:`Overloaded` if not even a request of one row would be admitted."""
        if self._rows >= self._limits.rows or self._batcher.refuses():
            raise Overloaded(f"no further request is accepted while {self._rows} rows are in work")

    @property
    def depth(self) -> int:
        """Rows that wait for a batch."""
        return self._batcher.depth

    async def run(self, request: Request) -> Answer[Output]:
        """Answer a request, every row of it.

        Raises :class:`Overloaded` at once when its rows do not fit, :class:`DeadlineExceeded` when time is up, and
        else the first error of prepare or of any row. Cancelling it takes its rows out of the queue.
        """
        if self._rows and self._rows + request.rows > self._limits.rows:
            raise Overloaded(
                f"{self._rows} rows are in work and this request has {request.rows}; at most {self._limits.rows} are accepted"
            )
        self._rows += request.rows
        deadline = time.monotonic() + self._limits.seconds
        try:
            async with asyncio.timeout_at(deadline):
                return await self._answer(request, deadline)
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {self._limits.seconds:g} s") from None
        finally:
            self._rows -= request.rows

    async def _answer(self, request: Request, deadline: float) -> Answer[Output]:
        arrived = time.monotonic()
        items = await self._prepare(request)
        ticket: Ticket[Output] = Ticket(len(items), deadline)
        rows = self._batcher.submit(ticket, items)
        try:
            outputs = await ticket.future
        finally:
            self._batcher.withdraw(ticket, rows)
        return Answer(outputs, Timing(1e3 * (ticket.arrived - arrived), 1e3 * ticket.queue, 1e3 * ticket.inference))
