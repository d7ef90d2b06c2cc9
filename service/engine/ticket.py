"""What waits: a request's rows, and the ticket that collects their outputs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Costed(Protocol):
    """What the engine must know of an item: its cost in tokens, and whose share of the device it takes."""

    @property
    def tokens(self) -> int: ...
    @property
    def share(self) -> Hashable: ...


Item = TypeVar("Item", bound=Costed)
Output = TypeVar("Output")


class Ticket(Generic[Output]):
    """One request's way through the batches: ``future`` has the outputs of all its rows, in order, or the first error.

    ``queue`` and ``inference`` are the seconds that its slowest row waited and was computed. Only the event loop may
    change it; any thread may ask whether it is over. ``deadline`` is a time of the loop's clock.
    """

    __slots__ = ("_outputs", "_rows", "arrived", "deadline", "future", "inference", "queue")

    def __init__(self, rows: int, deadline: float) -> None:
        self.future: asyncio.Future[Sequence[Output]] = asyncio.get_running_loop().create_future()
        self.arrived, self.deadline = time.monotonic(), deadline
        self.queue = self.inference = 0.0
        self._outputs: dict[int, Output] = {}
        self._rows = rows

    def is_over(self) -> bool:
        """Whether nobody waits any more: it is answered, its client has left, or its deadline has passed."""
        return self.future.done() or time.monotonic() >= self.deadline

    @property
    def is_complete(self) -> bool:
        """Whether every row has its output."""
        return len(self._outputs) == self._rows

    def settle(self, place: int, output: Output | Exception, started: float, finished: float) -> None:
        """Take the output of one row, whose forward began and ended at these times."""
        if self.future.done():
            return
        if isinstance(output, Exception):
            self.future.set_exception(output)
            return
        self.queue = max(self.queue, started - self.arrived)
        self.inference = max(self.inference, finished - started)
        self._outputs[place] = output
        if self.is_complete:
            self.future.set_result([self._outputs[i] for i in range(self._rows)])


@dataclass(slots=True, eq=False)
class Queued(Generic[Item, Output]):
    """A row that waits: the ``place``-th of its ticket."""

    item: Item
    ticket: Ticket[Output]
    place: int
    tokens: int = field(init=False)
    share: Hashable = field(init=False)

    def __post_init__(self) -> None:
        self.tokens, self.share = self.item.tokens, self.item.share
