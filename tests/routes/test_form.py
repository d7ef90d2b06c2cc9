"""Forms are read whole or refused: fields as text, files as bytes, byte by byte what was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import accumulate, pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequest
from service.routes.form import MOST_PARTS, File, read_form, read_form_from

KIND = b"multipart/form-data; boundary=b"


def body(*parts: str, end: str = "--b--\r\n") -> bytes:
    """A form of these parts, each its headers, an empty line and its content."""
    return "".join(f"--b\r\n{part}\r\n" for part in parts).encode() + end.encode()


def field(name: str, value: str = "v", kind: str = "") -> str:
    return f'Content-Disposition: form-data; name="{name}"\r\n{kind}\r\n{value}'


@given(
    fields=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4),
    files=st.lists(st.binary(max_size=300), max_size=3),
)
def test_what_a_client_sends_is_what_is_read(fields: list[str], files: list[bytes]) -> None:
    sent = httpx.Request(
        "POST", "http://a", data={"q": fields}, files=[("x", b""), *(("image", ("a.jpg", data)) for data in files)]
    )
    read = read_form(sent.headers["content-type"].encode(), sent.read())
    assert list(read.get("q", ())) == fields and list(read.get("image", ())) == files
    assert all(isinstance(file, File) and file.filename == "a.jpg" for file in read.get("image", ()))


def test_a_quoted_boundary_and_a_preamble_are_understood() -> None:
    assert read_form(b'Multipart/Form-Data; charset=x; boundary="b"', b"hello\r\n" + body(field("q"))) == {"q": ["v"]}


def test_a_field_is_text_in_the_charset_that_it_says() -> None:
    latin = body(field("q", "", "Content-Type: text/plain; charset=latin-1\r\n")).replace(b"\r\n\r\n", b"\r\n\r\n\xe9", 1)
    assert read_form(KIND, latin) == {"q": ["é"]}


@pytest.mark.parametrize(
    "kind", [b"", b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=\xe9"]
)
def test_a_form_without_a_boundary_is_refused(kind: bytes) -> None:
    with pytest.raises(BadRequest, match="with its boundary in the content type"):
        read_form(kind, body(field("q")))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a",
        b"--b",
        b"--b\r\n",
        body(field("q"), end=""),
        body(field("q"), end="--c--"),
        body("Content-Type: text/plain\r\n\r\nv"),
        body(field("q").replace("\r\n", "\n")),
        body("x" * 10_000 + ": 1\r\n\r\nv"),
        body(*[field("q")] * (MOST_PARTS + 1)),
    ],
)
def test_half_a_form_or_none_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest, match="not a whole form"):
        read_form(KIND, data)


@pytest.mark.parametrize("charset", ["nope", "ascii", "zip", "undefined", "punycode", "utf-16", "x" * 5000, '"\\""'])
def test_a_field_that_is_not_text_is_named(charset: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_form(KIND, body(field("q", "é" * 100_000, f"Content-Type: text/plain; charset={charset}\r\n")))
    said = str(refused.value)
    assert len(said) < 300 and (said.startswith("q is not text in") or "not a whole form" in said)


@given(st.lists(st.integers(1, 60), max_size=40))
def test_in_whatever_pieces_a_form_comes_it_is_the_same(sizes: list[int]) -> None:
    sent = body(field("q", "a\r\n--"), field("q"), 'Content-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + "z" * 300)
    places = [0, *accumulate(sizes), len(sent)]

    async def pieces() -> AsyncIterator[bytes]:
        for first, last in pairwise(places):
            yield sent[first:last]

    assert asyncio.run(read_form_from(KIND, pieces())) == {"q": ["a\r\n--", "v"], "f": [b"z" * 300]}


def test_half_a_form_in_pieces_is_refused() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield body(field("q"), end="")

    with pytest.raises(BadRequest, match="not a whole form"):
        asyncio.run(read_form_from(KIND, pieces()))
