"""Files, forms and connections that no library would make."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.support.server import PARTS, Server

HALF_HEAD = b"POST /v1/sentiment HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
HALF_BODY = HALF_HEAD + b'content-length: 1000\r\n\r\n{"text": "'
# As they stand in an address; what they mean is tried in JSON and in forms.
NAMES = [
    "..", "../x", "..%2fx", "%2e%2e%2f", "%2e%2e%2fx", "%252e%252e%252fx", "..%5cx", "%2fetc%2fx", "a%2f..%2f..%2fx", "~root",
    "%00", "a%00", "a%0a", "a%0d%0ax:y", "a" * 300, "%d0%b0dapter", "sentiment%e2%80%8b", "%ef%bd%93entiment", "%ff%fe", "A",
]  # fmt: skip
ENDING = b"--b--\r\n"


def tensor_file(header: object, data: bytes = bytes(8)) -> bytes:
    """A safetensors file with this header, given as an object or as it is to stand there."""
    encoded = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


def part(name: str, data: bytes, filename: str | None = None, headers: str = "") -> bytes:
    """A part of a form with the boundary ``b``, its names as they are given."""
    file = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{headers}\r\n'.encode() + data + b"\r\n"


def upload_form(parts: dict[str, bytes]) -> bytes:
    """The form of an upload of these parts."""
    return b"".join(part(name, data, PARTS.get(name, name)) for name, data in parts.items()) + ENDING


def request(method: str, path: str, body: bytes = b"", kind: str = "multipart/form-data; boundary=b", *headers: str) -> bytes:
    """A request as it goes over the wire, its path as it is given; the server is asked to close after it."""
    lines = [f"{method} {path} HTTP/1.1", "host: a", "connection: close", f"content-type: {kind}", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def status(answer: bytes) -> int:
    """The status of an answer; one of the server's own, which has no body of ours, counts as well."""
    return int(answer.split(b" ", 2)[1])


def surroundings(server: Server) -> dict[str, bytes]:
    """Every file around the adapters' folder and in it."""
    around = server.adapters.parent
    return {str(file.relative_to(around)): file.read_bytes() for file in sorted(around.rglob("*")) if file.is_file()}


@contextmanager
def half_sent(port: int, sent: Sequence[bytes]) -> Iterator[list[socket.socket]]:
    """Connections that have sent these bytes and say no more, open while the block runs."""
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in sent]
        for connection, data in zip(connections, sent, strict=True):
            connection.sendall(data)
        yield connections
