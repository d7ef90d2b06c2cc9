"""From a selector to the loaded version that it means now."""

from __future__ import annotations

from service.errors import QuickchangeError
from service.store.registry import Registry
from service.store.selector import Ref
from service.tasks.residency import Checked, Loaded, Loader, Residency


def lease(
    registry: Registry,
    residency: Residency,
    task: str,
    selector: str,
    loader: Loader[Checked, Loaded],
    routing_key: str | None = None,
) -> tuple[Ref, Loaded]:
    """The version, which stays in memory as long as the caller holds it; raises as the registry and the residency do."""
    ref = registry.resolve(selector, routing_key)
    registry.check_answers(ref.name, task)
    try:
        return ref, residency.get(ref, loader)
    except QuickchangeError:
        # The version may have been deleted before it was in memory. An alias then means another one by now.
        now = registry.resolve(selector, routing_key)
        if now == ref:
            raise
        return now, residency.get(now, loader)
