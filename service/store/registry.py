"""Which adapters exist, which versions they have, and where their aliases point."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from service.errors import (
    AdapterIncompatible,
    AdapterNotFound,
    PreconditionFailed,
    QuickchangeError,
    StartupError,
    StoreFull,
    Unavailable,
    VersionConflict,
)
from service.store.alias import Alias, Target, check_requirements, check_target
from service.store.bundle import Bundle, Manifest
from service.store.database import Database
from service.store.index import Index, check_existing, check_task, listed
from service.store.location import open_files
from service.store.reconcile import Store, copied, copy_of, reconcile
from service.store.records import AT_ONCE, DELETED, QUARANTINED, READY, ROLLED_BACK, Adapter, Change, Records
from service.store.selector import Ref, not_found

log = logging.getLogger(__name__)
STALE = "the copy of {}'s aliases in the store is out of date"
LOCAL = "local"  # who changes something on the command line, or at a server that knows no keys


class Registry(Index):
    """The adapters in a database and their files in a store, with an index in memory that requests read.

    Every change is one transaction, which all servers on the database make one after another.
    """

    def __init__(self, store: Store, records: Records) -> None:
        super().__init__()
        self.store, self.records = store, records
        self._clock = 0
        self._mirroring = threading.Lock()
        self.refresh()
        self.adopt(sorted(set(store.names()) - set(self._adapters)))

    @classmethod
    def open(cls, folder: Path, database: str | None = None, files: str | None = None) -> Self:
        """The registry of the adapters in a folder, or with its database and files at these addresses.

        Raises :class:`StartupError` for an address that is none, or where nothing answers.
        """
        store = open_files(files, folder)
        try:
            return cls(store, Records(Database(database, folder)))
        except Unavailable as error:
            raise StartupError(f"QUICKCHANGE_STORE_URL={files or folder}: {error}") from None

    def close(self) -> None:
        """Give the database's connections back; requests go on being resolved."""
        self.records.database.close()

    def manifests(self, adapter: Adapter) -> dict[int, Manifest]:
        """The manifests of an adapter's versions, in order; one that cannot be read is left out."""
        return self.records.manifests([adapter.name]).get(adapter.name, {})

    def read(self, ref: Ref) -> Bundle:
        """A version's files, whole and those that were published.

        Raises :class:`AdapterIncompatible` for one that is damaged, which is quarantined until it can be read again, and
        :class:`AdapterNotFound` or :class:`Unavailable` as the store does.
        """
        registered = self.entry(ref.name).versions.get(ref.version)
        try:
            bundle = self.store.read(ref)
            if registered is not None and registered.digest not in (None, bundle.manifest.digest):
                raise AdapterIncompatible([f"the files of {ref} are not those that were published"])
        except AdapterNotFound:
            if registered is None or ref.version not in self.get(ref.name).versions:
                raise
            gone = AdapterIncompatible([f"the files of {ref} are not in the store"])
            self._mark(ref, QUARANTINED, str(gone))
            raise gone from None
        except AdapterIncompatible as error:
            self._mark(ref, QUARANTINED, str(error))
            raise
        if registered is not None and registered.state == QUARANTINED:
            self._mark(ref, READY, manifest=bundle.manifest)
        return bundle

    def publish(self, name: str, bundle: Bundle, who: str = LOCAL) -> tuple[Ref, bool]:
        """Store a bundle as the next version, and say whether it is new: the same files again are the same version.

        For one that is quarantined they take the place of the damaged ones. Raises :class:`VersionConflict` for another task
        than its siblings', :class:`StoreFull` and :class:`Unavailable`.
        """
        written: Ref | None = None
        try:
            with self.records.change(who) as changes:
                change = changes(name)
                adapter = change.adapter()
                known = adapter.find(bundle.manifest.digest)
                ref = Ref(name, known or adapter.newest + 1)
                if known is None:
                    check_task(adapter, bundle.manifest.task)
                    change.add(ref.version, bundle.manifest)
                elif adapter.versions[known].state == QUARANTINED:
                    change.mark(known, READY)
                else:
                    return ref, False
                # The files come before the commit: what the registry names is there. Files without a registered version
                # are in nobody's way, and those of an interrupted change are replaced by the next.
                self.store.publish(ref, bundle)
                written, changed = ref, change.adapter()
        except (StoreFull, Unavailable):
            if written is not None:
                self._take_back(written)
            raise
        self.put(changed)
        return ref, known is None

    def set_alias(
        self,
        name: str,
        alias: str,
        target: Target,
        *,
        require: Mapping[str, str] | None = None,
        expected: int | None = None,
        who: str = LOCAL,
    ) -> Alias:
        """Point an alias at existing versions; what it requires of their metrics stays unless ``require`` is given.

        ``expected`` is the generation that the caller has seen, 0 for no alias. Raises :class:`PreconditionFailed` when it
        is at another one, :class:`InvalidInput`, :class:`RequirementNotMet`, and as :meth:`version` does.
        """
        with self._moving(name, alias, expected, who) as (change, adapter, present):
            kept = present.target.require if present is not None else {}
            target = replace(target, require=kept if require is None else require)
            check_target(target)
            for version in target.versions:
                check_existing(adapter, version)
            if target.require:
                check_requirements(target, change.manifests(), adapter.aliases)
            change.point(alias, target, before=present.generation if present else None)
        return self._adapters[name].aliases[alias]

    def roll_back(self, name: str, alias: str, *, expected: int | None = None, who: str = LOCAL) -> Alias:
        """Point an alias where it pointed before its last move; again, and it goes back one step more.

        Raises :class:`VersionConflict` when there is nothing to go back to, and :class:`PreconditionFailed`.
        """
        with self._moving(name, alias, expected, who) as (change, adapter, _):
            earlier = change.before(alias, self.alias(adapter, alias).generation)
            if earlier is None:
                raise VersionConflict(f"alias {alias} of adapter {name!r} has not pointed anywhere else before")
            before, target = earlier
            lost = sorted(target.versions - set(adapter.versions))
            if lost:
                raise VersionConflict(
                    f"alias {alias} of adapter {name!r} pointed at version {listed(lost)} before, which was deleted"
                )
            change.point(alias, target, ROLLED_BACK, before)
        return self._adapters[name].aliases[alias]

    def remove_alias(self, name: str, alias: str, who: str = LOCAL) -> None:
        """Take an alias away; raises :class:`AdapterNotFound` when the adapter does not have it."""
        with self._moving(name, alias, None, who) as (change, adapter, _):
            self.alias(adapter, alias)
            change.remove(alias)

    def delete(self, ref: Ref, who: str = LOCAL) -> None:
        """Delete a version; raises :class:`VersionConflict` while an alias points at it."""
        with self.records.change(who) as changes:
            change = changes(ref.name)
            adapter = change.adapter()
            check_existing(adapter, ref.version)
            pointing = sorted(name for name, alias in adapter.aliases.items() if ref.version in alias.target.versions)
            if pointing:
                raise VersionConflict(
                    f"alias {', '.join(pointing)} of adapter {ref.name!r} points at version {ref.version}; move it first"
                )
            change.mark(ref.version, DELETED)
            changed = change.adapter()
        self.put(changed)
        self._mirror(changed.name)
        with _only_logged(f"the files of {ref} stay until they are collected"):
            self.store.delete(ref)

    def refresh(self) -> None:
        """Take over what other servers have changed; raises :class:`Unavailable` when the database does not answer."""
        now, changed = self.records.load(self._clock)
        for adapter in changed:
            self.put(adapter)
        self._clock = now

    def adopt(self, names: Sequence[str]) -> None:
        """Register what the store has of these adapters and the database has not; raises as :meth:`publish` does."""
        for start in range(0, len(names), AT_ONCE):
            with self.records.change(LOCAL) as changes:
                for name in names[start : start + AT_ONCE]:
                    reconcile(self.store, changes(name))
            self.refresh()

    def collect(self, go_on: Callable[[], bool] = lambda: True) -> None:
        """Remove files that no version needs any more, and register those that somebody has put into the store.

        Copies that an interrupted change has left out of date are made anew. An adapter's files are looked at first without
        stopping changes by others. ``go_on`` is asked before each.
        """
        for name in self.store.names():
            if not go_on():
                return
            versions, has_left_overs = self.store.look(name)
            if has_left_overs or set(versions) != set(self.entry(name).versions):
                self.adopt([name])
            if copied(self.store, name) != copy_of(self.entry(name)):
                with _only_logged(STALE.format(name)), self.records.hold(name) as adapter:
                    self.store.save_state(name, copy_of(adapter))

    def _take_back(self, ref: Ref) -> None:
        """Remove the files of a version whose registration has failed, lest a collection register it after all."""
        with _only_logged(f"the files of {ref} stay"), self.records.hold(ref.name) as adapter:
            if ref.version not in adapter.versions and ref.version not in adapter.deleted:
                self.store.delete(ref)

    @contextmanager
    def _moving(self, name: str, alias: str, expected: int | None, who: str) -> Iterator[tuple[Change, Adapter, Alias | None]]:
        """A change of an alias, with its adapter and it as they stand."""
        with self.records.change(who) as changes:
            change = changes(name)
            adapter = change.adapter()
            if not adapter.changed:
                raise not_found(name, f"live: {self.live()}")
            present = adapter.aliases.get(alias)
            generation = present.generation if present else 0
            if expected is not None and expected != generation:
                at = f"at generation {generation}" if present else "not there"
                raise PreconditionFailed(
                    f"alias {alias} of adapter {name!r} is {at}, not {expected}; look at it and decide again"
                )
            yield change, adapter, present
            changed = change.adapter()
        self.put(changed)
        self._mirror(changed.name)

    def _mark(self, ref: Ref, state: str, reason: str | None = None, manifest: Manifest | None = None) -> None:
        """Note a version's state where it is another one; a database that is away does not stop the request that noticed."""
        with _only_logged(f"{ref} is not marked as {state}"), self.records.change(LOCAL) as changes:
            change = changes(ref.name)
            known = change.adapter().versions.get(ref.version)
            if known is None or known.state == state:
                return
            log.error("adapter version %s is %s now%s", ref, state, f": {reason}" if reason else "")
            change.mark(ref.version, state, reason, manifest)
            changed = change.adapter()
        self.put(changed)

    def _mirror(self, name: str) -> None:
        """Keep a copy of aliases and deleted numbers beside the files, from which a lost database can be made anew."""
        with self._mirroring, _only_logged(STALE.format(name)):
            self.store.save_state(name, copy_of(self.entry(name)))


@contextmanager
def _only_logged(what: str) -> Iterator[None]:
    try:
        yield
    except QuickchangeError as error:
        log.warning("%s: %s", what, error)
