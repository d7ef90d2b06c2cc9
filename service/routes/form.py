"""Forms: the parts of a ``multipart/form-data`` body."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header  # type: ignore[import-untyped]

from service.errors import BadRequest

MOST_PARTS = 1000
NOT_A_FORM = "the body is not a whole form; send multipart/form-data, with its boundary in the content type"


def read_form(content_type: bytes, body: bytes) -> Mapping[str, Sequence[str | bytes]]:
    """The parts of a form by name, in order: fields as text, files as bytes.

    Raises :class:`BadRequest` for a body that is not a form, or has more than :data:`MOST_PARTS` parts.
    """
    _, options = parse_options_header(content_type.decode("latin-1"))
    parts: defaultdict[str, list[str | bytes]] = defaultdict(list)
    segment, data = MultipartSegment([]), b""
    try:
        with PushMultipartParser(options.get("boundary", ""), max_segment_count=MOST_PARTS) as parser:
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    segment, data = event, b""
                elif event is None:
                    parts[segment.name or ""].append(_value(segment, data))
                else:
                    data = bytes(event)  # all of it, since the parser has the whole body
    except (MultipartError, UnicodeEncodeError):
        raise BadRequest(NOT_A_FORM) from None
    return parts


def _value(segment: MultipartSegment, data: bytes) -> str | bytes:
    if segment.filename:
        return data
    try:
        return data.decode(segment.charset or "utf-8")
    except (UnicodeDecodeError, LookupError):
        raise BadRequest(f"{(segment.name or '')[:80]} is not text in {(segment.charset or 'UTF-8')[:20]}") from None
