"""What a handler is told of its caller, whichever way it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from litestar import Litestar, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.testing import TestClient

from service.errors import AdapterNotFound
from service.routes.caller import Caller, caller_of, provide_caller
from service.routes.guards import KEEPS_TO_PREFIX, Access, Connection
from service.routes.keys import PREDICT, PUBLIC, READ, hashed
from service.routes.keys_file import KeysFile
from tests.support.keys import bearer, line, write_keys

KEY = "ann-key-2wQ"
WHO = f"ann/{hashed(KEY)[:8]}"


@get("/told", opt={"scope": READ, KEEPS_TO_PREFIX: True}, sync_to_thread=False)
def told(caller: NamedDependency[Caller]) -> list[str | None]:
    return [caller.who, caller.prefix, caller.routing_key]


@get("/open", opt={"scope": PUBLIC}, sync_to_thread=False)
def is_open(caller: NamedDependency[Caller]) -> list[str | None]:
    return [caller.who, caller.prefix, caller.routing_key]


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access(KeysFile(write_keys(tmp_path / "keys", line(KEY, READ, PREDICT, prefix="acme-"))), is_public=True)


def test_a_handler_gets_owner_prefix_and_routing_key(access: Access) -> None:
    provider = Provide(provide_caller, sync_to_thread=False)
    app = Litestar([told, is_open], guards=[access.on_loop], dependencies={"caller": provider}, openapi_config=None)
    with TestClient(app) as client:
        assert client.get("/told", headers={**bearer(KEY), "x-routing-key": "user-7"}).json() == [WHO, "acme-", "user-7"]
        assert client.get("/told", headers={**bearer(KEY), "x-routing-key": ""}).json() == [WHO, "acme-", None]
        assert client.get("/open", headers={**bearer(KEY), "x-routing-key": "user-7"}).json() == ["anonymous", "", None]


def sent(*headers: tuple[bytes, bytes]) -> Connection:
    return ASGIConnection(cast("Any", {"type": "http", "headers": headers}))


def test_the_guard_alone_tells_the_same(access: Access) -> None:
    connection = sent((b"authorization", f"bearer {KEY}".encode()), (b"x-routing-key", b"user-7"))
    access.guard(connection, told)
    assert caller_of(connection.scope) == Caller(WHO, "acme-", "user-7")


def test_without_keys_everybody_is_anonymous_and_may_name_any_adapter() -> None:
    connection = sent((b"x-routing-key", b"u"))
    Access(None, is_public=True).guard(connection, told)
    assert caller_of(connection.scope) == Caller("anonymous", "", "u")
    caller_of(connection.scope).check("sentiment", "x:1", "")


def test_a_selector_outside_the_prefix_names_the_adapter_alone() -> None:
    caller = Caller("ann", "acme-")
    caller.check("acme-", "acme-x", "acme-x:1", "acme-x@live")
    with pytest.raises(AdapterNotFound, match=r"^no adapter named 'globex-x'$"):
        caller.check("acme-x", "globex-x@live")
