"""Documents of strangers are read strictly: what Python's reader would let pass is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import AdapterIncompatible
from service.store.documents import DEEPEST, LONGEST, read_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@given(JSON, st.booleans())
def test_what_is_json_is_read_as_python_reads_it(value: Any, escaped: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=escaped).encode(), "it") == value


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "it is not JSON, first at line 1, column 1"),
        (b'{"a":\n1,}', "it is not JSON, first at line 2, column 3"),
        (b"\xef\xbb\xbf{}", "it is not JSON, first at line 1, column 1"),
        ('{"a": 1}'.encode("utf-16"), "it is not UTF-8, first at byte 0"),
        (b'{"\xff": 1}', "it is not UTF-8, first at byte 2"),
        (b'{"r": 8, "r": 64}', "it has the key 'r' more than once in an object"),
        (b'[{"a": {"b": 1, "b": 1}}]', "it has the key 'b' more than once in an object"),
        (b'{"\\u0061": 1, "a": 1}', "it has the key 'a' more than once in an object"),
        (b"[NaN]", "it has the number NaN; finite numbers are accepted"),
        (b"[-Infinity]", "it has the number -Infinity; finite numbers are accepted"),
        (b"[1e999]", "it has the number 1e999; numbers that fit in 64 bits are accepted"),
        (b"9223372036854775808", "it has the number 9223372036854775808; whole numbers from -2^63 and below 2^63 are accepted"),
        (b"9" * 5000, f"it has the number {'9' * 40}; whole numbers from -2^63 and below 2^63 are accepted"),
        (b'"\\ud800"', "it has half a surrogate pair in a string; whole characters are accepted"),
        (nested(DEEPEST + 1), "it is nested too deeply; at most 32 objects and lists within each other are accepted"),
        (b"[" * 100_000, "it is nested too deeply; at most 32 objects and lists within each other are accepted"),
        (b" " * (LONGEST + 1), "it has 4,000,001 bytes; at most 4,000,000 are accepted"),
    ],
)
def test_anything_else_is_named(data: bytes, fault: str) -> None:
    with pytest.raises(AdapterIncompatible) as refused:
        read_json(data, "it")
    assert refused.value.faults == (fault,)


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(AdapterIncompatible) as refused:
        read_json(b'{"a": NaN, "a": 1e999, "b": {"c": 1, "c": 99999999999999999999}}', "it")
    assert [fault.split(";")[0] for fault in refused.value.faults] == [
        "it has the number NaN",
        "it has the number 1e999",
        "it has the number 99999999999999999999",
        "it has the key 'c' more than once in an object",
        "it has the key 'a' more than once in an object",
    ]


def test_so_deep_is_read() -> None:
    assert json.dumps(read_json(nested(DEEPEST), "it")).encode() == nested(DEEPEST)
