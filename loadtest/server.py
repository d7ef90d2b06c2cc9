"""A server in a process of its own, on a free port, for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

LONGEST_START = 120.0
LONGEST_STOP = 40.0
QUICKCHANGE = Path(sys.executable).with_name("quickchange")


class ServerFailed(Exception):
    """The server ended or did not get ready; the text has the last line that it printed."""


class ServerProcess:
    """``quickchange serve`` on the adapters in ``adapters``, with its output in ``log``; further settings by keyword.

    Entering the block waits until it is ready, ``seconds_to_ready`` after its start; leaving it sends SIGTERM.
    """

    def __init__(self, adapters: Path, log: Path, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.seconds_to_ready = 0.0
        self.exit_code: int | None = None
        given = {"host": "127.0.0.1", "port": self.port, "adapters_dir": adapters, "max_training_jobs": 0, **settings}
        self._environment = {"HF_HUB_OFFLINE": "1", **os.environ}
        self._environment |= {f"QUICKCHANGE_{name.upper()}": str(value) for name, value in given.items()}
        self._log = log

    def __enter__(self) -> Self:
        started = time.monotonic()
        with self._log.open("wb") as out:
            self._process = subprocess.Popen([QUICKCHANGE, "serve"], env=self._environment, stdout=out, stderr=out)  # noqa: S603  # our own command
        try:
            self._wait(started + LONGEST_START)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self.seconds_to_ready = time.monotonic() - started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self._process.wait(LONGEST_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_code = self._process.wait()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def _wait(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerFailed(f"the server ended with code {self._process.returncode}: {self._last_line()}")
            try:
                # The socket listens before the models are loaded, so one call usually waits for the whole rest.
                if httpx.get(f"{self.url}/health/ready", timeout=LONGEST_START).is_success:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet, or ends, which the next turn says
            time.sleep(0.02)
        raise ServerFailed(f"the server was not ready within {LONGEST_START:g} s: {self._last_line()}")

    def _last_line(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port
