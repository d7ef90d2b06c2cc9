"""Which adapters exist, which versions they have, and where their aliases point."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

from service.errors import AdapterDeleted, AdapterNotFound, InvalidInput, QuickchangeError, VersionConflict
from service.store.bundle import Bundle, Manifest
from service.store.selector import LIVE, VERSION, Ref, split_selector

log = logging.getLogger(__name__)
SHOWN = 20  # names listed in an error


class Store(Protocol):
    """Where adapter versions are kept, and a small document about each adapter."""

    def names(self) -> list[str]: ...
    def versions(self, name: str) -> list[int]: ...
    def manifest(self, ref: Ref) -> Manifest: ...
    def read(self, ref: Ref) -> Bundle: ...
    def publish(self, ref: Ref, bundle: Bundle) -> None: ...
    def delete(self, ref: Ref) -> None: ...
    def state(self, name: str) -> dict[str, Any]: ...
    def save_state(self, name: str, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is known of one adapter; immutable, so that a reader never sees half a change."""

    name: str
    versions: Mapping[int, Manifest] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    deleted: frozenset[int] = frozenset()

    @property
    def task(self) -> str | None:
        """The task that every version of it answers."""
        return next((manifest.task for manifest in self.versions.values()), None)

    @property
    def next_version(self) -> int:
        """One more than the highest number ever used."""
        return 1 + max((*self.versions, *self.deleted), default=0)


class Registry:
    """The adapters of a store, indexed in memory: reading takes no lock and no disk, changes are written through."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._adapters: dict[str, Adapter] = {}
        for name in store.names():
            adapter = self._scan(name)
            if adapter.versions or adapter.deleted:
                self._adapters[name] = adapter

    def _scan(self, name: str) -> Adapter:
        versions = {}
        for version in self.store.versions(name):
            try:
                versions[version] = self.store.manifest(Ref(name, version))
            except QuickchangeError as error:
                log.error("adapter version %s is left out: %s", Ref(name, version), error)
        state = self.store.state(name)
        aliases = {alias: version for alias, version in state.get("aliases", {}).items() if version in versions}
        return Adapter(name, versions, aliases, frozenset(state.get("deleted", ())))

    def adapters(self) -> list[Adapter]:
        """Every adapter, by name."""
        return [adapter for _, adapter in sorted(self._adapters.items())]

    def get(self, name: str) -> Adapter:
        """One adapter; raises :class:`AdapterNotFound`, saying which are live."""
        adapter = self._adapters.get(name)
        if adapter is None:
            raise AdapterNotFound(f"no adapter named {name[:80]!r}; live: {self._live()}")
        return adapter

    def resolve(self, selector: str) -> Ref:
        """The version that ``name``, ``name@alias`` or ``name:version`` means now.

        Raises :class:`AdapterNotFound` or, for a version that was deleted, :class:`AdapterDeleted`.
        """
        name, alias, version = split_selector(selector)
        adapter = self.get(name)
        if version is not None:
            if not VERSION.fullmatch(version):
                raise AdapterNotFound(f"adapter {name!r} has no version {version[:80]!r}; it has {_listed(adapter.versions)}")
            return self.version(name, int(version))
        if alias not in adapter.aliases:
            raise AdapterNotFound(f"adapter {name!r} has no alias {str(alias)[:80]!r}; it has {_listed(adapter.aliases)}")
        return self.version(name, adapter.aliases[str(alias)])

    def version(self, name: str, version: int) -> Ref:
        """An existing version by its number; raises as :meth:`resolve` does."""
        self._existing(self.get(name), version)
        return Ref(name, version)

    def find(self, name: str, digest: str) -> Ref | None:
        """The version of an adapter that has this digest, if there is one."""
        adapter = self._adapters.get(name, Adapter(name))
        return next((Ref(name, version) for version, manifest in adapter.versions.items() if manifest.digest == digest), None)

    def resolve_for(self, task: str, selector: str) -> Ref:
        """As :meth:`resolve`; raises :class:`InvalidInput` for an adapter that answers another task."""
        ref = self.resolve(selector)
        answers = self.get(ref.name).task
        if answers != task:
            raise InvalidInput(f"adapter {ref.name!r} answers {answers}, not {task}")
        return ref

    def check_task(self, name: str, task: str) -> None:
        """Raise :class:`VersionConflict` when the versions of an adapter answer another task."""
        answers = self._adapters.get(name, Adapter(name)).task
        if answers not in (None, task):
            raise VersionConflict(f"adapter {name!r} answers {answers}; this version answers {task}: use another name")

    def publish(self, name: str, bundle: Bundle) -> Ref:
        """Store a bundle as the next version; raises :class:`VersionConflict` for another task than its siblings'."""
        with self._lock:
            adapter = self._adapters.get(name, Adapter(name))
            self.check_task(name, bundle.manifest.task)
            ref = Ref(name, adapter.next_version)
            self.store.publish(ref, bundle)
            self._adapters[name] = replace(adapter, versions={**adapter.versions, ref.version: bundle.manifest})
            return ref

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at an existing version."""
        with self._lock:
            adapter = self.get(name)
            self._existing(adapter, version)
            self._save(replace(adapter, aliases={**adapter.aliases, alias: version}))

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away; raises :class:`AdapterNotFound` when the adapter does not have it."""
        with self._lock:
            adapter = self.get(name)
            if alias not in adapter.aliases:
                raise AdapterNotFound(f"adapter {name!r} has no alias {alias[:80]!r}; it has {_listed(adapter.aliases)}")
            kept = {other: version for other, version in adapter.aliases.items() if other != alias}
            self._save(replace(adapter, aliases=kept))

    def delete(self, ref: Ref) -> None:
        """Delete a version; raises :class:`VersionConflict` while an alias points at it."""
        with self._lock:
            adapter = self.get(ref.name)
            self._existing(adapter, ref.version)
            pointing = sorted(alias for alias, version in adapter.aliases.items() if version == ref.version)
            if pointing:
                raise VersionConflict(
                    f"alias {', '.join(pointing)} of adapter {ref.name!r} points at version {ref.version}; move it first"
                )
            kept = {version: manifest for version, manifest in adapter.versions.items() if version != ref.version}
            self._save(replace(adapter, versions=kept, deleted=adapter.deleted | {ref.version}))
            self.store.delete(ref)

    def _existing(self, adapter: Adapter, version: int) -> None:
        if version in adapter.deleted:
            raise AdapterDeleted(f"version {version} of adapter {adapter.name!r} was deleted; it has {_listed(adapter.versions)}")
        if version not in adapter.versions:
            raise AdapterNotFound(f"adapter {adapter.name!r} has no version {version}; it has {_listed(adapter.versions)}")

    def _save(self, adapter: Adapter) -> None:
        self.store.save_state(adapter.name, {"aliases": dict(adapter.aliases), "deleted": sorted(adapter.deleted)})
        self._adapters[adapter.name] = adapter

    def _live(self) -> str:
        return _listed([name for name, adapter in sorted(self._adapters.items()) if LIVE in adapter.aliases])


def _listed(names: Any) -> str:
    shown = [str(name) for name in list(names)[:SHOWN]]
    more = len(list(names)) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")
