"""Who may do what: the scopes, prefix and limits of API keys, and the content types that a route reads."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, cast

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute

from service.errors import BadRequest, Forbidden, StartupError, Unauthorized, UnsupportedMedia
from service.routes.asgi import Scope, header
from service.routes.caller import CALLER, Caller
from service.routes.key_limits import KeyLimits
from service.routes.keys import DELETE, PREDICT, PUBLIC, READ, SCOPES, WRITE, ApiKey, hashed
from service.routes.keys_file import KeysFile
from service.store.selector import not_found

Connection = ASGIConnection[Any, Any, Any, Any]
KEEPS_TO_PREFIX = "keeps_to_prefix"  # the mark of a handler that itself leaves out what its caller may not see
USAGE = "quickchange.usage"  # where a scope has what is to be told when its request is over
MOST_ROUTING_KEY = 200


class Access:
    """The guard of every route: ``opt["scope"]`` of its handler says what a caller needs, and ``public`` ones are open.

    Without keys all are open. With keys, changing adapters needs one that has the scope; so do predicting and reading on
    a public address, and elsewhere from when a key with that scope or with a prefix has been seen: revoking opens nothing.
    For a key with a prefix, adapters of other names do not exist, and a handler that neither has an adapter's name in its
    path nor the mark ``keeps_to_prefix`` refuses it.
    """

    def __init__(self, file: KeysFile | None, is_public: bool) -> None:
        self._file, self._limits = file, KeyLimits()
        self._keys: tuple[ApiKey, ...] = ()
        self._guarded = frozenset(SCOPES if is_public else (WRITE, DELETE)) if file is not None else frozenset()

    async def on_loop(self, connection: Connection, handler: BaseRouteHandler) -> None:
        """:meth:`guard` for the framework, which would run a plain function on another thread."""
        self.guard(connection, handler)

    def guard(self, connection: Connection, handler: BaseRouteHandler) -> None:
        """Note the request's caller in its scope, and count it towards the limits of its key.

        Raises :class:`Unauthorized`, :class:`Forbidden`, :class:`AdapterNotFound` outside the key's prefix, and
        :class:`Overloaded` beyond its limits.
        """
        scope = cast("Scope", connection.scope)
        needed = handler.opt["scope"]
        scope[CALLER] = Caller() if needed == PUBLIC else self._caller(scope, needed, handler.opt)

    def end(self, scope: Scope) -> None:
        """Tell that a request is over, whether or not it got as far as the guard."""
        usage = scope.pop(USAGE, None)
        if usage is not None:
            usage.end()

    def _caller(self, scope: Scope, needed: str, opt: Mapping[str, Any]) -> Caller:
        self._refresh()
        if needed not in self._guarded:
            return Caller(routing_key=_routing_key(scope))
        key = _identify(scope, self._keys)
        scope[USAGE] = self._limits.begin(key)
        if needed not in key.scopes:
            raise Forbidden(f"this API key lacks the scope {needed}")
        if key.prefix:
            _confine(key.prefix, scope, opt)
        return Caller(f"{key.owner}/{key.id}", key.prefix, _routing_key(scope))

    def _refresh(self) -> None:
        keys = self._file.current() if self._file is not None else ()
        if keys is not self._keys:
            self._keys = keys
            self._guarded |= {scope for key in keys for scope in key.scopes}
            self._guarded |= {scope for key in keys if key.prefix for scope in (PREDICT, READ)}
            self._limits.keep(keys)


def check_scopes(app: Litestar) -> None:
    """Raise :class:`StartupError` for a handler that neither asks for a scope nor says that it is public.

    The framework's own answers to OPTIONS, which tell an address's methods and no more, are marked as public here.
    """
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]:
            if getattr(handler, "http_methods", None) == {"OPTIONS"}:
                handler.opt.setdefault("scope", PUBLIC)
            if handler.opt.get("scope") not in (PUBLIC, *SCOPES):
                raise StartupError(
                    f"{route.path}: its handler has no opt={{'scope': …}}; accepted: {PUBLIC}, {', '.join(SCOPES)}"
                )


def json_only(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard that refuses bodies which do not claim to be JSON."""
    kind = content_type(connection)
    if kind != "application/json":
        raise UnsupportedMedia(f"content type {kind or 'missing'!r} is not read here; send application/json")


def multipart_only(connection: Connection, _: BaseRouteHandler) -> None:
    """A guard that refuses bodies which do not claim to be multipart forms."""
    kind = content_type(connection)
    if kind != "multipart/form-data":
        raise UnsupportedMedia(f"content type {kind or 'missing'!r} is not read here; send multipart/form-data")


def content_type(connection: Connection) -> str:
    """The content type's name, in lower case and without parameters."""
    return header(connection.scope, b"content-type").decode("latin-1").partition(";")[0].strip().lower()[:80]


def _identify(scope: Scope, keys: Sequence[ApiKey]) -> ApiKey:
    kind, _, key = header(scope, b"authorization").decode("latin-1").partition(" ")
    if kind.lower() != "bearer" or not key:
        raise Unauthorized("an API key is required: send the header 'Authorization: Bearer KEY'")
    digest = hashed(key.strip())
    # Every key is compared, each in constant time, so that timing tells nothing.
    found = [known for known in keys if hmac.compare_digest(known.sha256, digest)]
    if not found:
        raise Unauthorized("this API key is not known here")
    return found[0]


def _confine(prefix: str, scope: Scope, opt: Mapping[str, Any]) -> None:
    name = scope.get("path_params", {}).get("name")
    if name is None and not opt.get(KEEPS_TO_PREFIX):
        raise Forbidden(f"this API key is for adapters named {prefix}…; what this address tells is about all of them")
    if name is not None and not name.startswith(prefix):
        raise not_found(name)


def _routing_key(scope: Scope) -> str | None:
    given = header(scope, b"x-routing-key")
    if len(given) > MOST_ROUTING_KEY:
        raise BadRequest(f"x-routing-key has {len(given)} characters; at most {MOST_ROUTING_KEY} are accepted")
    return given.decode("latin-1") or None
