"""The real application behind a real HTTP server, in a thread of the test run."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn

from service.app import Application, create_app
from service.connection import Connection
from service.settings import Settings
from service.store.bundle import Bundle
from service.store.database import FILE
from service.store.layout import CARD, CONFIG, IMAGES, MANIFEST, WEIGHTS

PARTS = {"adapter_config": CONFIG, "adapter_model": WEIGHTS, "manifest": MANIFEST, "card": CARD}
START_SECONDS = 60.0


def bundle_parts(bundle: Bundle, **changes: bytes | None) -> dict[str, bytes]:
    """A bundle's files as the parts of an upload; None leaves one out."""
    files = {part: bytes(bundle.contents[file]) for part, file in PARTS.items() if file in bundle.contents}
    return {name: data for name, data in {**files, **changes}.items() if data is not None}


ANSWERING = ("service.routes", "service.engine")  # the loggers of what happens to requests; other tests provoke others


class ErrorLog(logging.Handler):
    """Keeps what the server logs as errors: an answer that nobody foresaw is one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Server:
    """A running server and an HTTP client for it; leaving the context stops it and frees its port."""

    def __init__(self, base: Path, adapters: Path, **settings: Any) -> None:
        self.adapters = adapters
        settings.setdefault("jobs_dir", adapters.parent / f"{adapters.name}-jobs")
        self.application: Application = create_app(Settings(base_model=str(base), adapters_dir=adapters, **settings))
        self.errors = ErrorLog()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        config = uvicorn.Config(self.application.asgi, lifespan="on", http=Connection, ws="none", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="server")

    def __enter__(self) -> Self:
        for name in ANSWERING:
            logging.getLogger(name).addHandler(self.errors)
        self._thread.start()
        wait_until(lambda: self._server.started, START_SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(START_SECONDS)
        self._socket.close()
        for name in ANSWERING:
            logging.getLogger(name).removeHandler(self.errors)

    def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        """POST a JSON body."""
        return self.client.post(path, json=body, **options)

    def publish(self, name: str, bundle: Bundle, alias: str | None = "live", **options: Any) -> httpx.Response:
        """Upload a bundle, and point ``alias`` at it."""
        images = [(file, bytes(bundle.files[file])) for file in IMAGES if file in bundle.files]
        return self.upload(name, bundle_parts(bundle), alias, images, **options)

    def upload(
        self,
        name: str,
        parts: dict[str, bytes],
        alias: str | None = None,
        images: Sequence[tuple[str, bytes]] = (),
        **options: Any,
    ) -> httpx.Response:
        """Upload any bytes as the parts of an adapter version, and ``images`` under their names."""
        files = [(part, (PARTS.get(part, part), data)) for part, data in parts.items()]
        files += [("images", image) for image in images]
        data = {"alias": alias} if alias is not None else None
        return self.client.post(f"/v1/adapters/{name}/versions", files=files, data=data, **options)

    def tree(self) -> dict[str, bytes]:
        """Every file of the adapters' folder but the database, to compare before and after."""
        files = [file for file in sorted(self.adapters.rglob("*")) if file.is_file() and not file.name.startswith(FILE)]
        return {str(file.relative_to(self.adapters)): file.read_bytes() for file in files}

    def raw(self, request: bytes, seconds: float = 20.0) -> bytes:
        """What the server answers to bytes that no HTTP client would send, up to the end of the connection."""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as connection:
            connection.sendall(request)
            received = b""
            with suppress(TimeoutError):
                while part := connection.recv(65536):
                    received += part
        return received


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    """Return as soon as ``condition()`` holds; fail when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
