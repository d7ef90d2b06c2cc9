"""The kernel in ``heads_kernel.c``: a linear layer for runs of rows that each have their own."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from service.models import kernels
from service.models.kernels import Array


class Job(ctypes.Structure):
    """What one call of the kernel works on."""

    _fields_ = (
        ("y", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rows", "width", "inputs", "tanh", "runs")),
        ("bounds", ctypes.c_void_p),
        ("layers", ctypes.c_void_p),
    )


def apply(y: Tensor, x: Tensor, bounds: Array, layers: Array, *, tanh: bool = False) -> None:
    """Write each run's own layer of ``x`` (rows, in), or of its tanh, to ``y`` (rows, width), both float32 and contiguous.

    ``bounds`` (runs, 2) has runs of rows; ``layers`` (runs, 3) the addresses of their weights (out, in) and biases, and
    how many outputs they have, at most ``width``; rows of runs with none are left alone.
    Raises :class:`ValueError` for what it cannot read.
    """
    if not kernels.call("heads_apply", job(y, x, bounds, layers, tanh=tanh)):
        runs = f"runs to row {bounds[:, 1].max()}, {layers[:, 2].max()} wide"
        raise ValueError(f"the kernel of heads does not read {runs}, from {tuple(x.shape)} to {tuple(y.shape)}")


def job(y: Tensor, x: Tensor, bounds: Array, layers: Array, *, tanh: bool = False) -> Job:
    """The same as a job, for a kernel that does it part by part; what it names must outlive it."""
    kernels.check(x, y)
    if x.dtype != torch.float32:
        raise ValueError(f"the kernel of heads reads float32, not {x.dtype}")
    return Job(
        y.data_ptr(), x.data_ptr(), min(len(x), len(y)), y.shape[1], x.shape[1], tanh, len(bounds), bounds.ctypes.data,
        layers.ctypes.data,
    )  # fmt: skip
