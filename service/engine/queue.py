"""The rows that wait, in an order that is fair between shares (in practice: between adapters).

Start-time fair queueing (Goyal, Vin and Cheng, 1996): each share has a virtual time at which its first waiting row may
start. It advances by the tokens that the share is served, and a share that comes back never starts in the past.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import count
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the queue knows of a row: whose share pays for it, and its cost in tokens."""

    @property
    def share(self) -> Hashable: ...
    @property
    def tokens(self) -> int: ...


Row = TypeVar("Row", bound=Waiting)


@dataclass(slots=True, eq=False)
class _Share(Generic[Row]):
    """One share's waiting rows by their arrival, how many tokens they have, and when the first of them may start."""

    start: int
    tokens: int = 0
    rows: OrderedDict[Row, int] = field(default_factory=OrderedDict)

    def by_start(self) -> Iterator[tuple[int, int, int, Row]]:
        """The rows, each with its virtual start; of those that start together, the smaller share's goes first."""
        start = self.start
        for row, arrival in self.rows.items():
            yield start, self.tokens, arrival, row
            start += row.tokens


class FairQueue(Generic[Row]):
    """Rows that wait; not safe for threads. ``len`` counts rows, ``tokens`` is their cost."""

    def __init__(self) -> None:
        self._shares: dict[Hashable, _Share[Row]] = {}
        self._now = 0
        self._arrivals = count()
        self._rows = self.tokens = 0

    def __len__(self) -> int:
        return self._rows

    def push(self, row: Row) -> None:
        """Add a row behind its share's others."""
        share = self._shares.get(row.share)
        if share is None:
            share = self._shares[row.share] = _Share(self._now)
        elif not share.rows:
            share.start = max(share.start, self._now)
        share.rows[row] = next(self._arrivals)
        self._count(share, row, 1)

    def remove(self, row: Row) -> bool:
        """Take a row out that nobody waits for any more; whether it was still there."""
        share = self._shares.get(row.share)
        if share is None or row not in share.rows:
            return False
        self._drop(share, row)
        return True

    def held(self, share: Hashable) -> int:
        """Tokens of one share's rows."""
        found = self._shares.get(share)
        return 0 if found is None else found.tokens

    def take(self, budget: int) -> list[Row]:
        """Remove the next batch: rows as their turns come, at most ``budget`` tokens, or one row that alone is over it."""
        batch: list[Row] = []
        for start, *_, row in merge(*(share.by_start() for share in self._shares.values())):
            if batch and row.tokens > budget:
                break
            if not batch:
                self._now = max(self._now, start)
            batch.append(row)
            budget -= row.tokens
        for row in batch:
            share = self._shares[row.share]
            share.start += row.tokens
            self._drop(share, row)
        self._forget()
        return batch

    def _drop(self, share: _Share[Row], row: Row) -> None:
        del share.rows[row]
        self._count(share, row, -1)

    def _count(self, share: _Share[Row], row: Row, sign: int) -> None:
        share.tokens += sign * row.tokens
        self.tokens += sign * row.tokens
        self._rows += sign

    def _forget(self) -> None:
        """Drop the shares that are owed no memory: idle ones that were served no more than their part, or all, at rest."""
        self._shares = {
            name: share for name, share in self._shares.items() if share.rows or (self._rows and share.start > self._now)
        }
