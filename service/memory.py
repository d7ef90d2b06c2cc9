"""Blocks of memory for adapters, each mapped on its own, so that what an adapter took is given back when it goes.

From the heap they would not be: the small objects around each adapter settle in the gaps that large ones leave, and with
thousands of adapters coming and going it grows to twice what is in it. Imports nothing, like :mod:`service.errors`.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

HUGE = 1 << 21  # bytes of a large page


def block(nbytes: int) -> memoryview:
    """So many bytes, at least one, all zero; they go with the last reference to them or to a tensor made on them."""
    memory = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):  # on Linux, where a processor need not look up each 4 KB of it
        with suppress(OSError):  # of a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
