"""Files that are broken, or not what they say: refused by name or sound after all, and nothing else happens."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import AdapterIncompatible
from service.store.bundle import Bundle
from service.store.weights import parse_weights
from tests.support.hostile import request, status, tensor_file, upload_form
from tests.support.images import image_file
from tests.support.problems import assert_problem
from tests.support.server import Server, bundle_parts

DRY = {"dry_run": "true"}
FILES = ["adapter_config", "adapter_model", "manifest"]
INFLATED = 200_000_000
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def undescribed(bundle: Bundle) -> dict[str, bytes]:
    """A bundle's parts, its manifest without the files' sums, which would tell of any change."""
    manifest = bundle.manifest.model_copy(update={"files": {}})
    return bundle_parts(bundle, manifest=manifest.model_dump_json().encode())


def header_length(weights: bytes | bytearray) -> int:
    return 8 + int.from_bytes(weights[:8], "little")


def test_weights_that_end_at_any_byte_of_their_header_are_refused(bundles: dict[str, Bundle]) -> None:
    weights = bytes(bundles["irony"].weights)
    for end in range(header_length(weights) + 1):
        with pytest.raises(AdapterIncompatible):
            parse_weights(weights[:end])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(server: Server, bundles: dict[str, Bundle], name: str, share: float) -> None:
    parts = undescribed(bundles["irony"])
    cut = parts[name][: int(len(parts[name].rstrip()) * share)]
    body = assert_problem(server.upload("cut", {**parts, name: cut}, params=DRY), 422, "adapter_incompatible")
    assert body["faults"][0].startswith(("adapter_", "manifest.json", "the header of", "the tensors of"))


@FEW
@given(st.sampled_from([*FILES, "card"]), st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_a_changed_byte_is_refused_or_leaves_a_sound_adapter(
    server: Server, bundles: dict[str, Bundle], name: str, where: float, change: int, is_early: bool
) -> None:
    parts = undescribed(bundles["irony"])
    data = bytearray(parts[name])
    data[int(where * (header_length(data) if name == "adapter_model" and is_early else len(data)))] ^= change
    response = server.upload("flipped", {**parts, name: bytes(data)}, params=DRY)
    if response.status_code != 200:
        assert_problem(response, 422, "adapter_incompatible")
    assert server.errors.lines == []


WRONG = {
    "a header of 2^63 bytes": b"\0" * 7 + b"\x80" + b"{}",
    "offsets that overlap": tensor_file({name: {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]} for name in ("a", "b")}),
    "a shape beyond any memory": tensor_file({"a": {"dtype": "U8", "shape": [0, 2**61, 2**61], "data_offsets": [0, 0]}}, b""),
    "a key that is there twice": tensor_file('{"a": {"dtype": "U8", "dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}'),
    "nesting without end": tensor_file('{"a":' * 500_000),
    "half a surrogate pair": tensor_file('{"\\ud800": 1}'),
    "a name of lines": tensor_file({"a\r\nb: c": 1}),
}


@pytest.mark.parametrize("kind", WRONG)
def test_weights_that_lie_are_refused(server: Server, bundles: dict[str, Bundle], kind: str) -> None:
    sent = {**undescribed(bundles["irony"]), "adapter_model": WRONG[kind]}
    assert_problem(server.upload("wrong", sent, params=DRY), 422, "adapter_incompatible")


CONFIGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "deep enough to break a writer": lambda c: c.update(auto_mapping=json.loads("[" * 300 + "]" * 300)),
    "a number beyond 64 bits": lambda c: c.update(lora_alpha=10**400),
    "a pattern that branches": lambda c: c.update(rank_pattern={"(|.)" * 45: 4}),
    "labels by a number that is none": lambda c: c.update(id2label={"²": "a", "1": "b"}),
    "labels by a number of 5,000 digits": lambda c: c.update(id2label={"9" * 5000: "a", "1": "b"}),
    "half a surrogate pair": lambda c: c.update(revision="\ud800"),
    "an option of a million characters": lambda c: c.update({"x" * 1_000_000: "y" * 1_000_000}),
    "true as a rank": lambda c: c.update(r=True),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_that_would_break_its_reader_is_refused(server: Server, bundles: dict[str, Bundle], kind: str) -> None:
    config = dict(bundles["irony"].config)
    CONFIGS[kind](config)
    began = time.monotonic()
    sent = bundle_parts(bundles["irony"], adapter_config=json.dumps(config).encode(), manifest=None)
    body = assert_problem(server.upload("wrong", sent, params=DRY), 422, "adapter_incompatible")
    assert time.monotonic() - began < 2 and max(map(len, body["faults"])) < 1000


def test_a_pickle_is_never_unpickled(server: Server, bundles: dict[str, Bundle], tmp_path: Path) -> None:
    trap, saved = tmp_path / "touched", io.BytesIO()
    torch.save({"base_model.model.classifier.weight": Touch(trap)}, saved)
    pickles = [saved.getvalue(), *(pickle.dumps(Touch(trap), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))]
    before = server.tree()
    for data in pickles:
        for name in FILES:
            sent = {**undescribed(bundles["irony"]), name: data}
            assert_problem(server.upload("pickle", sent, "live"), 422, "adapter_incompatible")
    assert server.tree() == before and not trap.exists()
    pickle.loads(pickles[-1])  # the trap works
    assert trap.exists()


def bombs() -> dict[str, bytes]:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_model.safetensors", bytes(INFLATED))
    return {"zip": zipped.getvalue(), "gzip": gzip.compress(bytes(INFLATED), 6)}


def png_bomb() -> bytes:
    """A picture with a compressed remark of :data:`INFLATED` bytes."""
    data = b"zTXtnote\0\0" + zlib.compress(bytes(INFLATED))
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    whole = image_file()
    return whole[:33] + chunk + whole[33:]


def test_nothing_is_ever_inflated(server: Server, bundles: dict[str, Bundle]) -> None:
    packed, path = bombs(), "/v1/adapters/bomb/versions?dry_run=true"
    form = gzip.compress(upload_form(bundle_parts(bundles["irony"])))
    question = gzip.compress(b'{"text": "' + b"a" * INFLATED + b'"}')
    picture = png_bomb()
    before = psutil.Process().memory_info().rss
    for name in FILES:
        for bomb in packed.values():
            sent = {**undescribed(bundles["irony"]), name: bomb}
            assert_problem(server.upload("bomb", sent, params=DRY), 422, "adapter_incompatible")
    for encoding in ("gzip", "deflate", "br"):
        assert (
            status(server.raw(request("POST", path, form, "multipart/form-data; boundary=b", f"content-encoding: {encoding}")))
            == 400
        )
        for address in ("/v1/sentiment", "/v1/classify", "/v1/vqa"):
            sent_bytes = request("POST", address, question, "application/json", f"content-encoding: {encoding}")
            assert status(server.raw(sent_bytes)) == 400
    answer = server.client.post("/v1/vqa", files={"image": picture}, data={"question": "q"})
    assert answer.status_code in (200, 422)
    assert psutil.Process().memory_info().rss - before < INFLATED / 2
