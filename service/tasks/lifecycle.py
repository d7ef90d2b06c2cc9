"""An adapter's way through its life: checked, tried out, published, pointed at by aliases, deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from service.errors import AdapterIncompatible, QuickchangeError
from service.store.bundle import Bundle
from service.store.registry import Registry
from service.store.selector import Ref, check_name
from service.tasks.residency import Loader, Residency


class AdapterTask(Loader[Any, Any], Protocol):
    """What a task offers to the lifecycle: checking a bundle, loading it, and trying it out."""

    def try_out(self, loaded: Any, /) -> None:
        """Answer a golden batch with a loaded version; raises :class:`AdapterIncompatible` when that does not work."""


class Lifecycle:
    """Changes to the adapters, one at a time, each complete before anybody can see it; requests go on meanwhile.

    What the selectors in ``preloaded`` mean stays in memory, through every change.
    """

    def __init__(
        self, registry: Registry, residency: Residency, tasks: Mapping[str, AdapterTask], preloaded: Sequence[str] = ()
    ) -> None:
        self.registry, self.residency = registry, residency
        self._tasks, self._preloaded = tasks, preloaded
        self._lock = threading.Lock()

    def publish(self, name: str, bundle: Bundle, alias: str | None = None) -> tuple[Ref, bool]:
        """Check, store and load a bundle as the next version of ``name``, then point ``alias`` at it.

        Returns the version and whether it is new: the same files again are the same version. Raises
        :class:`AdapterIncompatible`, :class:`InvalidInput`, :class:`VersionConflict` or :class:`StoreFull`, and then
        nothing has changed.
        """
        _check_names(name, alias)
        with self._lock:
            known = self.registry.find(name, bundle.manifest.digest)
            ref = known or self._new_version(name, bundle)
            if alias is not None:
                self._point(alias, ref)
        return ref, known is None

    def rehearse(self, name: str, bundle: Bundle, alias: str | None = None) -> Ref | None:
        """Do all that :meth:`publish` does but change something; raises as it does.

        Returns the version that has the same files already, if there is one.
        """
        _check_names(name, alias)
        with self._lock:
            known = self.registry.find(name, bundle.manifest.digest)
            if known is None:
                self._try(name, bundle)
        return known

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Load the version, then point the alias at it; the next request is answered by it."""
        check_name(alias, "alias")
        with self._lock:
            self._point(alias, self.registry.version(name, version))

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away, so that its version can be deleted; the next request for it finds none."""
        with self._lock:
            self.registry.remove_alias(name, alias)
            self._pin()

    def delete(self, name: str, version: int) -> None:
        """Delete a version from the store and from memory; requests that already hold it finish."""
        with self._lock:
            ref = self.registry.version(name, version)
            self.registry.delete(ref)
            self.residency.drop(ref)
            self._pin()

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
            for version in sorted(set(adapter.aliases.values())):
                yield Ref(adapter.name, version)

    def _new_version(self, name: str, bundle: Bundle) -> Ref:
        checked, loaded = self._try(name, bundle)
        ref = self.registry.publish(name, bundle)
        self.residency.put(ref, checked, loaded)
        return ref

    def _try(self, name: str, bundle: Bundle) -> tuple[Any, Any]:
        """The bundle, checked and loaded, after it has answered a golden batch."""
        task = self._task(bundle.manifest.task)
        self.registry.check_task(name, bundle.manifest.task)
        checked = task.parse(bundle)
        loaded = self.residency.load(checked, task)
        task.try_out(loaded)
        return checked, loaded

    def _point(self, alias: str, ref: Ref) -> None:
        self._load(ref)
        self.registry.set_alias(ref.name, alias, ref.version)
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
