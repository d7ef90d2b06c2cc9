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
        ("queries", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bfloat16", "rows", "heads", "size")),
        ("starts", ctypes.c_void_p),
    )


def attention(to: Tensor, joined: Tensor, heads: int, starts: np.ndarray[Any, Any], queries: Tensor | None = None) -> None:
    """Write the attention of rows of tokens to ``to``; ``joined`` (tokens, 3 · hidden) has their queries, keys and values.

    ``starts`` (rows + 1,) has every row's first token and the end; ``to`` is (tokens, hidden). With ``queries`` (rows, hidden),
    of one token of each row, ``joined`` is (tokens, 2 · hidden) and ``to`` (rows, hidden). All of them may have more lines,
    which are left as they are. Raises :class:`ValueError` for what it cannot read.
    """
    asking = joined if queries is None else queries
    kernels.check(to, joined, asking)
    hidden, rows, tokens = to.shape[1], len(starts) - 1, starts[-1]
    vectors, lines = (3, tokens) if queries is None else (2, rows)
    fits = joined.shape[1] == vectors * hidden and asking.shape[1] in (hidden, 3 * hidden)
    if not fits or tokens > len(joined) or lines > min(len(to), len(asking)):
        raise ValueError(f"{rows} rows up to token {tokens} from {tuple(joined.shape)} to {tuple(to.shape)}")
    size, address = hidden // heads, None if queries is None else queries.data_ptr()
    job = _Job(to.data_ptr(), joined.data_ptr(), address, to.dtype == torch.bfloat16, rows, heads, size, starts.ctypes.data)
    if not kernels.call("attention", job):
        raise ValueError(f"the kernel reads rows of up to {MAX_LENGTH} tokens and heads of up to {MAX_SIZE} numbers")
