"""Runs the application: the socket first, then the models, then uvicorn; SIGTERM drains and exits 0."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn
import uvloop

from service.app import Application, create_app
from service.connection import Connection
from service.errors import StartupError
from service.settings import Settings


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, which would end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to :func:`serve`."""
        yield


def serve(settings: Settings, announce: Callable[[Application, str], None]) -> None:
    """Load everything, call ``announce`` with the application and its address, and serve until SIGTERM or SIGINT.

    Raises :class:`StartupError` when the port is taken or something cannot be loaded.
    """
    listening = _listen(settings)
    with listening:
        application = create_app(settings)
        # What is loaded stays; the collector need not look through it again, for which it would stop everything.
        gc.collect()
        gc.freeze()
        announce(application, f"http://{_shown(settings.host)}:{listening.getsockname()[1]}")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings, application, listening))


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError:
        raise StartupError(
            f"cannot listen on {_shown(settings.host)}:{settings.port}: the port is taken or the address is not this machine's; "
            "set QUICKCHANGE_PORT or QUICKCHANGE_HOST"
        ) from None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _run(settings: Settings, application: Application, listening: socket.socket) -> None:
    config = uvicorn.Config(
        application.asgi,
        lifespan="on",
        http=Connection,
        ws="none",
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing asks for a client's address
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
    )
    server = _Server(config)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    async def drain() -> None:
        await stopping.wait()
        application.services.lifetime.draining = True
        if application.services.training is not None:
            application.services.training.leave()
        await application.asgi.idle(settings.drain_timeout)
        server.should_exit = True

    draining = asyncio.create_task(drain())
    await server.serve(sockets=[listening])
    draining.cancel()
