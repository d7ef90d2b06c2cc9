"""API keys: who may do what, that every route says so, and that a key shows up nowhere."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from litestar import Litestar, get
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute

from service.app import create_app
from service.errors import StartupError
from service.routes.guards import check_scopes
from service.routes.keys import DELETE, PREDICT, PUBLIC, READ, SCOPES, WRITE
from service.settings import Settings
from service.store.bundle import Bundle
from tests.support.keys import bearer, line, write_keys
from tests.support.problems import assert_problem
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.conftest import Start

WRITER, DELETER, READER, PREDICTOR = "writer-key-hQ3x", "deleter-key-9vTz", "reader-key-Bk2p", "predictor-key-7sWn"
KEYS = {WRITER: WRITE, DELETER: DELETE, READER: READ, PREDICTOR: PREDICT}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys", "# who may what\n\n", line(WRITER, WRITE), line(DELETER, DELETE))


@pytest.fixture
def locked(start: Start, keys: Path) -> Server:
    """A server on this machine's own address, with keys."""
    return start(api_keys_file=keys)


def test_changing_needs_a_key_that_somebody_was_given(locked: Server, bundles: dict[str, Bundle]) -> None:
    before = locked.tree()
    for headers in ({}, bearer("wrong"), {"authorization": f"Basic {WRITER}"}, {"authorization": WRITER}):
        calls = [
            locked.publish("irony", bundles["irony"], headers=headers),
            locked.client.put("/v1/adapters/irony/aliases/live", json={"version": 1}, headers=headers),
            locked.client.delete("/v1/adapters/irony/aliases/live", headers=headers),
            locked.client.delete("/v1/adapters/irony/versions/1", headers=headers),
        ]
        for response in calls:
            assert_problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
    assert locked.tree() == before


def test_a_key_does_only_what_its_scope_says(locked: Server, bundles: dict[str, Bundle]) -> None:
    assert locked.publish("irony", bundles["irony"], headers=bearer(WRITER)).status_code == 201
    assert locked.publish("irony", bundles["irony-2"], headers=bearer(WRITER)).status_code == 201
    version = "/v1/adapters/irony/versions/1"
    assert_problem(locked.client.delete(version, headers=bearer(WRITER)), 403, "forbidden", "adapters:delete")
    assert_problem(locked.publish("x", bundles["irony"], headers=bearer(DELETER)), 403, "forbidden", "adapters:write")
    assert locked.client.delete(version, headers=bearer(DELETER)).status_code == 204


def test_reading_and_predicting_stay_open_on_loopback(locked: Server, bundles: dict[str, Bundle]) -> None:
    locked.publish("sentiment", bundles["sentiment"], headers=bearer(WRITER))
    assert locked.client.get("/v1/adapters").status_code == 200
    assert locked.post("/v1/sentiment", {"text": "a"}).status_code == 200


def test_each_call_on_a_public_address_needs_the_key_of_its_scope(start: Start, keys: Path, bundles: dict[str, Bundle]) -> None:
    write_keys(keys, *(line(key, scope) for key, scope in KEYS.items()))
    public = start(host="0.0.0.0", api_keys_file=keys)
    assert public.publish("sentiment", bundles["sentiment"], headers=bearer(WRITER)).status_code == 201
    calls: list[tuple[str, str, str]] = [
        (PREDICT, "POST", "/v1/sentiment"), (PREDICT, "POST", "/v1/sentiment/"), (READ, "GET", "/v1/adapters"),
        (READ, "GET", "/v1/adapters/sentiment"), (READ, "GET", "/v1/models"), (READ, "GET", "/metrics"),
    ]  # fmt: skip
    for scope, method, path in calls:
        body = {"text": "a"} if method == "POST" else None
        refused = public.client.request(method, path, json=body)
        assert_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        for key, granted in KEYS.items():
            answer = public.client.request(method, path, json=body, headers=bearer(key))
            if granted == scope:
                assert answer.status_code == 200
            else:
                assert_problem(answer, 403, "forbidden", scope)


