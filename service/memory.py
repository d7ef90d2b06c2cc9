"""Blocks of memory for adapters, each mapped on its own, so that what an adapter took is given back when it goes.

From the heap they would not be: the small objects around each adapter settle in the gaps that large ones leave, and with
thousands of adapters coming and going it grows to twice what is in it. Imports nothing, like :mod:`service.errors`.
"""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap


def block(nbytes: int) -> memoryview:
    """So many bytes, at least one, all zero; they go with the last reference to them or to a tensor made on them."""
    return memoryview(mmap(-1, nbytes, MAP_PRIVATE | MAP_ANONYMOUS))
