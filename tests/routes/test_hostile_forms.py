"""Forms and bodies that fall apart: refused in our words, whatever they are made of."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.store.bundle import Bundle
from tests.support.hostile import ENDING, part, request, status, upload_form
from tests.support.images import image_file
from tests.support.server import Server, bundle_parts

UPLOAD, VQA = "/v1/adapters/fuzzed/versions?dry_run=true", "/v1/vqa"
KIND = "multipart/form-data; boundary=b"
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
IMAGE, QUESTION = part("image", image_file(), "a.png"), part("question", b"what is it")
NESTED = part("image", b"--c\r\nContent-Disposition: file; filename=a\r\n\r\nx\r\n--c--\r\n", None,
              "Content-Type: multipart/mixed; boundary=c\r\n")  # fmt: skip
BODIES = {
    "nothing": b"",
    "an end alone": ENDING,
    "1,001 parts": part("question", b"q") * 1001 + ENDING,
    "1,001 unknown parts": b"".join(part(f"x{i}", b"") for i in range(1001)) + ENDING,
    "no final boundary": IMAGE + QUESTION,
    "half of the final boundary": IMAGE + QUESTION + b"--b-",
    "a nested form": NESTED + ENDING,
    "parts without a name": IMAGE + b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + ENDING,
    "parts with an empty name": IMAGE + part("", b"x") + ENDING,
    "parts without headers": b"--b\r\n\r\nx\r\n" + ENDING,
    "parts twice": IMAGE + IMAGE + QUESTION + ENDING,
    "fields twice": IMAGE + QUESTION + QUESTION + ENDING,
    "a file as a field": IMAGE + part("question", b"q", "q.txt") + ENDING,
    "a field as a file": part("image", b"x") + QUESTION + ENDING,
    "a long header": part("x", b"", None, "x: " + "y" * 1_000_000 + "\r\n") + ENDING,
    "many headers": part("x", b"", None, "x: y\r\n" * 100_000) + ENDING,
    "a header without end": b"--b\r\nContent-Disposition: form-data; name=" + b"x" * 1_000_000,
    "a header that is none": part("x", b"", None, "\0\xff: \n\r\n") + ENDING,
    "a charset that is none": IMAGE + part("question", b"q", None, "Content-Type: text/plain; charset=zip\r\n") + ENDING,
    "a charset that takes for ever": IMAGE
    + part("question", b"xn--" + b"a" * 1_000_000, None, "Content-Type: text/plain; charset=punycode\r\n") + ENDING,
    "a field that is no text": IMAGE + part("question", b"\xff\xfe") + ENDING,
    "another boundary": (IMAGE + QUESTION + ENDING).replace(b"--b", b"--c"),
    "boundaries alone": b"--b\r\n" * 10_000,
    "line ends alone": b"\r\n" * 100_000,
}  # fmt: skip
KINDS = [
    "multipart/form-data",
    "multipart/form-data; boundary=",
    f"multipart/form-data; boundary={'b' * 60_000}",
    "multipart/form-data; boundary=\xff",
    'multipart/form-data; boundary="',
    "multipart/form-data; boundary*=utf-8''b",
    "multipart/mixed; boundary=b",
    "multipart/form-data; boundary=c; boundary=d",
]


def ask(server: Server, path: str, body: bytes, kind: str = KIND) -> int:
    return status(server.raw(request("POST", path, body, kind)))


@pytest.mark.parametrize("path", [UPLOAD, VQA])
@pytest.mark.parametrize("kind", BODIES)
def test_a_form_that_is_none_is_refused(server: Server, path: str, kind: str) -> None:
    assert 400 <= ask(server, path, BODIES[kind]) < 500


@pytest.mark.parametrize("path", [UPLOAD, VQA])
@pytest.mark.parametrize("kind", KINDS)
def test_a_form_of_another_kind_is_refused(server: Server, path: str, kind: str) -> None:
    assert 400 <= ask(server, path, IMAGE + QUESTION + ENDING, kind) < 500


@pytest.mark.parametrize("size", [1, 69, 70, 71, 200, 1024, 4096])
def test_a_boundary_of_any_size_is_understood(server: Server, size: int) -> None:
    boundary = b"b" * size
    form = (IMAGE + QUESTION + ENDING).replace(b"--b", b"--" + boundary)
    assert ask(server, VQA, form, f"multipart/form-data; boundary={boundary.decode()}") == 200


PIECES = st.sampled_from(
    [
        b"--b\r\n",
        b"--b--",
        b"--b",
        b"\r\n",
        b"\n",
        b"\0",
        b"\xff",
        b'"',
        b";",
        b"name=",
        b"Content-Disposition: ",
        b"form-data; ",
        b'name="image"',
        b'filename="a"',
        b'name="question"',
        b"Content-Type: text/plain\r\n",
        b"charset=utf-16",
        b"Content-Transfer-Encoding: base64\r\n",
        IMAGE,
        QUESTION,
    ]
)


@FEW
@given(st.lists(PIECES | st.binary(max_size=8), max_size=20), st.sampled_from([UPLOAD, VQA]))
def test_pieces_of_forms_are_refused_or_happen_to_be_one(server: Server, pieces: list[bytes], path: str) -> None:
    assert ask(server, path, b"".join(pieces)) in (200, 400, 413, 415, 422)


@FEW
@given(st.sampled_from([UPLOAD, VQA]), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6), st.booleans())
def test_a_changed_form_is_refused_or_understood(
    server: Server, bundles: dict[str, Bundle], path: str, where: float, change: bytes, is_longer: bool
) -> None:
    form = upload_form(bundle_parts(bundles["irony"])) if path == UPLOAD else IMAGE + QUESTION + ENDING
    place = int(where * len(form))
    changed = form[:place] + change + form[place if is_longer else place + len(change) :]
    assert ask(server, path, changed) in (200, 400, 413, 415, 422)


def test_a_body_in_chunks_of_one_byte_is_a_body(server: Server) -> None:
    forms = {"/v1/sentiment": (json.dumps({"text": "good"}).encode(), "application/json"),
             VQA: (IMAGE + QUESTION + ENDING, KIND)}  # fmt: skip
    for path, (body, kind) in forms.items():
        head = (
            f"POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body)
        assert status(server.raw(head.encode() + chunks + b"0\r\n\r\n")) == 200


@pytest.mark.parametrize(
    "chunks", [b"fffffffffffffffff\r\n{}", b"-1\r\n{}\r\n0\r\n\r\n", b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}x\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("path", ["/v1/sentiment", VQA, UPLOAD])
def test_chunks_that_lie_about_their_size_are_refused(server: Server, path: str, chunks: bytes) -> None:
    lines = [f"POST {path} HTTP/1.1", "host: a", "connection: close", "content-type: application/json"]
    head = "\r\n".join([*lines, "transfer-encoding: chunked", "", ""])
    assert 400 <= status(server.raw(head.encode() + chunks, 3)) < 500
