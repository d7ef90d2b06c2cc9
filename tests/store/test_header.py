"""Every fault of a safetensors header is a line of its own, with the tensor, the value and what is accepted."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import save

from service.errors import AdapterIncompatible
from service.store.header import MOST_TENSORS
from service.store.weights import SIZES, parse_weights
from tests.support.hostile import tensor_file

FILE = "adapter_model.safetensors"
HEADER = f"the header of {FILE}"
ORDER = "accepted: two whole numbers from 0, in order"
SHAPES = "accepted: at most 8 whole numbers from 0, together below 2^62"


def faults(data: bytes) -> tuple[str, ...]:
    with pytest.raises(AdapterIncompatible) as refused:
        parse_weights(data)
    return refused.value.faults


def one(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def two(*offsets: tuple[int, int]) -> dict[str, object]:
    return {
        f"t{i}": {"dtype": "U8", "shape": [last - first], "data_offsets": [first, last]}
        for i, (first, last) in enumerate(offsets)
    }


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", f"{FILE} has 0 bytes; a safetensors file has 8 with its header's length, and the header"),
        (b"\0" * 8, f"{FILE} has 8 bytes; a safetensors file has 8 with its header's length, and the header"),
        (b"\0" * 9, f"{FILE} is to have a header of 0 bytes; 1 to 4,000,000 are accepted"),
        (b"\0" * 7 + b"\x80{}", f"{FILE} is to have a header of {2**63} bytes; 1 to 4,000,000 are accepted"),
        (b"\x80\x04\x95\0\0\0\0\0.", f"{FILE} is to have a header of 9766016 bytes; 1 to 4,000,000 are accepted"),
        (b"\x03" + b"\0" * 7 + b"{}", f"{FILE} is to have a header of 3 bytes, but only 2 follow"),
        (b"\x01" + b"\0" * 7 + b"{", f"{HEADER} is not JSON, first at line 1, column 2"),
        (b"\x02" + b"\0" * 7 + b"[]", f"{HEADER} is not a JSON object that begins with its first byte"),
        (b"\x03" + b"\0" * 7 + b" {}", f"{HEADER} is not a JSON object that begins with its first byte"),
        (b"\x02" + b"\0" * 7 + b'"\xff', f"{HEADER} is not UTF-8, first at byte 1"),
    ],
)  # fmt: skip
def test_a_file_that_has_no_header_is_named(data: bytes, fault: str) -> None:
    assert faults(data) == (fault,)


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ({"a": 1}, "tensor 'a' is described by 1; an object of dtype, shape, data_offsets is accepted"),
        ({"a": {"dtype": "F32"}}, "tensor 'a' is described by ['dtype']; an object of dtype, shape, data_offsets is accepted"),
        (one("F4"), f"tensor 'a' has the dtype 'F4'; accepted: {', '.join(SIZES)}"),
        (one(["F32"]), f"tensor 'a' has the dtype ['F32']; accepted: {', '.join(SIZES)}"),
        (one(shape=2), f"tensor 'a' has the shape 2; {SHAPES}"),
        (one(shape=[-1, -2]), f"tensor 'a' has the shape [-1, -2]; {SHAPES}"),
        (one(shape=[True, 2]), f"tensor 'a' has the shape [True, 2]; {SHAPES}"),
        (one(shape=[2.0]), f"tensor 'a' has the shape [2.0]; {SHAPES}"),
        (one(shape=[1] * 9), f"tensor 'a' has the shape [1, 1, 1, 1, 1, 1, 1, 1, ...]; {SHAPES}"),
        (one(shape=[2**31, 2**31]), f"tensor 'a' has the shape [2147483648, 2147483648]; {SHAPES}"),
        (one(shape=[0, 2**62]), f"tensor 'a' has the shape [0, 4611686018427387904]; {SHAPES}"),
        (one(shape=[3]), "tensor 'a' of dtype F32 and shape [3] takes 12 bytes; its data_offsets [0, 8] have 8"),
        (one(offsets="08"), f"tensor 'a' has the data_offsets '08'; {ORDER}"),
        (one(offsets=[0, 8, 8]), f"tensor 'a' has the data_offsets [0, 8, 8]; {ORDER}"),
        (one(offsets=[8, 0]), f"tensor 'a' has the data_offsets [8, 0]; {ORDER}"),
        (one(offsets=[-8, 0]), f"tensor 'a' has the data_offsets [-8, 0]; {ORDER}"),
        (one(offsets=[False, 8]), f"tensor 'a' has the data_offsets [False, 8]; {ORDER}"),
        (one(offsets=[0.0, 8]), f"tensor 'a' has the data_offsets [0.0, 8]; {ORDER}"),
        ({"__metadata__": 1, **one()}, "__metadata__ is 1; an object of strings is accepted"),
        ({"__metadata__": {"format": 1}, **one()}, "__metadata__ has 1 for 'format'; strings are accepted"),
        ({"": one()["a"]}, "tensor '' has a name of 0 characters; 1 to 256 printable ones are accepted"),
        ({"a\nb": one()["a"]}, "tensor 'a\\nb' has a name of 3 characters; 1 to 256 printable ones are accepted"),
        (two((1, 8)), "tensor 't0' begins at byte 1; the first begins at byte 0"),
        (two((0, 5), (4, 8)), "tensor 't1' begins at byte 4, inside 't0', which ends at 5"),
        (two((0, 8), (0, 8)), "tensor 't1' begins at byte 0, inside 't0', which ends at 8"),
        (two((0, 3), (4, 8)), "bytes 3 to 4, between 't0' and 't1', belong to no tensor"),
        (two((0, 7)), f"the tensors of {FILE} end at byte 7, but 8 bytes follow its header; the file must be whole"),
        (two((0, 9)), f"the tensors of {FILE} end at byte 9, but 8 bytes follow its header; the file must be whole"),
    ],
)
def test_a_fault_of_a_tensor_is_named(header: object, fault: str) -> None:
    assert faults(tensor_file(header)) == (fault,)


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": 1}', "has the key 'a' more than once in an object"),
        ('{"a": {"dtype": "F32", "dtype": "F16", "shape": [2]}}', "has the key 'dtype' more than once in an object"),
        ('{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 8]}}', "has the number 1e999; "),
        ('{"a": {"dtype": "F32", "shape": [99999999999999999999]}}', "has the number 99999999999999999999; "),
        ('{"a": NaN}', "has the number NaN; finite numbers are accepted"),
        ('{"a":' + "[" * 50 + "]" * 50 + "}", "is nested too deeply; at most 32 "),
        ('{"a":' * 90_000, "is nested too deeply; at most 32 "),
    ],
)  # fmt: skip
def test_a_fault_of_the_json_is_named(header: str, fault: str) -> None:
    assert len(found := faults(tensor_file(header))) == 1
    assert found[0].startswith(f"{HEADER} {fault}")


def test_all_faults_of_a_file_are_listed_at_once() -> None:
    header = {**one("F4"), "b": {"dtype": "F32", "shape": [-1], "data_offsets": [8, 9]}, "c": {}, "__metadata__": {"a": []}}
    assert [fault.split(";")[0] for fault in faults(tensor_file(header))] == [
        "__metadata__ has [] for 'a'",
        "tensor 'a' has the dtype 'F4'",
        "tensor 'b' has the shape [-1]",
        "tensor 'c' is described by []",
    ]


def test_of_many_faults_the_first_are_listed_and_the_others_counted() -> None:
    found = faults(tensor_file({f"t{i}": 1 for i in range(300)}))
    assert len(found) == 51 and found[0].startswith("tensor 't0' is") and found[-1] == "and 250 more"


def test_a_name_as_long_as_the_file_is_cut_in_the_message() -> None:
    assert len("".join(faults(tensor_file({"a" * 1_000_000: 1})))) < 500


def test_so_many_tensors_are_refused() -> None:
    header = {str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(MOST_TENSORS + 1)}
    assert faults(tensor_file(header, b"")) == (f"{FILE} has 10,001 tensors; at most 10,000 are accepted",)
    header.popitem()
    assert len(parse_weights(tensor_file(header, b""))) == MOST_TENSORS


def test_spaces_after_the_header_are_part_of_the_format() -> None:
    assert parse_weights(tensor_file(json.dumps(one()) + "   "))["a"].tolist() == [0, 0]
    assert parse_weights(save({})) == {}
