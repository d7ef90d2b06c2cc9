"""Which adapters exist, which versions they have, and where their aliases point."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from service.errors import (
    AdapterIncompatible,
    AdapterNotFound,
    PreconditionFailed,
    StartupError,
    StoreFull,
    Unavailable,
    VersionConflict,
)
from service.store.alias import Alias, Target, check_requirements, check_target
from service.store.bundle import Bundle, Manifest
from service.store.change import ROLLED_BACK, Change
from service.store.database import Database
from service.store.entries import DELETED, QUARANTINED, READY, Adapter
from service.store.index import check_existing, check_task, listed
from service.store.location import open_files
from service.store.records import Records
from service.store.selector import Ref, not_found
from service.store.upkeep import LOCAL, Upkeep, only_logged

log = logging.getLogger(__name__)


class Registry(Upkeep):
    """The adapters in a database and their files in a store, with an index in memory that requests read.

    Every change is one transaction, which all servers on the database make one after another.
    """

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

    def manifests(self, adapter: Adapter) -> dict[int, Manifest]:
        """The manifests of an adapter's versions, in order; one that cannot be read is left out."""
        return self.records.manifests([adapter.name]).get(adapter.name, {})

    def read(self, ref: Ref) -> Bundle:
        """A version's files, whole and those that were published.

        Raises :class:`AdapterIncompatible` for one that is damaged, which is quarantined until it can be read again, and
        :class:`AdapterNotFound` or :class:`Unavailable` as the store does.
        """
        entry = self.entry(ref.name)
        # What was deleted after somebody resolved it is not read again: nobody would take it out of memory.
        check_existing(entry, ref.version)
        registered = entry.versions[ref.version]
        try:
            bundle = self.store.read(ref)
            if registered.digest not in (None, bundle.manifest.digest):
                raise AdapterIncompatible([f"the files of {ref} are not those that were published"])
        except AdapterNotFound:
            with only_logged(f"whether {ref} was deleted by another server is not known"):
                self.refresh()
            check_existing(self.entry(ref.name), ref.version)
            gone = AdapterIncompatible([f"the files of {ref} are not in the store"])
            self._mark(ref, QUARANTINED, str(gone))
            raise gone from None
        except AdapterIncompatible as error:
            self._mark(ref, QUARANTINED, str(error))
            raise
        if registered.state == QUARANTINED:
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
                change = changes.of(name)
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
                self.take_back(written)
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
            return change.point(alias, target, before=present.generation if present else None)

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
            return change.point(alias, target, ROLLED_BACK, before)

    def remove_alias(self, name: str, alias: str, who: str = LOCAL) -> None:
        """Take an alias away; raises :class:`AdapterNotFound` when the adapter does not have it."""
        with self._moving(name, alias, None, who) as (change, adapter, _):
            self.alias(adapter, alias)
            change.remove(alias)

    def delete(self, ref: Ref, who: str = LOCAL) -> None:
        """Delete a version; raises :class:`VersionConflict` while an alias points at it."""
        with self.records.change(who) as changes:
            change = changes.of(ref.name)
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
        self.mirror(changed.name)
        with only_logged(f"the files of {ref} stay until they are collected"):
            self.store.delete(ref)

    @contextmanager
    def _moving(self, name: str, alias: str, expected: int | None, who: str) -> Iterator[tuple[Change, Adapter, Alias | None]]:
        """A change of an alias, with its adapter and it as they stand."""
        with self.records.change(who) as changes:
            change = changes.of(name)
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
        self.mirror(changed.name)

    def _mark(self, ref: Ref, state: str, reason: str | None = None, manifest: Manifest | None = None) -> None:
        """Note a version's state where it is another one; a database that is away does not stop the request that noticed."""
        with only_logged(f"{ref} is not marked as {state}"), self.records.change(LOCAL) as changes:
            change = changes.of(ref.name)
            known = change.adapter().versions.get(ref.version)
            if known is None or known.state == state:
                return
            log.error("adapter version %s is %s now%s", ref, state, f": {reason}" if reason else "")
            change.mark(ref.version, state, reason, manifest)
            changed = change.adapter()
        self.put(changed)
