"""The tensors in a safetensors file, as views of one block of memory: read once, and copied no more."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from service.memory import block
from service.store.header import Entry, read_header

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
SIZES = {name: dtype.itemsize for name, dtype in TYPES.items()}
Data = bytes | memoryview


def read_block(file: Path, opener: Callable[[str, int], int] | None = None) -> Data:
    """A file's bytes, in a block of memory of their own; what happens to the file later does not change them.

    ``opener`` opens it where that takes more than a path and flags.
    """
    with open(file, "rb", buffering=0, opener=opener) as opened:
        size = os.fstat(opened.fileno()).st_size
        if not size:
            return b""
        data, done = block(size), 0
        while done < size and (count := opened.readinto(data[done:])):
            done += count
        return data[:done]


def parse_weights(data: Data) -> dict[str, Tensor]:
    """The named tensors in the bytes of a safetensors file; raises :class:`AdapterIncompatible` with all faults of another.

    They are views of ``data`` if it is a block that may be written to, and else of a copy.
    """
    start, entries = read_header(data, SIZES)
    own = memoryview(data)
    if own.readonly:
        own = block(len(data))
        own[:] = data
    return {entry.name: _tensor(own, start, entry) for entry in entries}


def check_weights(data: Data) -> None:
    """Raise :class:`AdapterIncompatible` with all faults of what is not a safetensors file."""
    read_header(data, SIZES)


def _tensor(data: memoryview, start: int, entry: Entry) -> Tensor:
    dtype, shape = TYPES[entry.dtype], entry.shape
    if entry.first == entry.last:
        return torch.empty(shape, dtype=dtype)
    if (start + entry.first) % dtype.itemsize:  # only files that the library did not write
        return torch.frombuffer(bytearray(data[start + entry.first : start + entry.last]), dtype=dtype).reshape(shape)
    return torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=start + entry.first).reshape(shape)
