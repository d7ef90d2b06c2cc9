"""The way past the framework that predictions take: the same handlers, guards and errors, at a tenth of the cost.

``docs/performance.md`` has the figures. The framework knows these addresses too: it describes them, and serves other
spellings of them, such as one with a slash at its end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast, get_type_hints

from litestar import Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler

from service.engine.pipeline import Pipeline
from service.errors import TooLarge
from service.routes import text, vqa
from service.routes.asgi import App, Receive, Reply, Scope, Send, header
from service.routes.caller import caller_of
from service.routes.guards import Access, Connection
from service.routes.problems import BODY_TOO_LARGE, refuse
from service.routes.schemas import Body
from service.routes.services import Services

Guard = Callable[[Connection, BaseRouteHandler], None]
Answer = Callable[[Connection, bytes], Awaitable[Response[Any]]]


class Direct:
    """An ASGI application before the framework: while a pipeline is full it turns its requests away, and it runs the others.

    ``max_body_bytes`` and ``access`` are those that the framework has.
    """

    def __init__(self, framework: App, services: Services, access: Access, max_body_bytes: int) -> None:
        self._framework, self._lifetime, self._access = framework, services.lifetime, access
        runs: list[tuple[HTTPRouteHandler, Answer, Pipeline[Any, Any, Any]]] = [
            (text.sentiment, _json(text.sentiment, services), services.text),
            (text.classify, _json(text.classify, services), services.text),
            (vqa.vqa, partial(vqa.answer, services=services), services.vqa),
        ]
        self._runs = {
            path: (_Run(handler, answer, access, max_body_bytes), pipeline)
            for handler, answer, pipeline in runs
            for path in handler.paths
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on; either way, tell when it is over."""
        try:
            await self._serve(scope, receive, send)
        finally:
            self._access.end(scope)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if path not in self._runs or scope["method"] != "POST":
            await self._framework(scope, receive, send)
            return
        scope["path_template"] = path
        run, pipeline = self._runs[path]
        try:
            self._lifetime.check()
            pipeline.check()
            reply = await run(scope, receive)
        except Exception as error:
            reply = refuse(error, scope)
        await reply.send(send)


def _json(handler: HTTPRouteHandler, services: Services) -> Answer:
    """What a handler that takes ``data``, ``services`` and ``caller`` answers, called as the framework would call it."""
    call = cast("Callable[..., Awaitable[Response[Any]]]", handler.fn)
    body = cast("type[Body]", get_type_hints(handler.fn)["data"])
    return lambda connection, data: call(data=body.read(data), services=services, caller=caller_of(connection.scope))


class _Run:
    """A handler's guards, and then what it answers to the body."""

    def __init__(self, handler: HTTPRouteHandler, answer: Answer, access: Access, max_body_bytes: int) -> None:
        self._handler, self._answer, self._max_body_bytes = handler, answer, max_body_bytes
        self._guards = cast("Sequence[Guard]", (access.guard, *(handler.guards or ())))

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """The answer to a request; raises whatever guards, body and handler raise."""
        connection: Connection = ASGIConnection(cast("Any", scope))
        for guard in self._guards:
            guard(connection, self._handler)
        response = await self._answer(connection, await self._read(scope, receive))
        return Reply(200, "application/json", response.headers, response.content.model_dump_json().encode())

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise TooLarge(BODY_TOO_LARGE)
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            part, more = message.get("body", b""), message.get("more_body", False)
            parts.append(part)
            size += len(part)
            if size > self._max_body_bytes:
                raise TooLarge(BODY_TOO_LARGE)
        return b"".join(parts)
