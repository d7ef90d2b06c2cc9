"""The kernel in ``lora_kernel.c``, built when the package is installed where there is a C compiler."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_INPUTS, MAX_RANK = 16384, 1024  # as in the C file


class _Job(ctypes.Structure):
    _fields_ = (
        ("y", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bfloat16", "inputs", "outputs", "parts", "runs")),
        ("bounds", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
    )


def _load() -> ctypes.CDLL | None:
    # Importing torch comes first: the library then shares torch's OpenMP, and so the threads that are already there.
    built = sorted(Path(__file__).parent.glob("_lora_kernel*.so"))
    try:
        return ctypes.CDLL(str(built[0])) if built else None
    except OSError:
        return None


_library = _load()
available: bool = _library is not None


def add(y: Tensor, x: Tensor, first: int, parts: int, bounds: np.ndarray[Any, Any], table: np.ndarray[Any, Any]) -> None:
    """Add low-rank products to ``y`` (rows, parts · out) from ``x`` (rows, in), both float32 or both bfloat16, contiguous.

    ``bounds`` (runs, 2) has runs of rows; ``table`` (runs, modules, 3) the addresses of their factors and their ranks, of
    which modules ``first`` to ``first + parts`` are read. Raises :class:`ValueError` for tensors that it cannot read.
    """
    if _library is None or not (x.is_contiguous() and y.is_contiguous() and x.dtype == y.dtype):
        raise ValueError("the kernel reads contiguous tensors of one type")
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"the kernel reads float32 and bfloat16, not {x.dtype}")
    if len(bounds) and bounds[-1, 1] > len(x):
        raise ValueError(f"runs end at row {bounds[-1, 1]} of {len(x)}")
    runs, modules, entry = table.shape
    job = _Job(
        y.data_ptr(), x.data_ptr(), x.dtype == torch.bfloat16, x.shape[1], y.shape[1] // parts, parts, runs,
        bounds.ctypes.data, table.ctypes.data + first * entry * table.itemsize, modules,
    )  # fmt: skip
    if _library.lora_add(ctypes.byref(job)):
        raise ValueError(f"the kernel reads up to {MAX_INPUTS} inputs and ranks up to {MAX_RANK}")
