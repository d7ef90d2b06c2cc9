"""The header of a safetensors file: what it says of every tensor, checked strictly, with every fault listed at once.

The format is described at https://github.com/huggingface/safetensors#format: eight bytes with the header's length, the
header in JSON, then the tensors' bytes, which fill the rest of the file without gap or overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from service.errors import AdapterIncompatible
from service.store.documents import LONGEST, read_json
from service.store.layout import WEIGHTS
from service.wording import shown

LENGTH = 8  # bytes of the header's length, which begins the file
MOST_TENSORS = 10_000
LONGEST_NAME = 256
MOST_SIZES = 8  # of a tensor's shape
NUMBERS = 1 << 62  # what a shape may stand for, with a zero in it left out of account
METADATA = "__metadata__"
FIELDS = ("dtype", "shape", "data_offsets")


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its type's name, its shape, and where its bytes are, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


def read_header(data: bytes | memoryview, sizes: Mapping[str, int]) -> tuple[int, list[Entry]]:
    """Where the tensors of a file begin, and an entry for each; ``sizes`` has the bytes of each type's numbers.

    Raises :class:`AdapterIncompatible` listing everything that is wrong with the header.
    """
    start = _start(data)
    header = read_json(bytes(data[LENGTH:start]), f"the header of {WEIGHTS}")
    if not isinstance(header, dict) or data[LENGTH] != ord("{"):
        raise AdapterIncompatible([f"the header of {WEIGHTS} is not a JSON object that begins with its first byte"])
    described = {name: entry for name, entry in header.items() if name != METADATA}
    faults = list(_metadata_faults(header.get(METADATA, {})))
    if len(described) > MOST_TENSORS:
        raise AdapterIncompatible([*faults, f"{WEIGHTS} has {len(described):,} tensors; at most {MOST_TENSORS:,} are accepted"])
    for name, entry in described.items():
        faults += _entry_faults(name, entry, sizes)
    entries = [_entry(name, entry) for name, entry in described.items() if _has_offsets(entry)]
    if len(entries) == len(described):  # else what lies between the others cannot be told
        faults += _layout_faults(sorted(entries, key=lambda entry: (entry.first, entry.last)), len(data) - start)
    if faults:
        raise AdapterIncompatible(faults)
    return start, entries


def _start(data: bytes | memoryview) -> int:
    if len(data) <= LENGTH:
        raise AdapterIncompatible(
            [f"{WEIGHTS} has {len(data)} bytes; a safetensors file has {LENGTH} with its header's length, and the header"]
        )
    length = int.from_bytes(data[:LENGTH], "little")
    if not 0 < length <= LONGEST:
        raise AdapterIncompatible([f"{WEIGHTS} is to have a header of {length} bytes; 1 to {LONGEST:,} are accepted"])
    if length > len(data) - LENGTH:
        raise AdapterIncompatible([f"{WEIGHTS} is to have a header of {length} bytes, but only {len(data) - LENGTH} follow"])
    return LENGTH + length


def _metadata_faults(metadata: Any) -> Iterator[str]:
    if not isinstance(metadata, dict):
        yield f"{METADATA} is {shown(metadata)}; an object of strings is accepted"
        return
    for key, value in metadata.items():
        if not isinstance(value, str):
            yield f"{METADATA} has {shown(value)} for {shown(key)}; strings are accepted"


def _entry_faults(name: str, entry: Any, sizes: Mapping[str, int]) -> Iterator[str]:
    tensor = f"tensor {shown(name)}"
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        yield f"{tensor} has a name of {len(name)} characters; 1 to {LONGEST_NAME} printable ones are accepted"
    if not isinstance(entry, dict) or set(entry) != set(FIELDS):
        given = shown(sorted(entry)) if isinstance(entry, dict) else shown(entry)
        yield f"{tensor} is described by {given}; an object of {', '.join(FIELDS)} is accepted"
        return
    dtype, shape, offsets = (entry[field] for field in FIELDS)
    is_typed, is_shaped = isinstance(dtype, str) and dtype in sizes, _is_shape(shape)
    if not is_typed:
        yield f"{tensor} has the dtype {shown(dtype)}; accepted: {', '.join(sizes)}"
    if not is_shaped:
        yield f"{tensor} has the shape {shown(shape)}; accepted: at most {MOST_SIZES} whole numbers from 0, together below 2^62"
    if not _has_offsets(entry):
        yield f"{tensor} has the data_offsets {shown(offsets)}; accepted: two whole numbers from 0, in order"
    elif is_typed and is_shaped and (needed := math.prod(shape) * sizes[dtype]) != offsets[1] - offsets[0]:
        yield (
            f"{tensor} of dtype {dtype} and shape {shown(shape)} takes {needed} bytes; "
            f"its data_offsets {shown(offsets)} have {offsets[1] - offsets[0]}"
        )


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= MOST_SIZES
        and all(type(size) is int and size >= 0 for size in shape)
        and math.prod(size or 1 for size in shape) < NUMBERS
    )


def _has_offsets(entry: Any) -> bool:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    return (
        isinstance(offsets, list)
        and len(offsets) == len(("first", "last"))
        and all(type(offset) is int for offset in offsets)
        and 0 <= offsets[0] <= offsets[1]
    )


def _entry(name: str, entry: Mapping[str, Any]) -> Entry:
    shape = entry.get("shape")
    return Entry(name, str(entry.get("dtype")), tuple(shape) if isinstance(shape, list) else (), *entry["data_offsets"])


def _layout_faults(entries: list[Entry], size: int) -> Iterator[str]:
    """What is wrong with where the tensors lie; ``entries`` are in the order of their bytes, of which there are ``size``."""
    if entries and entries[0].first:
        yield f"tensor {shown(entries[0].name)} begins at byte {entries[0].first}; the first begins at byte 0"
    for one, other in pairwise(entries):
        if one.last > other.first:
            yield f"tensor {shown(other.name)} begins at byte {other.first}, inside {shown(one.name)}, which ends at {one.last}"
        elif one.last < other.first:
            yield f"bytes {one.last} to {other.first}, between {shown(one.name)} and {shown(other.name)}, belong to no tensor"
    end = max((entry.last for entry in entries), default=0)
    if end != size:
        yield f"the tensors of {WEIGHTS} end at byte {end}, but {size} bytes follow its header; the file must be whole"
