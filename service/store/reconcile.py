"""The database brought in line with the files, and the files with it."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from service.errors import AdapterIncompatible, AdapterNotFound
from service.store.alias import Target
from service.store.bundle import Bundle, Manifest
from service.store.records import Adapter, Change
from service.store.selector import Ref

log = logging.getLogger(__name__)


class Store(Protocol):
    """Where the files of adapter versions are kept, and a copy of what else is known of each adapter."""

    def names(self) -> list[str]: ...
    def versions(self, name: str) -> list[int]: ...
    def manifest(self, ref: Ref) -> Manifest: ...
    def read(self, ref: Ref) -> Bundle: ...
    def publish(self, ref: Ref, bundle: Bundle) -> None: ...
    def delete(self, ref: Ref) -> None: ...
    def state(self, name: str) -> dict[str, Any]: ...
    def save_state(self, name: str, state: dict[str, Any]) -> None: ...
    def look(self, name: str) -> tuple[list[int], bool]: ...
    def sweep(self, name: str) -> None: ...
    def check(self) -> None: ...


def reconcile(store: Store, change: Change) -> None:
    """Register the complete versions of an adapter that the database does not know, and remove the files of deleted ones.

    An adapter that it does not know at all gets the aliases, and keeps the deleted numbers, of the store's copy.
    """
    adapter, name = change.adapter(), change.name
    store.sweep(name)
    for version in _kept(store, name):
        if version in adapter.deleted:
            store.delete(Ref(name, version))
        elif version not in adapter.versions:
            _adopt(store, change, version)
    if not adapter.changed:
        _take_over(store, change)


def copy_of(adapter: Adapter) -> dict[str, Any]:
    """What the store keeps of an adapter beside its versions."""
    aliases = {alias: _plain(at.target) for alias, at in sorted(adapter.aliases.items())}
    return {"aliases": aliases, "deleted": sorted(adapter.deleted)}


def copied(store: Store, name: str) -> dict[str, Any]:
    """What the store has kept of an adapter; a copy that is damaged says nothing. Raises :class:`Unavailable`."""
    nothing = copy_of(Adapter(name))
    try:
        return nothing | store.state(name)
    except AdapterIncompatible:
        return nothing


def _kept(store: Store, name: str) -> list[int]:
    try:
        return store.versions(name)
    except AdapterNotFound:
        return []  # all that there was has just been swept away


def _adopt(store: Store, change: Change, version: int) -> None:
    try:
        change.add(version, store.manifest(Ref(change.name, version)))
    except AdapterIncompatible as error:
        log.error("adapter version %s is damaged: %s", Ref(change.name, version), error)
        change.add(version, None, str(error))


def _take_over(store: Store, change: Change) -> None:
    try:
        state = store.state(change.name)
        deleted = [int(version) for version in state.get("deleted", ())]
        aliases = {alias: _target(kept) for alias, kept in state.get("aliases", {}).items()}
    except (AdapterIncompatible, ValueError, TypeError, KeyError, AttributeError):
        log.error("the aliases of adapter %s are lost: the copy in the store is damaged", change.name)
        return
    known = set(change.adapter().versions)
    for version in sorted(set(deleted) - known):
        change.add_deleted(version)
    for alias, target in aliases.items():
        if target.versions <= known:
            change.point(alias, target)


def _target(kept: Any) -> Target:
    return Target.at(kept) if isinstance(kept, int) else Target.of(kept)


def _plain(target: Target) -> Any:
    return target.version if target == Target.at(target.version) else target.stored
