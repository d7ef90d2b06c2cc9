"""The library of kernels in C, built when the package is installed where there is a C compiler."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.int64]]  # places and addresses, as the kernels read them
LANES = 16  # numbers of a vector
NO_MEMORY = 2  # as the kernels return it
X86_64_V4 = ("avx512_f", "avx512_bw", "avx512_cd", "avx512_dq", "avx512_vl")  # what the level of that name asks for


def _load() -> ctypes.CDLL | None:
    # Importing torch comes first: the library then shares torch's OpenMP, and so the threads that are already there.
    built = sorted(Path(__file__).parent.glob("_kernels*.so"))
    try:
        return ctypes.CDLL(str(built[0])) if built else None
    except OSError:
        return None


def has_vectors(flag: str) -> bool:
    """Whether the processor has the instructions of x86-64-v4 and, by torch's name for them, these."""
    flags = torch.cpu.get_capabilities()
    return all(flags.get(needed) for needed in (*X86_64_V4, flag))


_library = _load()
available: bool = _library is not None


@cache
def function(name: str) -> Any:
    """The kernel of that name, in the variant for this processor; raises :class:`RuntimeError` where none was built."""
    variant = "_bf16" if has_vectors("avx512_bf16") else ""
    found = getattr(_library, name + variant, None) or getattr(_library, name, None)
    if found is None:
        raise RuntimeError("there was no C compiler for it when the package was installed")
    return found


def built(name: str) -> bool:
    """Whether there is a kernel of that name; not, whether this processor has its instructions."""
    try:
        function(name)
    except RuntimeError:
        return False
    return True


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
