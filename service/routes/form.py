"""Forms: the parts of a ``multipart/form-data`` body."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header  # type: ignore[import-untyped]

from service.errors import BadRequest
from service.wording import shown

MOST_PARTS = 1000
CHARSETS = ("utf-8", "us-ascii", "ascii", "iso-8859-1", "latin-1")  # of the others, some take for ever to decode
NOT_A_FORM = "the body is not a whole form; send multipart/form-data, with its boundary in the content type"


def read_form(content_type: bytes, body: bytes) -> Mapping[str, Sequence[str | File]]:
    """The parts of a form by name, in order: fields as text, files as bytes.

    Raises :class:`BadRequest` for a body that is not a form, or has more than :data:`MOST_PARTS` parts.
    """
    form = _Form(content_type)
    form.feed(body)
    return form.close()


async def read_form_from(content_type: bytes, chunks: AsyncIterator[bytes]) -> Mapping[str, Sequence[str | File]]:
    """As :func:`read_form`, for a body too large to be in memory twice; it is read to its end even if it is no form."""
    try:
        form = _Form(content_type)
        async for chunk in chunks:
            form.feed(chunk)
        return form.close()
    except BadRequest:
        async for _ in chunks:  # a client that is still sending would not read the answer
            pass
        raise


class File(bytes):
    """The bytes of a part that came as a file, and the name that its client gave it, whatever that is."""

    filename: str

    def __new__(cls, data: bytes | bytearray, filename: str) -> Self:
        file = super().__new__(cls, data)
        file.filename = filename
        return file


class _Form:
    """What has come of a form."""

    def __init__(self, content_type: bytes) -> None:
        _, options = parse_options_header(content_type.decode("latin-1"))
        self._parts: defaultdict[str, list[str | File]] = defaultdict(list)
        self._segment, self._data = MultipartSegment([]), bytearray()
        with _refusals():
            self._parser = PushMultipartParser(options.get("boundary", ""), max_segment_count=MOST_PARTS)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        with _refusals():
            for event in self._parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    self._segment, self._data = event, bytearray()
                elif event is None:
                    self._parts[self._segment.name or ""].append(_value(self._segment, self._data))
                else:
                    self._data += event

    def close(self) -> Mapping[str, Sequence[str | File]]:
        """The parts, when the body was a whole form."""
        with _refusals():
            self._parser.close()
        return self._parts


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (MultipartError, UnicodeError):
        raise BadRequest(NOT_A_FORM) from None


def _value(segment: MultipartSegment, data: bytearray) -> str | File:
    if segment.filename:
        return File(data, segment.filename)
    charset = (segment.charset or CHARSETS[0]).lower()
    try:
        if charset in CHARSETS:
            return data.decode(charset)
    except UnicodeDecodeError:
        pass
    said = shown(charset.upper())[1:-1]
    raise BadRequest(f"{shown(segment.name or '')[1:-1]} is not text in {said}; accepted: {', '.join(CHARSETS).upper()}")
