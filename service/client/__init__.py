"""A typed client of a Quickchange server: :class:`Client`, and :class:`AsyncClient` with the same methods to be awaited."""

from service.client.async_client import AsyncClient
from service.client.client import Client
from service.client.failures import ServerError

__all__ = ["AsyncClient", "Client", "ServerError"]
