"""One adapter as it should be, in plain Python: immutable, each change a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from service.errors import (
    AdapterDeleted,
    AdapterNotFound,
    InvalidInput,
    PreconditionFailed,
    QuickchangeError,
    RequirementNotMet,
    VersionConflict,
)
from service.store.alias import Target
from service.store.bundle import TEXT_CLASSIFICATION, Bundle, Manifest

METRIC = "f1"
Refusals = set[type[QuickchangeError]]


def bundle(weights: int) -> Bundle:
    """Files that no other number has; the metric is a tenth of it."""
    metrics = {"validation": {METRIC: weights / 10}}
    manifest = Manifest(task=TEXT_CLASSIFICATION, labels=("no", "yes"), metrics=metrics)
    return Bundle.assemble({"r": 8}, str(weights).encode(), manifest)


@dataclass(frozen=True)
class Move:
    """One move of an alias; ``before`` is the number of the move that a rollback goes back to, None for none."""

    action: str
    target: Target | None
    before: int | None = None


@dataclass(frozen=True)
class Adapter:
    """``versions`` has the number that each version's files are made of; an alias's moves count from 1."""

    versions: Mapping[int, int] = field(default_factory=dict)
    newest: int = 0
    deleted: frozenset[int] = frozenset()
    damaged: frozenset[int] = frozenset()
    quarantined: frozenset[int] = frozenset()
    aliases: Mapping[str, Target] = field(default_factory=dict)
    moves: Mapping[str, tuple[Move, ...]] = field(default_factory=dict)

    def find(self, weights: int) -> int | None:
        """The version with these files."""
        return next((number for number, made_of in self.versions.items() if made_of == weights), None)

    def generation(self, alias: str) -> int:
        """How many moves the alias has made; 0 where it is not there."""
        return len(self.moves[alias]) if alias in self.aliases else 0

    def add(self, weights: int) -> Adapter:
        """The next version."""
        return replace(self, versions={**self.versions, self.newest + 1: weights}, newest=self.newest + 1)

    def damage(self, version: int) -> Adapter:
        """A file of it breaks."""
        return replace(self, damaged=self.damaged | {version})

    def quarantine(self, version: int) -> Adapter:
        """Somebody has noticed."""
        return replace(self, quarantined=self.quarantined | {version})

    def repair(self, version: int) -> Adapter:
        """Its files are whole again."""
        return replace(self, damaged=self.damaged - {version}, quarantined=self.quarantined - {version})

    def delete(self, version: int) -> Adapter:
        """It is gone, and its number stays taken."""
        versions = {number: weights for number, weights in self.versions.items() if number != version}
        return replace(self.repair(version), versions=versions, deleted=self.deleted | {version})

    def refuses_to_delete(self, version: int) -> Refusals:
        """The error that must come when it is deleted; none when it must go."""
        if version not in self.versions:
            return {AdapterDeleted if version in self.deleted else AdapterNotFound}
        return {VersionConflict} if any(version in target.versions for target in self.aliases.values()) else set()

    def point(self, alias: str, target: Target, require: Mapping[str, str] | None) -> Adapter:
        """The alias moves."""
        target = replace(target, require=self._required(alias, require))
        return self._moved(alias, Move("set", target, self.generation(alias) or None))

    def refusals(self, alias: str, target: Target, require: Mapping[str, str] | None, expected: int) -> Refusals:
        """The errors of which one must come when the alias is moved so; none when it must move."""
        if not self.newest:
            return {AdapterNotFound}
        if expected != self.generation(alias):
            return {PreconditionFailed}
        if target.shadow in target.split:
            return {InvalidInput}
        missing = target.versions - set(self.versions)
        if missing:
            return {AdapterDeleted if version in self.deleted else AdapterNotFound for version in missing}
        met = all(self._meets(target, metric, rule) for metric, rule in self._required(alias, require).items())
        return set() if met else {RequirementNotMet}

    def can_roll_back(self, alias: str) -> bool:
        """Whether the alias has pointed elsewhere since it was made, at versions that are all still there."""
        before = self.moves[alias][-1].before if alias in self.aliases else None
        if before is None:
            return False
        target = self.moves[alias][before - 1].target
        return target is not None and target.versions <= set(self.versions)

    def roll_back(self, alias: str) -> Adapter:
        """The alias goes back one step."""
        earlier = self.moves[alias][(self.moves[alias][-1].before or 0) - 1]
        return self._moved(alias, Move("rollback", earlier.target, earlier.before))

    def remove(self, alias: str) -> Adapter:
        """The alias goes; its moves stay."""
        return self._moved(alias, Move("remove", None))

    def _moved(self, alias: str, move: Move) -> Adapter:
        others = {name: target for name, target in self.aliases.items() if name != alias}
        pointing = others if move.target is None else {**others, alias: move.target}
        return replace(self, aliases=pointing, moves={**self.moves, alias: (*self.moves.get(alias, ()), move)})

    def _required(self, alias: str, require: Mapping[str, str] | None) -> Mapping[str, str]:
        kept = self.aliases[alias].require if alias in self.aliases else {}
        return kept if require is None else require

    def _meets(self, target: Target, metric: str, rule: str) -> bool:
        bound = rule.removeprefix(">= ")
        if bound in self.aliases:
            least = self.versions[self.aliases[bound].version] / 10
        elif bound == "live":
            return True
        else:
            least = float(bound)
        return metric == METRIC and all(self.versions[version] / 10 >= least for version in target.split)
