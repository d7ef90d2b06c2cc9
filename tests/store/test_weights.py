"""Tensors from the bytes of a safetensors file: the library's own, or a refusal."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from service.errors import AdapterIncompatible
from service.store.weights import TYPES, parse_weights, read_block

TENSORS = {
    "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "byte": torch.tensor([True]),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.empty(0, 4),
    "float": torch.randn(5, generator=torch.Generator().manual_seed(0)),
}
FILE: bytes = save(TENSORS, {"format": "pt"})


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (tensor.dtype, tensor.shape)
        assert ours[name].contiguous().reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_a_file_gives_the_librarys_tensors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(FILE)
    for data in (FILE, read_block(tmp_path / "file")):
        assert_same(parse_weights(data), load(FILE))


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_read(name: str) -> None:
    tensor = torch.zeros(4, dtype=torch.float32).to(TYPES[name])
    assert_same(parse_weights(save({"a": tensor})), {"a": tensor})


def test_tensors_that_begin_between_the_addresses_of_their_type_are_read() -> None:
    for spaces in range(8):
        header = json.dumps(entry()).encode() + b" " * spaces
        data = len(header).to_bytes(8, "little") + header + torch.tensor([1.5, -2.0]).numpy().tobytes()
        assert_same(parse_weights(data), load(data))


@settings(max_examples=300)
@given(st.integers(0, len(FILE) - 1), st.integers(0, 255), st.integers(0, 3))
def test_a_changed_file_is_refused_wherever_the_library_refuses_it(place: int, value: int, cut: int) -> None:
    changed = FILE[:place] + bytes([value]) + FILE[place + 1 : len(FILE) - cut]
    try:
        ours = parse_weights(changed)
    except AdapterIncompatible:
        return
    assert_same(ours, load(changed))


@settings(max_examples=60)
@given(st.binary(max_size=300).filter(lambda data: not data.startswith(b"\x02\0\0\0\0\0\0\0{}")))
def test_no_bytes_do_worse_than_be_refused(data: bytes) -> None:
    with pytest.raises(AdapterIncompatible):
        parse_weights(data)


def test_the_memory_goes_with_the_last_tensor(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(FILE)
    block = read_block(tmp_path / "file")
    assert isinstance(block, memoryview)
    mapped = weakref.ref(block.obj)
    tensors = parse_weights(block)
    kept = tensors.pop("half")
    del block, tensors
    gc.collect()
    assert mapped() is not None and kept.tolist() == TENSORS["half"].tolist()
    del kept
    assert mapped() is None


def test_what_happens_to_the_file_later_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(FILE)
    tensors = parse_weights(read_block(tmp_path / "file"))
    (tmp_path / "file").write_bytes(b"")
    assert_same(tensors, load(FILE))
