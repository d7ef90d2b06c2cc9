"""The kernel in ``attention_kernel.c``: attention over rows that lie end to end, without padding them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.models import kernels

MAX_LENGTH, MAX_SIZE = 512, 128  # as in the C file


class _Job(ctypes.Structure):
    _fields_ = (
        ("to", ctypes.c_void_p),
        ("from", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bfloat16", "rows", "heads", "size", "first_only")),
        ("starts", ctypes.c_void_p),
    )


def attention(to: Tensor, joined: Tensor, heads: int, starts: np.ndarray[Any, Any], *, first_only: bool = False) -> None:
    """Write the attention of rows of tokens to ``to``; ``joined`` (tokens, 3 · hidden) has their queries, keys and values.

    ``starts`` (rows + 1,) has every row's first token and the end; ``to`` is (tokens, hidden), or with ``first_only``, for
    the first token of each row alone, (rows, hidden). Both tensors may have more lines, which are left as they are.
    Raises :class:`ValueError` for what it cannot read.
    """
    kernels.check(to, joined)
    hidden, rows = to.shape[1], len(starts) - 1
    if joined.shape[1] != 3 * hidden or starts[-1] > len(joined) or (rows if first_only else starts[-1]) > len(to):
        raise ValueError(f"{rows} rows up to token {starts[-1]} from {tuple(joined.shape)} to {tuple(to.shape)}")
    size = hidden // heads
    job = _Job(to.data_ptr(), joined.data_ptr(), to.dtype == torch.bfloat16, rows, heads, size, first_only, starts.ctypes.data)
    if not kernels.call("attention", job, ctypes.c_double(size**-0.5)):
        raise ValueError(f"the kernel reads rows of up to {MAX_LENGTH} tokens and heads of up to {MAX_SIZE} numbers")
