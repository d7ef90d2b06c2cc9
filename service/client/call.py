"""One HTTP request as a value, and the readings that an answer can be given."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from service.client.failures import ServerError, bad_answer

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP request, and how to read its answer.

    ``repeatable`` is whether doing it twice leaves what doing it once does, ``patient`` whether it may be made again
    when the server is busy.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str | Sequence[str]] | None = None
    files: Sequence[tuple[str, tuple[str, bytes]]] | None = None
    repeatable: bool = True
    patient: bool = True


def reading(model: type[M]) -> Callable[[httpx.Response], M]:
    """How to read an answer that is one of ``model``; raises :class:`ServerError` when it is none."""

    def read(response: httpx.Response) -> M:
        try:
            return model.model_validate_json(response.content)
        except ValidationError:
            raise bad_answer(response) from None

    return read


def nothing(_: httpx.Response) -> None:
    """Read nothing: that the answer is a success says it all."""
    return


def digested(response: httpx.Response) -> bytes:
    """The body, whose ``Repr-Digest`` (RFC 9530) must be there and be right; raises :class:`ServerError` otherwise."""
    digest = base64.b64encode(hashlib.sha256(response.content).digest()).decode()
    if response.headers.get("repr-digest") != f"sha-256=:{digest}:":
        raise ServerError(f"{response.request.url.path} did not arrive whole: its sha256 is not the one announced")
    return response.content
