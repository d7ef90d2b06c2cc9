"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import Request


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, for the audit log; the prefix that all names of its adapters have; what makes a canary sticky."""

    who: str = "anonymous"
    prefix: str = ""
    routing_key: str | None = None

    def check(self, *selectors: str) -> None:
        """Raise :class:`AdapterNotFound` for the first selector of an adapter outside the prefix."""


def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """The caller, for the framework's handlers."""
    return Caller(routing_key=request.headers.get("x-routing-key"))
