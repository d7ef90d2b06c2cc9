"""The database brought in line with the files, and the files with it."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from service.errors import AdapterIncompatible, AdapterNotFound
from service.store.alias import Target
from service.store.bundle import Bundle, Manifest
from service.store.change import Change, Found
from service.store.entries import Adapter
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
    """Register the complete versions of an adapter that the database does not know, and remove the files of deleted ones."""
    adapter, name = change.adapter(), change.name
    store.sweep(name)
    for version in _kept(store, name):
        if version in adapter.deleted:
            store.delete(Ref(name, version))
        elif version not in adapter.versions:
            change.add(version, _said(store, Ref(name, version)))


def find(store: Store, name: str) -> Found:
    """All that the files say of an adapter; what they say of its aliases, if that is damaged, is lost."""
    versions = {version: _said(store, Ref(name, version)) for version in _kept(store, name)}
    try:
        state = store.state(name)
        deleted = frozenset(int(version) for version in state.get("deleted", ())) - set(versions)
        aliases = {alias: _target(kept) for alias, kept in state.get("aliases", {}).items()}
    except (AdapterIncompatible, ValueError, TypeError, KeyError, AttributeError):
        log.error("the aliases of adapter %s are lost: the copy in the store is damaged", name)
        deleted, aliases = frozenset(), {}
    aliases = {alias: target for alias, target in aliases.items() if target.versions <= set(versions)}
    return Found(name, versions, deleted, aliases)


def copy_of(adapter: Adapter) -> dict[str, Any]:
    """What is kept in the store beside the files, from which a lost database can be made anew."""
    aliases = {alias: _plain(at.target) for alias, at in sorted(adapter.aliases.items())}
    return {"aliases": aliases, "deleted": sorted(adapter.deleted)}


def kept_copy(store: Store, name: str) -> dict[str, Any]:
    """That copy as it is; one that is damaged says nothing."""
    try:
        return copy_of(Adapter(name)) | store.state(name)
    except AdapterIncompatible:
        return copy_of(Adapter(name))


def _kept(store: Store, name: str) -> list[int]:
    try:
        return store.versions(name)
    except AdapterNotFound:
        return []  # all that there was has just been swept away


def _said(store: Store, ref: Ref) -> Manifest | str:
    try:
        return store.manifest(ref)
    except AdapterIncompatible as error:
        log.error("adapter version %s is damaged: %s", ref, error)
        return str(error)


def _target(kept: Any) -> Target:
    return Target.at(kept) if isinstance(kept, int) else Target.of(kept)


def _plain(target: Target) -> Any:
    return target.version if target == Target.at(target.version) else target.stored
