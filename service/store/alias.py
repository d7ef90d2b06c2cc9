"""Where an alias points: at one version, or at several by shares; and the rules for moving it."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from service.errors import InvalidInput, RequirementNotMet
from service.store.bundle import Manifest
from service.store.selector import NAME

MOST_VERSIONS, MOST_SHARES = 16, 1_000_000  # in a split
RULE = re.compile(r">=\s*(?P<bound>\S+)")
RULES = "'>= ALIAS' or '>= NUMBER'"
PREFERRED = "validation"  # the split of a metric that is named without one


@dataclass(frozen=True)
class Target:
    """What an alias answers with: ``split`` has each version's share, by version; ``shadow`` runs beside it and is compared.

    ``require`` maps metrics to rules that a version must meet before the alias may point at it.
    """

    split: Mapping[int, int]
    shadow: int | None = None
    require: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, version: int) -> Self:
        """All of it at one version."""
        return cls({version: 100})

    @classmethod
    def load(cls, text: str) -> Self:
        """The target in what :meth:`dump` made."""
        stored: dict[str, Any] = json.loads(text)
        return cls.of(stored)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The target in a JSON object with ``split``, ``shadow`` and ``require``."""
        split = {int(version): int(share) for version, share in sorted(stored["split"].items(), key=lambda pair: int(pair[0]))}
        return cls(split, stored.get("shadow"), dict(stored.get("require") or {}))

    @property
    def stored(self) -> dict[str, Any]:
        """As a JSON object, without what is not set."""
        more = {"shadow": self.shadow, "require": dict(self.require)}
        split = {str(version): share for version, share in self.split.items()}
        return {"split": split} | {name: value for name, value in more.items() if value}

    def dump(self) -> str:
        """As text."""
        return json.dumps(self.stored)

    @cached_property
    def version(self) -> int:
        """The version with the largest share; of equals, the newest."""
        return max(self.split, key=lambda version: (self.split[version], version))

    @cached_property
    def versions(self) -> frozenset[int]:
        """Every version that it needs, the shadow included."""
        return frozenset(self.split) | ({self.shadow} if self.shadow else frozenset())

    def pick(self, place: str, routing_key: str | None) -> int:
        """The version for a request: by chance, or always the same for the same routing key.

        A key keeps its version while shares grow from the newest version down; ``place`` keeps the keys of different
        aliases apart.
        """
        if len(self.split) == 1:
            return self.version
        total = sum(self.split.values())
        if routing_key is None:
            point = random.randrange(total)  # noqa: S311  # nothing secret depends on it
        else:
            point = int.from_bytes(hashlib.sha256(f"{place}\n{routing_key}".encode()).digest()[:8], "big") * total >> 64
        for version, share in self.split.items():
            point -= share
            if point < 0:
                return version
        raise AssertionError("unreachable: shares add up to their total")


@dataclass(frozen=True)
class Alias:
    """An alias as it stands: ``generation`` counts its moves, and never repeats."""

    generation: int
    target: Target


@dataclass(frozen=True, slots=True)
class Move:
    """One entry of an alias's history, by whom and when; ``target`` is None where it was removed."""

    generation: int
    target: Target | None
    action: str
    who: str
    at: datetime


def check_target(target: Target) -> None:
    """Raise :class:`InvalidInput` for shares, a shadow or rules that make no sense, whatever versions there are."""
    if not 0 < len(target.split) <= MOST_VERSIONS or any(not 0 < share <= MOST_SHARES for share in target.split.values()):
        raise InvalidInput(
            f"split {_shown(target.split)} is not valid; "
            f"accepted: 1 to {MOST_VERSIONS} versions with shares from 1 to {MOST_SHARES}"
        )
    if target.shadow in target.split:
        raise InvalidInput(f"shadow {target.shadow} is a version that the alias answers with; name another")
    for metric, rule in target.require.items():
        match = RULE.fullmatch(rule)
        if match is None or not (_number(match["bound"]) is not None or NAME.fullmatch(match["bound"])):
            raise InvalidInput(f"require {metric[:80]!r}: {rule[:80]!r} is not a rule; accepted: {RULES}")


def check_requirements(target: Target, manifests: Mapping[int, Manifest | None], aliases: Mapping[str, Alias]) -> None:
    """Raise :class:`RequirementNotMet` with every rule that a version of the split does not meet."""
    missed = []
    for metric, rule in target.require.items():
        bound = RULE.fullmatch(rule)["bound"]  # type: ignore[index]  # check_target has seen it
        least = _number(bound)
        if least is None:
            if bound not in aliases:
                continue  # nothing to be better than
            least = metric_of(manifests.get(aliases[bound].target.version), metric)
        for version in target.split:
            value = metric_of(manifests.get(version), metric)
            if least is None or value is None:
                missed.append(f"version {version}: {metric} {rule} cannot be told, as the metric is not known of both")
            elif value < least:
                missed.append(f"version {version}: {metric} is {value:.4g}, and {rule} requires {least:.4g}")
    if missed:
        raise RequirementNotMet("; ".join(missed))


def metric_of(manifest: Manifest | None, name: str) -> float | None:
    """A metric by its name, or by its split and its name: ``macro_f1``, ``test.macro_f1``."""
    metrics = manifest.metrics if manifest else {}
    split, dot, rest = name.partition(".")
    if dot and split in metrics:
        return metrics[split].get(rest)
    splits = sorted(metrics, key=lambda split: split != PREFERRED)
    return next((metrics[split][name] for split in splits if name in metrics[split]), None)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(split: Mapping[int, int]) -> str:
    return ", ".join(f"{version}: {share}" for version, share in list(split.items())[: MOST_VERSIONS + 1]) or "with no version"
