"""Each test of what the clients do is run with both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.client import AsyncClient, Client
from tests.support.contract import ContractServer

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call a client's method by name: ``ask(url, method, …)``; of an iterator, the list."""

    def now(url: str, method: str, *args: Any, key: str | None = None, **kwargs: Any) -> Any:
        with Client(url, key) as client:
            found = getattr(client, method)(*args, **kwargs)
            return list(found) if isinstance(found, Iterator) else found

    async def later(url: str, method: str, *args: Any, key: str | None = None, **kwargs: Any) -> Any:
        async with AsyncClient(url, key) as client:
            found = getattr(client, method)(*args, **kwargs)
            return [one async for one in found] if hasattr(found, "__aiter__") else await found

    return now if request.param == "sync" else lambda *args, **kwargs: asyncio.run(later(*args, **kwargs))


@pytest.fixture
def contract() -> Iterator[ContractServer]:
    """A server with an adapter of two versions and no alias."""
    with ContractServer() as running:
        running.adapters["irony"] = [1, 2]
        yield running
