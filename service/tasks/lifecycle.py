"""An adapter's way through its life: checked, tried out, published, pointed at by aliases, deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from service.errors import AdapterIncompatible, QuickchangeError
from service.store.bundle import Bundle
from service.store.registry import Registry
from service.store.selector import Ref, check_name
from service.tasks.residency import Residency


class AdapterTask(Protocol):
    """What a task offers to the lifecycle: checking a bundle, and the versions it has in memory."""

    residency: Residency[Any]

    def check(self, bundle: Bundle) -> Any:
        """Load a bundle and answer a golden batch with it.

        Raises :class:`AdapterIncompatible` with all faults; whatever it returns goes into the residency.
        """


class Lifecycle:
    """Changes to the adapters, one at a time, each complete before anybody can see it; requests go on meanwhile."""

    def __init__(self, registry: Registry, tasks: Mapping[str, AdapterTask]) -> None:
        self.registry = registry
        self._tasks = tasks
        self._lock = threading.Lock()

    def publish(self, name: str, bundle: Bundle, alias: str | None = None) -> tuple[Ref, bool]:
        """Check, store and load a bundle as the next version of ``name``, then point ``alias`` at it.

        Returns the version and whether it is new: the same files again are the same version. Raises
        :class:`AdapterIncompatible`, :class:`InvalidInput`, :class:`VersionConflict` or :class:`StoreFull`, and then
        nothing has changed.
        """
        check_name(name)
        if alias is not None:
            check_name(alias, "alias")
        task = self._task(bundle.manifest.task)
        with self._lock:
            known = self.registry.find(name, bundle.manifest.digest)
            ref = known or self._new_version(name, bundle, task)
            if alias is not None:
                self._point(alias, ref)
        return ref, known is None

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Load the version, then point the alias at it; the next request is answered by it."""
        check_name(alias, "alias")
        with self._lock:
            self._point(alias, self.registry.version(name, version))

    def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away, so that its version can be deleted; the next request for it finds none."""
        with self._lock:
            self.registry.remove_alias(name, alias)

    def delete(self, name: str, version: int) -> None:
        """Delete a version from the store and from memory; requests that already hold it finish."""
        with self._lock:
            ref = self.registry.version(name, version)
            task = self._task_of(ref)
            self.registry.delete(ref)
            task.residency.drop(ref)

    def load_live(self, seconds: float) -> list[str]:
        """Load versions that aliases point at, by name, for so long; return a line for each one that cannot be loaded.

        The others are loaded when they are first asked for.
        """
        problems, end = [], time.monotonic() + seconds
        for ref in self._pointed_at():
            if time.monotonic() > end:
                break
            try:
                self._task_of(ref).residency.get(ref)
            except QuickchangeError as error:
                problems.append(f"{ref}: {error}")
        return problems

    def is_loaded(self, ref: Ref) -> bool:
        """Whether the version is in memory."""
        return ref in self._task_of(ref).residency

    def _pointed_at(self) -> Iterator[Ref]:
        for adapter in self.registry:
            for version in sorted(set(adapter.aliases.values())):
                yield Ref(adapter.name, version)

    def _new_version(self, name: str, bundle: Bundle, task: AdapterTask) -> Ref:
        self.registry.check_task(name, bundle.manifest.task)
        loaded = task.check(bundle)
        ref = self.registry.publish(name, bundle)
        task.residency.put(ref, loaded)
        return ref

    def _point(self, alias: str, ref: Ref) -> None:
        self._task_of(ref).residency.get(ref)
        self.registry.set_alias(ref.name, alias, ref.version)

    def _task_of(self, ref: Ref) -> AdapterTask:
        known = self.registry.get(ref.name).versions[ref.version].task
        return self._task(known or self.registry.store.manifest(ref).task)

    def _task(self, name: str) -> AdapterTask:
        if name not in self._tasks:
            raise AdapterIncompatible([f"this server does not answer {name}; it answers {', '.join(self._tasks)}"])
        return self._tasks[name]
