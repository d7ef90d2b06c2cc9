"""A kept connection to the server, with one request at a time on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from loadtest.client import END, HOST, LENGTH, post_form

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
            head = await self._reader.readuntil(END)
            found = LENGTH.search(head)
            content = await self._reader.readexactly(int(found[1]) if found else 0)
        return int(head[9:12]), json.loads(content or b"{}")

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        await self._writer.wait_closed()


def upload(path: str, files: Mapping[str, bytes], alias: str | None) -> bytes:
    """The bytes of an adapter version's upload."""
    parts = {name: (name, data, "application/octet-stream") for name, data in files.items()}
    return post_form(path, parts, {} if alias is None else {"alias": alias})
