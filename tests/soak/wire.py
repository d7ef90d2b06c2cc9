"""A kept connection to the server, with one request at a time on it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

from loadtest.client import HOST

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
BOUNDARY = "--------soak"
PATIENCE = 60.0  # seconds, twice the server's own deadline


class Wire:
    """Opened by ``await Wire.open(port)``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Wire:
        """Connect to the server on this machine."""
        return cls(*await asyncio.open_connection(HOST, port))

    async def ask(self, request: bytes) -> tuple[int, dict[str, Any]]:
        """The answer's status and JSON, an empty object where it has none; raises :class:`TimeoutError`."""
        self._writer.write(request)
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            found = LENGTH.search(head)
            content = await self._reader.readexactly(int(found[1]) if found else 0)
        return int(head[9:12]), json.loads(content or b"{}")

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        await self._writer.wait_closed()


def request(method: str, path: str, content: bytes = b"", kind: str = "application/json") -> bytes:
    """The bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def upload(path: str, files: Mapping[str, bytes], alias: str | None) -> bytes:
    """The bytes of an adapter version's upload."""
    parts = [(f'name="{name}"; filename="{name}"', data) for name, data in files.items()]
    if alias is not None:
        parts.append(('name="alias"', alias.encode()))
    body = b"".join(
        f"--{BOUNDARY}\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    )
    return request("POST", path, body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}")
