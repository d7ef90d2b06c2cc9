"""What both clients do alike: the options of their connections, and from an outcome to an answer or an error."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import httpx

from service.client.call import Call
from service.client.failures import refusal, unreachable
from service.client.retries import Outcome, Retries
from service.errors import InvalidInput

LOCAL = "http://127.0.0.1:8000"


def options(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """Keyword arguments of httpx's clients; raises :class:`InvalidInput` for what is no address or no key."""
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InvalidInput("the API key has characters that no key has; expected one line of letters, digits, '-' and '_'")
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise InvalidInput(f"{url!r} is not the address of a server; expected one like {LOCAL}")
    return {"base_url": address, "headers": {"authorization": f"Bearer {key}"} if key else {}, "timeout": timeout}


def dress(method: Callable[..., Any], build: Callable[..., Call[Any]]) -> None:
    """Give a client's method the name, the help and the signature of the call that it makes."""
    signature = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[own, *signature.parameters.values()], return_annotation=inspect.Signature.empty
    )


def request(call: Call[Any]) -> dict[str, Any]:
    """Keyword arguments of httpx's ``request``."""
    content = {"json": call.json} if call.json is not None else {"files": call.files, "data": call.form}
    return {"method": call.method, "url": call.path, "params": call.query, "headers": call.headers, **content}


def retries(call: Call[Any], patience: float) -> Retries:
    """The attempts that a call may have."""
    return Retries(patience if call.patient else 0, repeatable=call.repeatable)


def settle(outcome: Outcome, url: str) -> httpx.Response:
    """The answer, if it is a success; raises :class:`ServerError` otherwise."""
    if not isinstance(outcome, httpx.Response):
        raise unreachable(url) from None
    if not outcome.is_success:
        raise refusal(outcome)
    return outcome
