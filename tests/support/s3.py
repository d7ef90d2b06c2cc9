"""An S3 server in the test's process, and a door in front of it that answers wrongly when told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "adapters"
REGION = "us-east-1"
SECRET = "not-to-be-seen"
Fault = Literal["slow", "fail", "lose", "truncate", "stall", "stranger"]
SLOW = 0.5  # seconds
PASSED = ("Content-Type", "Content-Length", "If-None-Match", "Host", "x-amz-content-sha256", "Authorization", "x-amz-date")


def variables(url: str) -> dict[str, str]:
    """The environment in which a client finds the server at ``url``."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "NO_PROXY": "127.0.0.1",
    }


class S3:
    """moto on a free port, with one bucket, for as long as the context lasts."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)

    def __enter__(self) -> Self:
        self._server.start()
        host, self.port = self._server.get_host_and_port()
        self.url = f"http://{host}:{self.port}"
        client: Any = boto3.client(
            "s3", endpoint_url=self.url, region_name=REGION, aws_access_key_id="test", aws_secret_access_key=SECRET
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stop()


class Door:
    """Passes requests on to an S3 server; ``fault`` says which of them, by method and path, go wrong, and how.

    ``slow``: right, but late.
    ``fail``: 500 and nothing done. ``lose``: done, but answered with 500. ``truncate``: the connection ends amid the body.
    ``stall``: no answer until the door closes. ``stranger``: somebody else's 404.
    """

    def __init__(self, port: int) -> None:
        self.fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
        self.seen: list[str] = []
        self.closing = threading.Event()
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                door.seen.append(f"{self.command} {self.path}")
                fault = door.fault(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if fault in ("stall", "slow"):
                    door.closing.wait(20 if fault == "stall" else SLOW)
                status, headers, answer = (500, {}, b"") if fault == "fail" else ask(port, self, body)
                if fault == "lose":
                    status, headers, answer = 500, {}, b""
                if fault == "stranger":
                    status, headers, answer = 404, {}, b"<html>no such page</html>"
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(answer)))
                with suppress(ConnectionError):  # nobody waits any more
                    self.end_headers()
                    self.wfile.write(answer[: len(answer) // 2] if fault == "truncate" else answer)
                self.close_connection = fault is not None

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="door")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def ask(port: int, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """The S3 server's answer to a request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {name: request.headers[name] for name in PASSED if name in request.headers}
        connection.request(request.command, request.path, body, headers)
        answer = connection.getresponse()
        dropped = ("transfer-encoding", "connection", "date", "server")
        return answer.status, {k: v for k, v in answer.getheaders() if k.lower() not in dropped}, answer.read()
    finally:
        connection.close()


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.monotonic()
    call()
    return time.monotonic() - start
