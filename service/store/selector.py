"""How clients name adapters: ``name``, ``name@alias`` or ``name:version``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.errors import AdapterNotFound, InvalidInput

LIVE = "live"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
NAME_RULE = "lower-case letters, digits, '.', '_' and '-', at most 64, the first a letter or digit"


@dataclass(frozen=True, slots=True)
class Ref:
    """One immutable adapter version."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


def check_name(value: str, what: str = "adapter name") -> str:
    """The value, when it may name an adapter or alias; raises :class:`InvalidInput` otherwise."""
    if not NAME.fullmatch(value):
        raise InvalidInput(f"{what} {value[:80]!r} is not valid; accepted: {NAME_RULE}")
    return value


def not_found(name: str, others: str = "") -> AdapterNotFound:
    """The error for a name that no adapter has, or none that the caller may know of."""
    return AdapterNotFound(f"no adapter named {name[:80]!r}", others)


def split_selector(selector: str) -> tuple[str, str | None, str | None]:
    """Name, alias and version of a selector as written; one of the last two is None, and a bare name means ``live``."""
    for sign in ":@":
        name, found, rest = selector.partition(sign)
        if found:
            return (name, None, rest) if sign == ":" else (name, rest, None)
    return selector, LIVE, None
