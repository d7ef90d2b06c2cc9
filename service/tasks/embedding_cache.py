"""Embeddings by content: what was seen before needs no encoder, and what many requests bring at once is encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from torch import Tensor

Content = TypeVar("Content")


class Encodable(Generic[Content]):
    """Something to encode, shared by every request that brings it before it is encoded.

    ``embedding`` is (size,), and there once :meth:`EmbeddingCache.encode` was; until then ``content``, the encoder's
    input, is there once :meth:`claim` was called.
    """

    __slots__ = ("__weakref__", "_lock", "content", "embedding", "key")
    content: Content
    embedding: Tensor

    def __init__(self, key: bytes, embedding: Tensor | None = None) -> None:
        self.key, self._lock = key, threading.Lock()
        if embedding is not None:
            self.embedding = embedding

    @property
    def is_encoded(self) -> bool:
        """Whether it needs no encoder any more."""
        return hasattr(self, "embedding")

    def claim(self, make: Callable[[], Content]) -> bool:
        """Make the content unless it is not needed or another thread does; whether it was made here."""
        with self._lock:
            if self.is_encoded or hasattr(self, "content"):
                return False
            self.content = make()
            return True


def not_encoded(entries: Iterable[Encodable[Content]]) -> list[Encodable[Content]]:
    """Those that need an encoder, each once."""
    return [entry for entry in dict.fromkeys(entries) if not entry.is_encoded]


class EmbeddingCache(Generic[Content]):
    """A thread-safe cache of one encoder's embeddings, bounded by their number; the least recently used go first.

    ``hits`` counts what was found, encoded or brought by another request just then, and ``misses`` what was not.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[bytes, Encodable[Content]] = OrderedDict()
        self._known: WeakValueDictionary[bytes, Encodable[Content]] = WeakValueDictionary()  # kept, or held by a request
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def nbytes(self) -> int:
        """What the kept embeddings take; each takes as much as any other."""
        with self._lock:
            return len(self._kept) * next((entry.embedding.nbytes for entry in self._kept.values()), 0)

    def get(self, key: bytes) -> Encodable[Content]:
        """What has this key: encoded before, brought by a request that is still in work, or new."""
        with self._lock:
            if (entry := self._known.get(key)) is None:
                self.misses += 1
                self._known[key] = entry = Encodable(key)
            else:
                self.hits += 1
                if key in self._kept:
                    self._kept.move_to_end(key)
            return entry

    def encode(self, entries: Sequence[Encodable[Content]], encoder: Callable[[list[int]], Tensor]) -> None:
        """Give every entry its embedding, and keep it; to be called on the device thread.

        ``encoder`` returns the embeddings, (n, size), of those that have none, given by their places in ``entries``.
        """
        new = [place for place, entry in enumerate(entries) if not entry.is_encoded]
        if not new:
            return
        for place, row in zip(new, encoder(new), strict=True):
            entry, embedding = entries[place], row.clone()  # so that one kept row does not keep its whole batch alive
            entry.embedding = embedding
            self._keep(Encodable(entry.key, embedding))

    def _keep(self, entry: Encodable[Content]) -> None:
        """Keep an entry that has its embedding and no content."""
        with self._lock:
            self._known[entry.key] = self._kept[entry.key] = entry
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
