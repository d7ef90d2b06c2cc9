"""The library of kernels in C, built when the package is installed where there is a C compiler.

There is one for each level of instructions; the processor's is loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.int64]]  # places and addresses, as the kernels read them
LANES = 16  # numbers of a vector
NO_MEMORY = 2  # as the kernels return it
NO_KERNEL = "this processor has no instructions for it, or there was no C compiler when the package was installed"
# What the levels of x86-64 by these names ask for, in torch's names, and tiles beside them. Each is in the next one.
V3 = ("avx2", "fma3", "f16c", "bmi", "bmi2", "lzcnt")
V4 = (*V3, "avx512_f", "avx512_bw", "avx512_cd", "avx512_dq", "avx512_vl")
V4_BF16 = (*V4, "avx512_bf16")
AMX = (*V4_BF16, "avx512_vnni", "amx_tile", "amx_bf16")
LEVELS = {"amx": AMX, "v4_bf16": V4_BF16, "v4": V4, "v3": V3, "any": ()}  # by their libraries' names


def has(*flags: str) -> bool:
    """Whether the processor has these instructions, by torch's names for them."""
    found = torch.cpu.get_capabilities()
    return all(found.get(flag) for flag in flags)


def runs(level: str) -> bool:
    """Whether the processor has a level's instructions, and the operating system lets this process use them."""
    return has(*LEVELS[level]) and (level != "amx" or bool(torch.cpu._init_amx()))


def libraries() -> Iterator[tuple[str, ctypes.CDLL]]:
    """The libraries that were built and whose instructions the processor has, by their levels, the highest first."""
    # Importing torch comes first: a library then shares torch's OpenMP, and so the threads that are already there.
    for level in filter(runs, LEVELS):
        for file in Path(__file__).parent.glob(f"_kernels_{level}.*so"):
            try:
                yield level, ctypes.CDLL(str(file))
            except OSError:
                continue


level: str | None
library: ctypes.CDLL | None
level, library = next(libraries(), (None, None))
highest = next(filter(runs, LEVELS))  # for which there may be no library
available: bool = library is not None


def function(name: str) -> Any:
    """The kernel of that name; raises :class:`RuntimeError` where there is none for this processor."""
    found = getattr(library, name, None)
    if found is None:
        raise RuntimeError(NO_KERNEL)
    return found


def built(name: str) -> bool:
    """Whether there is a kernel of that name for this processor."""
    return hasattr(library, name)


def constant(name: str) -> int:
    """A number that kernels for this processor go by; raises :class:`RuntimeError` where there are none."""
    if library is None or not hasattr(library, name):
        raise RuntimeError(NO_KERNEL)
    return ctypes.c_int64.in_dll(library, name).value


def call(name: str, *jobs: ctypes.Structure) -> bool:
    """Call a kernel; whether it did its job, which it leaves alone when sizes are beyond it.

    Raises :class:`RuntimeError` where the kernels were not built, and :class:`MemoryError` where there is no memory for it.
    """
    failed = function(name)(*map(ctypes.byref, jobs))
    if failed == NO_MEMORY:
        raise MemoryError
    return not failed


def padded(count: int, step: int = LANES) -> int:
    """The next multiple of ``step``."""
    return -(-count // step) * step


def check(*tensors: Tensor) -> None:
    """Raise :class:`ValueError` unless the kernels can read these: contiguous, and all float32 or all bfloat16."""
    if not all(tensor.is_contiguous() and tensor.dtype == tensors[0].dtype for tensor in tensors):
        raise ValueError("the kernel reads contiguous tensors of one type")
    if tensors[0].dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"the kernel reads float32 and bfloat16, not {tensors[0].dtype}")
