"""The kernel in ``lora_kernel.c``: every run's low-rank products, and the activation after them."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from service.models import kernels
from service.models.kernels import Array

MAX_PARTS, MAX_RANK = 3, 1024  # as in the C file
BEYOND = f"the kernel reads up to {MAX_PARTS} modules of a site and ranks up to {MAX_RANK}"
EVERY_ROW, CHANGED_ROWS = 1, 2  # that GELU goes over


class Job(ctypes.Structure):
    """What one call of the kernel works on."""

    _fields_ = (
        ("y", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bfloat16", "rows", "inputs", "outputs", "parts", "gelu", "runs")),
        ("bounds", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
    )


def add(y: Tensor, x: Tensor, first: int, parts: int, bounds: Array, table: Array, *, gelu: bool = False) -> None:
    """Add low-rank products to ``y`` (rows, parts · out) from ``x`` (rows, in), both float32 or both bfloat16, contiguous.

    ``bounds`` (runs, 2) has runs of rows, in order; ``table`` (runs, modules, 3) the addresses of their factors, which are
    of the same type and padded as :mod:`service.models.lora` does, and their ranks, of which modules ``first`` to
    ``first + parts`` are read. With ``gelu``, all of ``y`` goes through it afterwards.
    Raises :class:`ValueError` for tensors that it cannot read.
    """
    if not kernels.call("lora_add", job(y, x, first, parts, bounds, table, EVERY_ROW if gelu else 0)):
        raise ValueError(BEYOND)


def job(y: Tensor, x: Tensor, first: int, parts: int, bounds: Array, table: Array, over: int) -> Job:
    """The same as a job, for a kernel that does it tile by tile; what it names must outlive it.

    ``over`` tells which rows go through GELU: every one, the changed ones, or 0 for none.
    """
    kernels.check(x, y)
    if len(bounds) and bounds[-1, 1] > len(x):
        raise ValueError(f"runs end at row {bounds[-1, 1]} of {len(x)}")
    runs, modules, entry = table.shape
    if parts > MAX_PARTS or (table[:, first : first + parts, 2] > MAX_RANK).any():
        raise ValueError(BEYOND)
    return Job(
        y.data_ptr(), x.data_ptr(), x.dtype == torch.bfloat16, len(x), x.shape[1], y.shape[1] // parts, parts, over, runs,
        bounds.ctypes.data, table.ctypes.data + first * entry * table.itemsize, modules,
    )  # fmt: skip
