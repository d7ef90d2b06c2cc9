"""What the layers around the framework share: the server's protocol as types, and an answer ready to be sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
PROBLEM = "quickchange.problem"  # where a scope has the code of the error that answered it


def header(scope: Mapping[str, object], name: bytes) -> bytes:
    """The value of the first header of this name (in lower case), or nothing."""
    for given, value in cast("Iterable[tuple[bytes, bytes]]", scope["headers"]):
        if given == name:
            return value
    return b""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its status, the media type of its body, and further headers."""

    status: int
    kind: str
    headers: Mapping[str, str]
    body: bytes

    async def send(self, send: Send) -> None:
        """Give it to the server."""
        headers = [(b"content-type", self.kind.encode()), (b"content-length", b"%d" % len(self.body))]
        headers += [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
