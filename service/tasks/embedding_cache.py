"""Embeddings by content: an image or question that was seen before needs no encoder."""

from __future__ import annotations

import threading
from collections import OrderedDict

from torch import Tensor


class EmbeddingCache:
    """A thread-safe cache of embeddings, bounded by their number; the least recently used go first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    def get(self, key: bytes) -> Tensor | None:
        """The embedding under ``key``, (size,), if it is still there."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._entries.move_to_end(key)
            return found

    def put(self, key: bytes, embedding: Tensor) -> None:
        """Keep an embedding."""
        with self._lock:
            self._entries[key] = embedding
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
