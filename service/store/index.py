"""The adapters as requests see them: in memory, without a lock."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Callable, Collection, Iterator
from itertools import islice

from service.errors import AdapterDeleted, AdapterNotFound, InvalidInput, VersionConflict
from service.store.alias import Alias
from service.store.entries import Adapter
from service.store.selector import LIVE, VERSION, Ref, not_found, split_selector

SHOWN = 20  # names listed in an error


class Index:
    """Immutable entries by name, each replaced by one assignment, so that a reader never waits and never sees half a change.

    ``listeners`` are called with every entry as it was and as it is now.
    """

    def __init__(self) -> None:
        self.listeners: list[Callable[[Adapter, Adapter], None]] = []
        self._adapters: dict[str, Adapter] = {}
        self._names: list[str] = []
        self._putting = threading.Lock()

    def __len__(self) -> int:
        return len(self._adapters)

    def __iter__(self) -> Iterator[Adapter]:
        """Every adapter, by name."""
        return iter([self._adapters[name] for name in self._names])

    def page(self, limit: int, after: str = "", prefix: str = "") -> tuple[list[Adapter], str | None]:
        """So many adapters after a name, and the name to go on after where there are more."""
        names = [name for name in self._names if name > after and name.startswith(prefix)]
        return [self._adapters[name] for name in names[:limit]], names[limit - 1] if len(names) > limit else None

    def entry(self, name: str) -> Adapter:
        """One adapter, or an empty entry for a name that there is not."""
        return self._adapters.get(name) or Adapter(name)

    def get(self, name: str) -> Adapter:
        """One adapter; raises :class:`AdapterNotFound`, saying which are live."""
        adapter = self._adapters.get(name)
        if adapter is None:
            raise not_found(name, f"live: {self.live()}")
        return adapter

    def resolve(self, selector: str, routing_key: str | None = None) -> Ref:
        """The version that ``name``, ``name@alias`` or ``name:version`` means now.

        Raises :class:`AdapterNotFound` or, for a version that was deleted, :class:`AdapterDeleted`.
        """
        return self.route(selector, routing_key)[0]

    def route(self, selector: str, routing_key: str | None = None) -> tuple[Ref, str | None, Alias | None]:
        """As :meth:`resolve`, with the alias that led there, by name and as it stands, where one did."""
        name, alias, version = split_selector(selector)
        adapter = self.get(name)
        if version is not None:
            if not VERSION.fullmatch(version):
                raise AdapterNotFound(f"adapter {name!r} has no version {version[:80]!r}; it has {listed(adapter.versions)}")
            check_existing(adapter, int(version))
            return Ref(name, int(version)), None, None
        found = self.alias(adapter, str(alias))
        return Ref(name, found.target.pick(f"{name}@{alias}", routing_key)), alias, found

    def meant(self, selector: str) -> list[Ref]:
        """Every version that a selector may lead to now, shadows among them; none where it means nothing."""
        name, alias, version = split_selector(selector)
        adapter = self.entry(name)
        if version is not None:
            return [Ref(name, int(version))] if VERSION.fullmatch(version) and int(version) in adapter.versions else []
        found = adapter.aliases.get(str(alias))
        return [] if found is None else [Ref(name, number) for number in found.target.versions]

    def alias(self, adapter: Adapter, alias: str) -> Alias:
        """An adapter's alias; raises :class:`AdapterNotFound`, naming those that it has."""
        if alias not in adapter.aliases:
            raise AdapterNotFound(f"adapter {adapter.name!r} has no alias {alias[:80]!r}; it has {listed(adapter.aliases)}")
        return adapter.aliases[alias]

    def version(self, name: str, version: int) -> Ref:
        """An existing version by its number; raises as :meth:`resolve` does."""
        check_existing(self.get(name), version)
        return Ref(name, version)

    def check_answers(self, name: str, task: str) -> None:
        """Raise :class:`InvalidInput` for an adapter that answers another task."""
        answers = self.get(name).task
        if answers != task:
            raise InvalidInput(f"adapter {name!r} answers {answers}, not {task}")

    def check_task(self, name: str, task: str) -> None:
        """Raise :class:`VersionConflict` when the versions of an adapter answer another task."""
        check_task(self.entry(name), task)

    def find(self, name: str, digest: str) -> Ref | None:
        """The version of an adapter that has this digest, if there is one."""
        number = self.entry(name).find(digest)
        return None if number is None else Ref(name, number)

    def put(self, adapter: Adapter) -> None:
        """Let readers see an entry, unless they see a later one already."""
        with self._putting:
            before = self.entry(adapter.name)
            if before.changed >= adapter.changed:
                return
            self._adapters[adapter.name] = adapter
            if not before.changed:
                insort(self._names, adapter.name)
        for listener in self.listeners:
            listener(before, adapter)

    def live(self) -> str:
        """The names of live adapters, for an error."""
        return listed([adapter.name for adapter in self if LIVE in adapter.aliases])


def check_task(adapter: Adapter, task: str) -> None:
    """Raise :class:`VersionConflict` when the versions of an adapter answer another task."""
    if adapter.task not in (None, task):
        raise VersionConflict(f"adapter {adapter.name!r} answers {adapter.task}; this version answers {task}: use another name")


def check_existing(adapter: Adapter, version: int) -> None:
    """Raise :class:`AdapterDeleted` or :class:`AdapterNotFound` for a version that an adapter does not have."""
    if version in adapter.deleted:
        raise AdapterDeleted(f"version {version} of adapter {adapter.name!r} was deleted; it has {listed(adapter.versions)}")
    if version not in adapter.versions:
        raise AdapterNotFound(f"adapter {adapter.name!r} has no version {version}; it has {listed(adapter.versions)}")


def listed(names: Collection[object]) -> str:
    """The first of these names for an error, and how many more there are."""
    shown = [str(name) for name in islice(names, SHOWN)]
    more = len(names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")
