"""The library of kernels in C, built when the package is installed where there is a C compiler."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor


def _load() -> ctypes.CDLL | None:
    # Importing torch comes first: the library then shares torch's OpenMP, and so the threads that are already there.
    built = sorted(Path(__file__).parent.glob("_kernels*.so"))
    try:
        return ctypes.CDLL(str(built[0])) if built else None
    except OSError:
        return None


_library = _load()
available: bool = _library is not None


def call(name: str, job: ctypes.Structure, *more: object) -> bool:
    """Call a kernel; whether it did the job, which it leaves alone when sizes are beyond it.

    Raises :class:`RuntimeError` where the kernels were not built.
    """
    if _library is None:
        raise RuntimeError("there was no C compiler when the package was installed")
    return not getattr(_library, name)(ctypes.byref(job), *more)


def check(*tensors: Tensor) -> None:
    """Raise :class:`ValueError` unless the kernels can read these: contiguous, and all float32 or all bfloat16."""
    if not all(tensor.is_contiguous() and tensor.dtype == tensors[0].dtype for tensor in tensors):
        raise ValueError("the kernel reads contiguous tensors of one type")
    if tensors[0].dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"the kernel reads float32 and bfloat16, not {tensors[0].dtype}")
