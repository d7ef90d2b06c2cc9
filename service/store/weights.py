"""The tensors in a safetensors file, as views of one block of memory: read once, and copied no more."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.errors import AdapterIncompatible
from service.memory import block
from service.store.layout import WEIGHTS

LENGTH = 8  # bytes of the header's length, which begins the file
LONGEST_HEADER = 100_000_000
METADATA = "__metadata__"
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
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
    """The named tensors in the bytes of a safetensors file; raises :class:`AdapterIncompatible` for anything else.

    They are views of ``data`` if it is a block that may be written to, and else of a copy.
    """
    try:
        start, entries = _header(data)
        own = memoryview(data)
        if own.readonly:
            own = block(len(data))
            own[:] = data
        return {name: _tensor(own, start, entry) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise AdapterIncompatible([f"{WEIGHTS} is not a readable safetensors file"]) from None


def _header(data: Data) -> tuple[int, dict[str, Mapping[str, Any]]]:
    """Where the tensors begin, and what the header says of each: together they must fill the file without gap or overlap."""
    length = int.from_bytes(data[:LENGTH], "little")
    start = LENGTH + length
    if not 0 < length <= LONGEST_HEADER or start > len(data) or data[LENGTH] != ord("{"):
        raise ValueError
    header: dict[str, Mapping[str, Any]] = json.loads(bytes(data[LENGTH:start]))
    entries = {name: entry for name, entry in header.items() if name != METADATA}
    end = 0
    for first, last in sorted(entry["data_offsets"] for entry in entries.values()):
        if first != end or last < first:
            raise ValueError
        end = last
    if start + end != len(data):
        raise ValueError
    return start, entries


def _tensor(data: memoryview, start: int, entry: Mapping[str, Any]) -> Tensor:
    dtype, shape, (first, last) = TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != last - first:
        raise ValueError
    if first == last:
        return torch.empty(shape, dtype=dtype)
    if (start + first) % dtype.itemsize:  # only files that the library did not write
        return torch.frombuffer(bytearray(data[start + first : start + last]), dtype=dtype).reshape(shape)
    return torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=start + first).reshape(shape)
