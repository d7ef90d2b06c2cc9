"""Who may do what: API keys and their scopes, and the content types that a route reads."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from service.errors import Forbidden, StartupError, Unauthorized, UnsupportedMedia
from service.routes.asgi import header

PUBLIC, READ, WRITE, DELETE = "public", "read", "adapters:write", "adapters:delete"
SCOPES = (WRITE, DELETE)
Connection = ASGIConnection[Any, Any, Any, Any]
KEY_LINE = re.compile(r"(?P<owner>\S+)\s+(?P<sha256>[0-9a-f]{64})\s+(?P<scopes>[a-z:,]+)")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's owner, the sha256 of its text, and its scopes."""

    owner: str
    sha256: str
    scopes: frozenset[str]


def read_keys(file: Path | None) -> tuple[ApiKey, ...]:
    """The keys in a file of lines ``owner sha256 scope,scope``; empty lines and ``#`` comments are skipped.

    Raises :class:`StartupError`, naming the line, when one cannot be read.
    """
    if file is None:
        return ()
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError:
        raise StartupError(f"QUICKCHANGE_API_KEYS_FILE={file}: no readable file there") from None
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = KEY_LINE.fullmatch(line.strip())
        scopes = frozenset(match["scopes"].split(",")) if match else frozenset()
        if match is None or not scopes <= set(SCOPES):
            raise StartupError(
                f"QUICKCHANGE_API_KEYS_FILE={file}: line {number} is not 'owner sha256 scopes', "
                f"with scopes out of {', '.join(SCOPES)}"
            )
        keys.append(ApiKey(match["owner"], match["sha256"], scopes))
    if not keys:
        raise StartupError(f"QUICKCHANGE_API_KEYS_FILE={file}: no key in it")
    return tuple(keys)


def key_line(owner: str, key: str, scopes: frozenset[str]) -> str:
    """The line of the keys file for a key; the key itself is not in it."""
    return f"{owner} {hashlib.sha256(key.encode()).hexdigest()} {','.join(sorted(scopes))}"


class Access:
    """The guard of every route: ``opt["scope"]`` of its handler says what a caller needs.

    ``public`` routes are open; ``read`` ones are open on loopback or without keys, else any key will do; the others
    need a key with that scope once any key is configured.
    """

    def __init__(self, keys: tuple[ApiKey, ...], is_public: bool) -> None:
        self._keys, self._is_public = keys, is_public

    def guard(self, connection: Connection, handler: BaseRouteHandler) -> None:
        """Raise :class:`Unauthorized` or :class:`Forbidden`, or let the request pass."""
        scope = handler.opt.get("scope", READ)
        if not self._keys or scope == PUBLIC or (scope == READ and not self._is_public):
            return
        scopes = _identify(connection, self._keys).scopes
        if scope != READ and scope not in scopes:
            raise Forbidden(f"this API key lacks the scope {scope}")


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


def _identify(connection: Connection, keys: tuple[ApiKey, ...]) -> ApiKey:
    kind, _, key = header(connection.scope, b"authorization").decode("latin-1").partition(" ")
    if kind.lower() != "bearer" or not key:
        raise Unauthorized("an API key is required: send the header 'Authorization: Bearer KEY'")
    digest = hashlib.sha256(key.strip().encode()).hexdigest()
    # Every key is compared, each in constant time, so that timing tells nothing.
    found = [known for known in keys if hmac.compare_digest(known.sha256, digest)]
    if not found:
        raise Unauthorized("this API key is not known here")
    return found[0]
