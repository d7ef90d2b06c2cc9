"""From a selector to the loaded version that it means now, with the shadow that is compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

from service.errors import QuickchangeError
from service.store.alias import Alias
from service.store.registry import Registry
from service.store.selector import Ref
from service.tasks.residency import Checked, Loaded, Loader, Residency
from service.tasks.shadow import Comparisons, Shadow


@dataclass(frozen=True, slots=True)
class Lease(Generic[Loaded]):
    """A version that stays in memory as long as this is held, and what answers beside it."""

    ref: Ref
    loaded: Loaded
    shadow: Shadow[Loaded] | None = None


@dataclass(frozen=True, slots=True)
class Lessor(Generic[Checked, Loaded]):
    """Gives the leases of one task, whose ``loader`` brings versions into memory."""

    registry: Registry
    residency: Residency
    comparisons: Comparisons
    task: str
    loader: Loader[Checked, Loaded]

    def lease(self, selector: str, routing_key: str | None = None) -> Lease[Loaded]:
        """The version that a selector means; raises as the registry and the residency do."""
        ref, name, alias = self.registry.route(selector, routing_key)
        self.registry.check_answers(ref.name, self.task)
        try:
            loaded = self.residency.get(ref, self.loader)
        except QuickchangeError:
            # The version may have been deleted before it was in memory. An alias then means another one by now.
            now, name, alias = self.registry.route(selector, routing_key)
            if now == ref:
                raise
            ref, loaded = now, self.residency.get(now, self.loader)
        shadow = self._shadow(ref, name, alias) if alias is not None and alias.target.shadow else None
        return Lease(ref, loaded, shadow)

    def is_at_hand(self, selector: str) -> bool:
        """Whether nothing is to be loaded for a lease, whatever version it will be of, or there is none to give."""
        return all(ref in self.residency for ref in self.registry.meant(selector))

    def _shadow(self, ref: Ref, name: Any, alias: Alias) -> Shadow[Loaded] | None:
        """The alias's shadow; None where it cannot be loaded, which nobody but the comparison is told."""
        other = Ref(ref.name, alias.target.shadow or 0)
        tally = self.comparisons.tally(f"{ref.name}@{name}", ref.version, other.version)
        try:
            return Shadow(self.residency.get(other, self.loader), tally)
        except QuickchangeError:
            tally.failed(1)
            return None
