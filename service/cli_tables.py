"""What the server says about its adapters, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.markup import escape
from rich.table import Table

from service.routes.schemas import AdapterView, Published
from service.routes.views import AliasView, AuditEntry
from service.store.problem_types import SINGLE_LABEL

LABELS = 8  # shown of an adapter
DIGEST = slice(len("sha256:"), len("sha256:") + 12)


def adapters_table(adapters: Sequence[AdapterView]) -> Table:
    """One line for each adapter."""
    table = Table("adapter", "task", "versions", "aliases", "labels")
    for adapter in adapters:
        table.add_row(adapter.name, adapter.task, str(len(adapter.versions)), _aliases(adapter.aliases), str(len(adapter.labels)))
    return table


def versions_table(adapter: AdapterView) -> Table:
    """The versions of an adapter: one line for each, and its metrics."""
    labels = f"{', '.join(adapter.labels[:LABELS])}{' …' if len(adapter.labels) > LABELS else ''}"
    title = escape(f"{adapter.name}: {labels}{_kind(adapter.problem_type)}")
    table = Table("version", "alias", "created", "state", "metrics", "digest", title=title)
    for version in adapter.versions:
        table.add_row(
            str(version.version),
            ", ".join(sorted(alias for alias, pointed in adapter.aliases.items() if pointed == version.version)),
            _minute(version.created),
            version.state,
            escape("\n".join(f"{split}: {_figures(values)}" for split, values in version.metrics.items())),
            version.digest[DIGEST],
        )
    return table


def aliases_table(aliases: Sequence[AliasView]) -> Table:
    """Where each alias points now."""
    table = Table("alias", "points at", "shadow", "generation", "requires")
    for view in aliases:
        requires = ", ".join(f"{metric} {rule}" for metric, rule in view.require.items())
        table.add_row(view.alias, points_at(view.split), _number(view.shadow), str(view.generation), escape(requires))
    return table


def alias_tables(view: AliasView) -> list[Table]:
    """Where an alias points, how its shadow compares, and every move of it, the last one first."""
    tables = [aliases_table([view])]
    if view.comparison is not None:
        compared = Table("shadow's answers", "")
        for what, value in view.comparison.model_dump().items():
            compared.add_row(escape(what), escape(f"{value:.4g}" if isinstance(value, float) else str(value)))
        tables.append(compared)
    moves = Table("generation", "when", "who", "action", "points at", "shadow")
    for move in sorted(view.history, key=lambda move: -move.generation):
        moves.add_row(
            str(move.generation),
            _minute(move.at),
            escape(move.who),
            escape(move.action),
            points_at(move.split or {}),
            _number(move.shadow),
        )
    return [*tables, moves]


def audit_table(entries: Sequence[AuditEntry]) -> Table:
    """One line for each change."""
    table = Table("id", "when", "who", "action", "adapter", "version", "alias", "detail")
    for entry in entries:
        detail = "" if entry.detail is None else str(entry.detail)
        texts = (entry.who, entry.action, entry.adapter or "", _number(entry.version), entry.alias or "", detail)
        table.add_row(str(entry.id), _minute(entry.at), *map(escape, texts))
    return table


def published_line(published: Published) -> str:
    """What an upload became, with markup."""
    digest, aliases = published.digest[: DIGEST.stop], _aliases(published.aliases) or "none"
    if published.version is None:
        return f"[green]{published.name}[/]  {digest}…  fits; nothing was published"
    return f"[green]{published.name}:{published.version}[/]  {digest}…  aliases: {aliases}"


def points_at(split: Mapping[str, int]) -> str:
    """A split over versions in words; a single version is its number alone."""
    if len(split) == 1:
        return next(iter(split))
    return ", ".join(f"{version} ({share} %)" for version, share in sorted(split.items(), key=lambda pair: -pair[1]))


def _aliases(aliases: Mapping[str, int]) -> str:
    return ", ".join(f"{alias} → {version}" for alias, version in sorted(aliases.items()))


def _kind(problem_type: str | None) -> str:
    """What to say of the problem type; one label of several is the usual one."""
    return f" ({problem_type.replace('_', ' ')})" if problem_type and problem_type != SINGLE_LABEL else ""


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _figures(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())
