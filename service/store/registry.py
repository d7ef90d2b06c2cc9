"""Which adapters exist, which versions they have, and where their aliases point."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, Protocol

from service.errors import AdapterDeleted, AdapterIncompatible, AdapterNotFound, InvalidInput, QuickchangeError, VersionConflict
from service.store.bundle import Bundle, Manifest
from service.store.selector import LIVE, VERSION, Ref, not_found, split_selector

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
class Version:
    """What is kept of a version's manifest: as little as requests need, since there may be tens of thousands.

    Both are None for a manifest that cannot be parsed; whoever asks for that version is told why.
    """

    task: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is known of one adapter; immutable, so that a reader never sees half a change."""

    name: str
    versions: Mapping[int, Version] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    deleted: frozenset[int] = frozenset()

    @property
    def task(self) -> str | None:
        """The task that every version of it answers."""
        return next((version.task for version in self.versions.values() if version.task), None)

    @property
    def next_version(self) -> int:
        """One more than the highest number ever used."""
        return 1 + max((*self.versions, *self.deleted), default=0)


class Registry:
    """The adapters of a store, indexed in memory; changes are written through.

    An adapter's folder is read when it is first asked for. From then on a reader takes no lock and touches no disk.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._changing, self._scanning = threading.Lock(), threading.Lock()
        self._names = store.names()
        self._unscanned = set(self._names)
        self._adapters: dict[str, Adapter] = {}

    def __len__(self) -> int:
        """How many adapters there are, those included whose folders nobody has looked into yet."""
        return len(self._adapters) + len(self._unscanned)

    def __iter__(self) -> Iterator[Adapter]:
        """Every adapter, by name, each read when its turn comes; one that cannot be read is left out."""
        for name in self._names:
            try:
                adapter = self._find(name)
            except QuickchangeError as error:
                log.error("adapter %s is left out: %s", name, error)  # a traceback says no more
            else:
                if adapter is not None:
                    yield adapter

    def adapters(self) -> list[Adapter]:
        """Every adapter, by name."""
        return list(self)

    def get(self, name: str) -> Adapter:
        """One adapter; raises :class:`AdapterNotFound`, saying which are live."""
        adapter = self._find(name)
        if adapter is None:
            raise not_found(name, f"live: {self._live()}")
        return adapter

    def manifests(self, adapter: Adapter) -> dict[int, Manifest]:
        """The manifests of an adapter's versions, in order, from the store; one that cannot be read is left out."""
        found = {}
        for number in sorted(adapter.versions):
            with suppress(QuickchangeError):
                found[number] = self.store.manifest(Ref(adapter.name, number))
        return found

    def _find(self, name: str) -> Adapter | None:
        if name in self._unscanned:  # asked first: a name leaves this set after its adapter has been indexed
            self._scan(name)
        return self._adapters.get(name)

    def _scan(self, name: str) -> None:
        with self._scanning:
            if name not in self._unscanned:
                return
            adapter = self._read(name)
            if adapter.versions or adapter.deleted:
                self._adapters[name] = adapter
            self._unscanned.discard(name)

    def _read(self, name: str) -> Adapter:
        versions = {}
        for number in self.store.versions(name):
            try:
                versions[number] = _kept(self.store.manifest(Ref(name, number)))
            except AdapterIncompatible as error:
                log.error("adapter version %s is damaged: %s", Ref(name, number), error)
                versions[number] = Version()
        state = self.store.state(name)
        aliases = {alias: number for alias, number in state.get("aliases", {}).items() if number in versions}
        return Adapter(name, versions, aliases, frozenset(state.get("deleted", ())))

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
        adapter = self._find(name) or Adapter(name)
        return next((Ref(name, number) for number, version in adapter.versions.items() if version.digest == digest), None)

    def resolve_for(self, task: str, selector: str) -> Ref:
        """As :meth:`resolve`; raises :class:`InvalidInput` for an adapter that answers another task."""
        ref = self.resolve(selector)
        answers = self.get(ref.name).task
        if answers != task:
            raise InvalidInput(f"adapter {ref.name!r} answers {answers}, not {task}")
        return ref

    def check_task(self, name: str, task: str) -> None:
        """Raise :class:`VersionConflict` when the versions of an adapter answer another task."""
        answers = (self._find(name) or Adapter(name)).task
        if answers not in (None, task):
            raise VersionConflict(f"adapter {name!r} answers {answers}; this version answers {task}: use another name")

    def publish(self, name: str, bundle: Bundle) -> Ref:
        """Store a bundle as the next version; raises :class:`VersionConflict` for another task than its siblings'."""
        with self._changing:
            known = self._find(name)
            adapter = known or Adapter(name)
            self.check_task(name, bundle.manifest.task)
            ref = Ref(name, adapter.next_version)
            self.store.publish(ref, bundle)
            self._adapters[name] = replace(adapter, versions={**adapter.versions, ref.version: _kept(bundle.manifest)})
            if known is None:
                self._names = sorted([*self._names, name])
            return ref

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at an existing version."""
        with self._changing:
            adapter = self.get(name)
            self._existing(adapter, version)
            self._save(replace(adapter, aliases={**adapter.aliases, alias: version}))

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away; raises :class:`AdapterNotFound` when the adapter does not have it."""
        with self._changing:
            adapter = self.get(name)
            if alias not in adapter.aliases:
                raise AdapterNotFound(f"adapter {name!r} has no alias {alias[:80]!r}; it has {_listed(adapter.aliases)}")
            kept = {other: version for other, version in adapter.aliases.items() if other != alias}
            self._save(replace(adapter, aliases=kept))

    def delete(self, ref: Ref) -> None:
        """Delete a version; raises :class:`VersionConflict` while an alias points at it."""
        with self._changing:
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
        """The live ones among the first names: the others may not have been read yet."""
        first = list(islice(self, SHOWN))
        live, more = _listed([adapter.name for adapter in first if LIVE in adapter.aliases]), len(self) - len(first)
        return live + (f" and up to {more} more" if more > 0 else "")


def _kept(manifest: Manifest) -> Version:
    return Version(sys.intern(manifest.task), manifest.digest)


def _listed(names: Any) -> str:
    shown = [str(name) for name in list(names)[:SHOWN]]
    more = len(list(names)) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")