def test_probes_and_the_page_are_public(start: Start, keys: Path) -> None:
    public = start(host="0.0.0.0", api_keys_file=keys)
    for path in ("/health/live", "/health/ready", "/schema", "/schema/openapi.json", "/schema/assets/css/swagger-ui.css"):
        assert public.client.get(path).status_code == 200
    assert public.client.options("/v1/sentiment").status_code == 204


@pytest.mark.parametrize(("scope", "options"), [(PREDICT, {}), (READ, {}), (WRITE, {"prefix": "acme-"})])
def test_on_loopback_a_scope_is_asked_for_from_when_a_key_has_it_or_a_prefix(
    start: Start, keys: Path, scope: str, options: dict[str, str]
) -> None:
    write_keys(keys, line(WRITER, WRITE), line("x-key", scope, **options))
    locked = start(api_keys_file=keys)
    answers = {PREDICT: locked.post("/v1/sentiment", {"text": "a"}), READ: locked.client.get("/v1/adapters")}
    for asked, answer in answers.items():
        assert (answer.status_code == 401) == (bool(options) or asked == scope)


def test_who_is_unknown_is_told_so_before_the_body_is_read(start: Start, keys: Path) -> None:
    public = start(host="0.0.0.0", api_keys_file=keys)
    for path in ("/v1/sentiment", "/v1/vqa", "/v1/adapters/x/versions"):
        head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\nconnection: close\r\n"
        with socket.create_connection(("127.0.0.1", public.port), 5) as connection:
            connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def handlers(app: Litestar) -> Iterator[tuple[str, BaseRouteHandler]]:
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else [route.route_handler]:
            yield route.path, handler


def test_every_route_needs_a_scope_or_is_public_by_name(server: Server) -> None:
    found = {(path, handler.opt["scope"]) for path, handler in handlers(server.application.framework) if not is_options(handler)}
    assert {scope for _, scope in found} == {PUBLIC, *SCOPES}
    public = {path for path, scope in found if scope == PUBLIC}
    assert {path for path in public if not path.startswith("/schema")} == {"/health/live", "/health/ready"}
    assert {("/v1/sentiment", PREDICT), ("/v1/vqa", PREDICT), ("/metrics", READ)} <= found


def is_options(handler: BaseRouteHandler) -> bool:
    return getattr(handler, "http_methods", None) == {"OPTIONS"}


@pytest.mark.parametrize("opt", [{}, {"scope": "adapters:fly"}])
def test_a_route_that_does_not_say_what_it_needs_ends_start_up(opt: dict[str, str]) -> None:
    @get("/forgotten", opt=opt, sync_to_thread=False)
    def forgotten() -> None: ...

    with pytest.raises(StartupError, match=r"^/forgotten: .*public, predict"):
        check_scopes(Litestar([forgotten], openapi_config=None))


def test_a_key_is_never_logged_nor_answered_nor_measured(
    start: Start, keys: Path, bundles: dict[str, Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    write_keys(keys, *(line(key, scope) for key, scope in KEYS.items()))
    locked = start(api_keys_file=keys)
    with caplog.at_level(logging.DEBUG):
        answers = [
            locked.publish("irony", bundles["irony"], headers=bearer(WRITER)),
            locked.client.delete("/v1/adapters/irony/versions/1", headers=bearer(DELETER)),
            locked.client.delete("/v1/adapters/irony/versions/1", headers=bearer(WRITER)),
            locked.client.put("/v1/adapters/irony/aliases/live", json={"version": 9}, headers=bearer(WRITER)),
            locked.client.get("/metrics", headers=bearer(WRITER)),
            locked.client.get("/v1/adapters", headers=bearer(READER)),
            locked.post("/v1/sentiment", {"text": "a"}, headers=bearer(PREDICTOR)),
        ]
    told = caplog.text + "".join(answer.text + str(answer.headers) for answer in answers)
    assert not [key for key in KEYS if key in told]


def test_without_keys_a_public_address_is_refused_unless_told_so(tiny_base: Path, start: Start, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^QUICKCHANGE_HOST=0\.0\.0\.0 is reachable .*--insecure"):
        create_app(Settings(host="0.0.0.0", base_model=str(tiny_base), adapters_dir=tmp_path))
    assert start(host="0.0.0.0", insecure=True).client.get("/v1/adapters").status_code == 200
