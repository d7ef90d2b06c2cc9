"""Our words for the faults that pydantic finds in a document; imports nothing, like :mod:`service.errors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import Repr
from typing import Any

WORDED = "worded"  # the type of errors whose message is ours already
MOST = 10  # faults listed
WORDING = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "json_invalid": "is not JSON",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "byte_size": "must be a number of bytes, such as 512MB or 2GiB",
    "byte_size_unit": "must be a number of bytes, such as 512MB or 2GiB",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be a JSON object",
    "is_instance_of": "must be a file",
}
LONGEST = 80  # characters of a stranger's value that a message repeats
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = LONGEST
_SHORT.maxlist = _SHORT.maxtuple = 8
LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def describe(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each fault in a line: where it is, and what is wrong there."""
    return [f"{_place(entry['loc'])}{_wording(entry)}" for entry in found[:MOST]]


def shown(value: object) -> str:
    """A stranger's value as a message repeats it: in one line, cut short, and nested no deeper than a few levels."""
    return _SHORT.repr(value)


def _place(location: Sequence[str | int]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in location).removeprefix(".")
    return f"{path} " if path else ""


def _shown(name: str) -> str:
    return repr(str(name)[:80])[1:-1]  # a stranger's field name may hold line breaks


def _wording(entry: Mapping[str, Any]) -> str:
    context = entry.get("ctx", {})
    if entry["type"] == WORDED:
        return str(entry["msg"])
    for limit, words in LIMITS.items():
        if limit in context:
            return f"must be {words} {context[limit]:g}"
    if entry["type"] == "too_short":
        return "must not be empty" if context["min_length"] == 1 else f"must have at least {context['min_length']} entries"
    if entry["type"] == "too_long":
        return f"must have at most {context['max_length']:,} entries"
    if entry["type"] == "literal_error":
        return f"must be {context['expected']}"
    return WORDING.get(entry["type"], "is not valid")
