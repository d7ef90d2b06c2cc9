"""JSON as this store reads it, more strictly than Python does: what a stranger's document says is said once and clearly."""

from __future__ import annotations

import json
import math
from typing import Any

from service.errors import AdapterIncompatible
from service.wording import shown

LONGEST = 4_000_000  # bytes
DEEPEST = 32  # objects and lists within each other
NUMBERS = 1 << 63  # whole numbers are below it, and from its negative


def read_json(data: bytes, what: str) -> Any:
    """The JSON in ``data``; ``what`` names it in the faults.

    Raises :class:`AdapterIncompatible` when it is not JSON in UTF-8, or is too long or too deep, and listing every key
    that an object has twice and every number that is not finite or too large.
    """
    if len(data) > LONGEST:
        raise AdapterIncompatible([f"{what} has {len(data):,} bytes; at most {LONGEST:,} are accepted"])
    reader = _Reader(what)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reader.object,
            parse_int=reader.whole,
            parse_float=reader.number,
            parse_constant=reader.constant,
        )
    except UnicodeDecodeError as error:
        raise AdapterIncompatible([f"{what} is not UTF-8, first at byte {error.start}"]) from None
    except json.JSONDecodeError as error:
        raise AdapterIncompatible([f"{what} is not JSON, first at line {error.lineno}, column {error.colno}"]) from None
    except RecursionError:
        raise AdapterIncompatible([_too_deep(what)]) from None
    if _is_deep(value):
        reader.faults.append(_too_deep(what))
    elif b"\\u" in data and not _is_unicode(value):
        reader.faults.append(f"{what} has half a surrogate pair in a string; whole characters are accepted")
    if reader.faults:
        raise AdapterIncompatible(list(dict.fromkeys(reader.faults)))
    return value


class _Reader:
    """What Python's own reader calls for each object and number; it would take them as they are."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.faults: list[str] = []

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                self.faults.append(f"{self._what} has the key {shown(key)} more than once in an object")
            found[key] = value
        return found

    def whole(self, digits: str) -> int:
        if len(digits) > len(str(-NUMBERS)) or not -NUMBERS <= int(digits) < NUMBERS:
            return self._refused(digits, "whole numbers from -2^63 and below 2^63 are accepted")
        return int(digits)

    def number(self, digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else self._refused(digits, "numbers that fit in 64 bits are accepted")

    def constant(self, name: str) -> int:
        return self._refused(name, "finite numbers are accepted")

    def _refused(self, number: str, accepted: str) -> int:
        self.faults.append(f"{self._what} has the number {number[:40]}; {accepted}")
        return 0


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [outer for outer in level if isinstance(outer, dict | list)]
        if not level:
            return False
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return True


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(what: str) -> str:
    return f"{what} is nested too deeply; at most {DEEPEST} objects and lists within each other are accepted"
