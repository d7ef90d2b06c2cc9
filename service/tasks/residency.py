"""Which adapter versions are in memory: loaded once however many ask, the least recently used one going first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from service.store.selector import Ref

Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


class OnDevice(Protocol):
    """Runs a call on the thread that forwards run on, and waits for its result."""

    def __call__(self, call: Callable[[], Result], /) -> Result: ...


class Residency(Generic[Loaded]):
    """A bounded cache of loaded versions; whoever holds one that is dropped keeps it until done.

    ``load`` runs on the thread of the first that asks; a failure is raised to all that waited, and not remembered.
    """

    def __init__(self, load: Callable[[Ref], Loaded], capacity: int) -> None:
        self._load, self._capacity = load, capacity
        self._loaded: OrderedDict[Ref, Loaded] = OrderedDict()
        self._loading: dict[Ref, Future[Loaded]] = {}
        self._lock = threading.Lock()

    def __contains__(self, ref: Ref) -> bool:
        return ref in self._loaded

    def __len__(self) -> int:
        return len(self._loaded)

    def get(self, ref: Ref) -> Loaded:
        """The loaded version, from memory or through ``load``, whose errors it raises."""
        with self._lock:
            if ref in self._loaded:
                self._loaded.move_to_end(ref)
                return self._loaded[ref]
            pending, mine = self._loading.get(ref), Future[Loaded]()
            if pending is None:
                self._loading[ref] = mine
        return pending.result() if pending is not None else self._load_for_all(ref, mine)

    def _load_for_all(self, ref: Ref, waiting: Future[Loaded]) -> Loaded:
        try:
            loaded = self._load(ref)
        except BaseException as error:
            del self._loading[ref]
            waiting.set_exception(error)
            raise
        self.put(ref, loaded)
        waiting.set_result(loaded)
        return loaded

    def put(self, ref: Ref, loaded: Loaded) -> None:
        """Keep a version that was loaded elsewhere; over capacity, the least recently used one is dropped."""
        with self._lock:
            self._loading.pop(ref, None)
            self._loaded[ref] = loaded
            dropped = [self._loaded.popitem(last=False) for _ in range(len(self._loaded) - self._capacity)]
        del dropped  # outside the lock, since freeing runs other code

    def drop(self, ref: Ref) -> None:
        """Forget a version; requests that hold it still finish with it."""
        with self._lock:
            dropped = self._loaded.pop(ref, None)
        del dropped
