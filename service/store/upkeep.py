"""The database, the files and the index kept in line with each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from service.errors import QuickchangeError
from service.store.index import Index
from service.store.loading import AT_ONCE
from service.store.reconcile import Store, copy_of, find, kept_copy, reconcile
from service.store.records import Records
from service.store.selector import Ref

log = logging.getLogger(__name__)
LOCAL = "local"  # who changes something on the command line, or by itself


class Upkeep(Index):
    """An index in memory of the adapters in a database, whose files are in a store."""

    def __init__(self, store: Store, records: Records) -> None:
        super().__init__()
        self.store, self.records = store, records
        self._clock = 0
        self.refresh()
        self._bring_in(sorted(set(store.names()) - set(self._adapters)))

    def close(self) -> None:
        """Give the database's connections back; requests go on being resolved."""
        self.records.database.close()

    def refresh(self) -> None:
        """Take over what other servers have changed; raises :class:`Unavailable` when the database does not answer."""
        now, changed = self.records.load(self._clock)
        for adapter in changed:
            self.put(adapter)
        self._clock = now

    def collect(self, go_on: Callable[[], bool] = lambda: True) -> None:
        """Remove files that no version needs any more, and register those that somebody has put into the store.

        An adapter's files are looked at first without stopping changes by others. Copies that an interrupted change has left
        out of date are made anew. ``go_on`` is asked before each adapter.
        """
        for name in self.store.names():
            if not go_on():
                return
            self._tidy(name)

    def _tidy(self, name: str) -> None:
        versions, has_left_overs = self.store.look(name)
        adapter = self.entry(name)
        if not adapter.changed and versions:
            self._bring_in([name])
        elif has_left_overs or not set(versions) <= set(adapter.versions):
            with self.records.change(LOCAL) as changes:
                reconcile(self.store, changes.of(name))
            self.refresh()
        if self.entry(name).changed and kept_copy(self.store, name) != copy_of(self.entry(name)):
            self.mirror(name)

    def mirror(self, name: str) -> None:
        """Keep a copy of aliases and deleted numbers beside the files, from which a lost database can be made anew."""
        with only_logged(f"the copy of {name}'s aliases in the store is out of date"), self.records.hold(name) as adapter:
            self.store.save_state(name, copy_of(adapter))

    def _bring_in(self, names: Sequence[str]) -> None:
        """Register adapters of which the store has files and the database knows nothing."""
        for start in range(0, len(names), AT_ONCE):
            found = [find(self.store, name) for name in names[start : start + AT_ONCE]]
            with self.records.change(LOCAL) as changes:
                changes.bring_in([one for one in found if one.versions or one.deleted])
            self.refresh()

    def take_back(self, ref: Ref) -> None:
        """Remove the files of a version whose registration has failed, lest a collection register it after all."""
        with only_logged(f"the files of {ref} stay"), self.records.hold(ref.name) as adapter:
            if ref.version not in adapter.versions and ref.version not in adapter.deleted:
                self.store.delete(ref)


@contextmanager
def only_logged(what: str) -> Iterator[None]:
    """Go on after an error of ours, which is logged behind ``what`` it means."""
    try:
        yield
    except QuickchangeError as error:
        log.warning("%s: %s", what, error)
