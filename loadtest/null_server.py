"""A server that answers every request at once with the same bytes: what a client costs shows against it.

python -m loadtest.null_server BYTES
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "


class _Answer(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self._answer, self._received = answer, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(HEAD_END)
        _, _, length = head.partition(LENGTH)
        if found and len(body) >= int(length.partition(b"\r\n")[0] or 0):
            self._received = b""
            self._transport.write(self._answer)


async def serve(size: int) -> None:
    """Serve on a free port, and print it."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % size + b" " * size
    server = await asyncio.get_running_loop().create_server(lambda: _Answer(answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
