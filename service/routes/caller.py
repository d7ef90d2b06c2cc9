"""Who asks: what the guard found out about a request's sender, for its handler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from litestar import Request

from service.store.selector import not_found, split_selector

CALLER = "quickchange.caller"  # where a scope has its caller, once the guard has let it in


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, for the audit log; the prefix that all names of its adapters have; what makes a canary sticky.

    ``who`` is ``owner/id`` of the API key, or ``anonymous`` where none was asked for.
    """

    who: str = "anonymous"
    prefix: str = ""
    routing_key: str | None = None

    def sees(self, name: str) -> bool:
        """Whether an adapter of this name, or the one that a selector of it selects, may exist for the caller."""
        return name.startswith(self.prefix)

    def check(self, *selectors: str) -> None:
        """Raise :class:`AdapterNotFound` for the first selector of an adapter outside the prefix, as if there were none."""
        for selector in selectors:
            if not self.sees(selector):
                raise not_found(split_selector(selector)[0])


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """The caller that the guard let in."""
    return cast("Caller", scope[CALLER])


def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """:func:`caller_of` for the framework's handlers."""
    return caller_of(cast("Mapping[str, Any]", request.scope))
