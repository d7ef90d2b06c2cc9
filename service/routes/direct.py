"""The way past the framework that predictions take: the same handlers, guards and errors, at a tenth of the cost.

``docs/performance.md`` has the figures. The framework knows these addresses too: it describes them, and serves other
spellings of them, such as one with a slash at its end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast, get_type_hints

from litestar import Response
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from pydantic import BaseModel

from service.engine.pipeline import Pipeline
from service.errors import Overloaded, TooLarge
from service.routes import text, vqa
from service.routes.asgi import App, Receive, Reply, Scope, Send, header
from service.routes.guards import Access, Connection
from service.routes.problems import BODY_TOO_LARGE, refuse
from service.routes.schemas import Body
from service.routes.services import Services

Guard = Callable[[Connection, BaseRouteHandler], None]


class Direct:
    """An ASGI application before the framework: while a pipeline is full it turns its requests away, and it runs those on texts.

    ``max_body_bytes`` and ``access`` are those that the framework has.
    """

    def __init__(self, framework: App, services: Services, access: Access, max_body_bytes: int) -> None:
        self._framework, self._lifetime = framework, services.lifetime
        self._runs = {
            path: _Run(handler, services, access, max_body_bytes)
            for handler in (text.sentiment, text.classify)
            for path in handler.paths
        }
        self._pipelines: Mapping[str, Pipeline[Any, Any, Any]] = {
            **dict.fromkeys(self._runs, services.text),
            **dict.fromkeys(vqa.vqa.paths, services.vqa),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        path: str = scope.get("path", "")
        pipeline = self._pipelines.get(path)
        if pipeline is None or scope["method"] != "POST":
            await self._framework(scope, receive, send)
            return
        scope["path_template"] = path
        try:
            self._lifetime.check()
            if pipeline.is_full:
                raise Overloaded(f"no further request is accepted while {pipeline.rows} rows are in work")
            run = self._runs.get(path)
            reply = await run(scope, receive) if run else None
        except Exception as error:
            reply = refuse(error, f"POST {path}")
        await (reply.send(send) if reply else self._framework(scope, receive, send))


class _Run:
    """A handler that takes ``data`` and ``services``, called as the framework would call it."""

    def __init__(self, handler: HTTPRouteHandler, services: Services, access: Access, max_body_bytes: int) -> None:
        self._handler, self._services, self._max_body_bytes = handler, services, max_body_bytes
        self._call = cast("Callable[..., Awaitable[Response[BaseModel]]]", handler.fn)
        self._body = cast("type[Body]", get_type_hints(handler.fn)["data"])
        self._guards = cast("Sequence[Guard]", (access.guard, *(handler.guards or ())))

    async def __call__(self, scope: Scope, receive: Receive) -> Reply:
        """The answer to a request; raises whatever guards, body and handler raise."""
        connection: Connection = ASGIConnection(cast("Any", scope))
        for guard in self._guards:
            guard(connection, self._handler)
        data = self._body.read(await self._read(scope, receive))
        response = await self._call(data=data, services=self._services)
        return Reply(200, "application/json", response.headers, response.content.model_dump_json().encode())

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise TooLarge(BODY_TOO_LARGE)
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > self._max_body_bytes:
                raise TooLarge(BODY_TOO_LARGE)
        return body
