"""An adapter's way through its life: checked, tried out, published, pointed at by aliases, deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from service.errors import AdapterIncompatible, QuickchangeError
from service.store.alias import Alias, Target
from service.store.bundle import Bundle
from service.store.entries import READY, Adapter
from service.store.registry import Registry
from service.store.selector import Ref, check_name
from service.store.upkeep import LOCAL
from service.tasks.residency import Loader, Residency


class AdapterTask(Loader[Any, Any], Protocol):
    """What a task offers to the lifecycle: checking a bundle, loading it, and trying it out."""

    def try_out(self, loaded: Any, /) -> None:
        """Answer a golden batch with a loaded version; raises :class:`AdapterIncompatible` when that does not work."""


class Lifecycle:
    """Changes to the adapters, each complete before anybody can see it; requests go on meanwhile.

    A change begins with what other servers have done, so that it does not matter which of them a client has asked before.
    What the selectors in ``preloaded`` mean stays in memory, through every change.
    """

    def __init__(
        self, registry: Registry, residency: Residency, tasks: Mapping[str, AdapterTask], preloaded: Sequence[str] = ()
    ) -> None:
        self.registry, self.residency = registry, residency
        self._tasks, self._preloaded = tasks, preloaded
        registry.listeners.append(self._follow)

    def publish(self, name: str, bundle: Bundle, alias: str | None = None, who: str = LOCAL) -> tuple[Ref, bool]:
        """Check, store and load a bundle as the next version of ``name``, then point ``alias`` at it.

        Returns the version and whether it is new: the same files again are the same version. Raises
        :class:`AdapterIncompatible`, :class:`InvalidInput`, :class:`VersionConflict` or :class:`StoreFull`, and then
        nothing has changed; where only the alias cannot be moved, the version stays.
        """
        _check_names(name, alias)
        self.registry.refresh()
        known = self.registry.find(name, bundle.manifest.digest)
        if known is not None and self.registry.entry(name).versions[known.version].state == READY:
            ref, is_new = known, False
        else:
            ref, is_new = self._new_version(name, bundle, who)
        if alias is not None:
            self.set_alias(name, alias, Target.at(ref.version), who=who)
        return ref, is_new

    def rehearse(self, name: str, bundle: Bundle, alias: str | None = None) -> Ref | None:
        """Do all that :meth:`publish` does but change something; raises as it does.

        Returns the version that has the same files already, if there is one.
        """
        _check_names(name, alias)
        self.registry.refresh()
        known = self.registry.find(name, bundle.manifest.digest)
        if known is None:
            self._try(name, bundle)
        return known

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
        """Load the versions, then point the alias at them; the next request is answered by them.

        Arguments and errors are those of the registry's own method.
        """
        check_name(alias, "alias")
        self.registry.refresh()
        for version in sorted(target.versions):
            self._load(self.registry.version(name, version))
        return self.registry.set_alias(name, alias, target, require=require, expected=expected, who=who)

    def roll_back(self, name: str, alias: str, *, expected: int | None = None, who: str = LOCAL) -> Alias:
        """Point an alias where it pointed before its last move, and load that."""
        moved = self.registry.roll_back(name, alias, expected=expected, who=who)
        for version in sorted(moved.target.versions):
            self._problem(str(Ref(name, version)))
        return moved

    def delete(self, name: str, version: int, who: str = LOCAL) -> None:
        """Delete a version from the store and from memory; requests that already hold it finish."""
        self.registry.refresh()
        self.registry.delete(self.registry.version(name, version), who)

    def load_live(self, seconds: float) -> list[str]:
        """Load what stays in memory, then, for so long and while there is room, what aliases point at, by name.

        Returns a line for each one that cannot be loaded. All others are loaded when they are first asked for.
        """
        self._pin()
        problems = [self._problem(selector) for selector in self._preloaded]
        end = time.monotonic() + seconds
        for ref in self._pointed_at():
            if time.monotonic() > end or self.residency.device.evictions:
                break
            problems.append(self._problem(str(ref)))
        return [problem for problem in dict.fromkeys(problems) if problem]

    def is_loaded(self, ref: Ref) -> bool:
        """Whether the version is in memory."""
        return ref in self.residency

    def _problem(self, selector: str) -> str:
        """Load what the selector means; a line on why that does not work, or an empty one."""
        named = selector
        try:
            ref = self.registry.resolve(selector)
            named = str(ref)
            self._load(ref)
        except QuickchangeError as error:
            return f"{named}: {error}"
        return ""

    def _load(self, ref: Ref) -> None:
        self.residency.get(ref, self._task_of(ref))

    def _pin(self) -> None:
        pinned = set()
        for selector in self._preloaded:
            with suppress(QuickchangeError):
                pinned.add(self.registry.resolve(selector))
        self.residency.device.pinned = frozenset(pinned)

    def _pointed_at(self) -> Iterator[Ref]:
        for adapter in self.registry:
            for version in sorted({version for alias in adapter.aliases.values() for version in alias.target.versions}):
                yield Ref(adapter.name, version)

    def _new_version(self, name: str, bundle: Bundle, who: str) -> tuple[Ref, bool]:
        checked, loaded = self._try(name, bundle)
        ref, is_new = self.registry.publish(name, bundle, who)
        self.residency.put(ref, checked, loaded)
        if ref.version not in self.registry.entry(name).versions:
            self.residency.drop(ref)  # deleted since it was published
        return ref, is_new

    def _try(self, name: str, bundle: Bundle) -> tuple[Any, Any]:
        """The bundle, checked and loaded, after it has answered a golden batch."""
        task = self._task(bundle.manifest.task)
        self.registry.check_task(name, bundle.manifest.task)
        checked = task.parse(bundle)
        loaded = self.residency.load(checked, task)
        task.try_out(loaded)
        return checked, loaded

    def _follow(self, before: Adapter, now: Adapter) -> None:
        """Free what was deleted, here or by another server, and keep what is to stay."""
        for version in before.versions.keys() - now.versions.keys():
            self.residency.drop(Ref(now.name, version))
        if before.aliases != now.aliases:
            self._pin()

    def _task_of(self, ref: Ref) -> AdapterTask:
        known = self.registry.get(ref.name).versions[ref.version].task
        return self._task(known or self.registry.store.manifest(ref).task)

    def _task(self, name: str) -> AdapterTask:
        if name not in self._tasks:
            raise AdapterIncompatible([f"this server does not answer {name}; it answers {', '.join(self._tasks)}"])
        return self._tasks[name]


def _check_names(name: str, alias: str | None) -> None:
    check_name(name)
    if alias is not None:
        check_name(alias, "alias")
