"""What the registry knows of adapters, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from service.store.alias import Alias

READY, QUARANTINED, DELETED = "ready", "quarantined", "deleted"


@dataclass(frozen=True, slots=True)
class Version:
    """What requests need to know of a version, and no more, since there may be tens of thousands.

    ``task`` is None where the manifest cannot be read; whoever asks for that version is told why.
    """

    task: str | None = None
    state: str = READY
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is known of one adapter; immutable, so that a reader never sees half a change. ``changed`` is the clock then."""

    name: str
    versions: Mapping[int, Version] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, Alias] = field(default_factory=lambda: MappingProxyType({}))
    deleted: frozenset[int] = frozenset()
    newest: int = 0
    changed: int = 0

    @property
    def task(self) -> str | None:
        """The task that every version of it answers."""
        return next((version.task for version in self.versions.values() if version.task), None)

    def find(self, digest: str) -> int | None:
        """The version that has this digest, if there is one."""
        return next((number for number, version in self.versions.items() if version.digest == digest), None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit log."""

    id: int
    at: datetime
    who: str
    action: str
    name: str
    version: int | None
    alias: str | None
    detail: str | None
