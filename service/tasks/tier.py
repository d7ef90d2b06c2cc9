"""A bounded set of values in memory, counted in bytes until nobody holds them any more."""

from __future__ import annotations

import sys
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from service.store.selector import Ref

Value = TypeVar("Value")
ALONE = {0: object()}
IDLE = sys.getrefcount(ALONE[0])  # references to a value that nobody holds but its dictionary


class Tier(Generic[Value]):
    """Values by version within ``budget`` bytes; of those that nobody uses, the least recently used goes first.

    A value is counted from before it is made until its last reference is gone, so that the count never falls short of
    what is in memory. Where everything is in use, the count may exceed the budget by ``excess`` of it, to ``limit``. ``pinned``
    versions stay. ``loads`` counts values that came, ``evictions`` those that went to make room.
    """

    def __init__(self, budget: int, excess: float = 0.0) -> None:
        self.budget, self.loads, self.evictions = budget, 0, 0
        self.pinned: frozenset[Ref] = frozenset()
        self.limit = int(budget * (1 + excess))
        self._values: OrderedDict[Ref, Value] = OrderedDict()
        self._lock = threading.Lock()
        self._taken = 0
        self._freed: deque[int] = deque()

    def __contains__(self, ref: Ref) -> bool:
        return ref in self._values

    def __len__(self) -> int:
        return len(self._values)

    @property
    def bytes(self) -> int:
        """What the values take, those included that are not kept any more but still in use."""
        with self._lock:
            self._settle()
            return self._taken

    def get(self, ref: Ref) -> Value | None:
        """The value, which is now the most recently used one."""
        with self._lock:
            value = self._values.get(ref)
            if value is not None:
                self._values.move_to_end(ref)
            return value

    def admit(self, nbytes: int, make: Callable[[], Value]) -> Value | None:
        """Make a value of so many bytes, after making room for it; None where there is none."""
        if not self._reserve(nbytes):
            return None
        try:
            value = make()
        except BaseException:
            self._freed.append(nbytes)
            raise
        # No lock: a last reference may go anywhere, even inside a method of this class.
        weakref.finalize(value, self._freed.append, nbytes).atexit = False
        return value

    def keep(self, ref: Ref, value: Value) -> None:
        """Keep an admitted value for others."""
        with self._lock:
            self._values[ref] = value
            self._values.move_to_end(ref)
            self.loads += 1

    def drop(self, ref: Ref) -> None:
        """Forget a value; whoever uses it may go on."""
        with self._lock:
            self._values.pop(ref, None)

    def _reserve(self, nbytes: int) -> bool:
        with self._lock:
            self._settle()
            if self._taken + nbytes > self.budget:
                self._evict(nbytes)
            fits = self._taken + nbytes <= self.limit
            if fits:
                self._taken += nbytes
            return fits

    def _evict(self, nbytes: int) -> None:
        for ref in list(self._values):
            if ref in self.pinned or sys.getrefcount(self._values[ref]) > IDLE:
                continue
            del self._values[ref]
            self.evictions += 1
            self._settle()
            if self._taken + nbytes <= self.budget:
                return

    def _settle(self) -> None:
        while self._freed:
            self._taken -= self._freed.popleft()
