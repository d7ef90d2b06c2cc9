"""Aliases over HTTP: look at one, move it, roll it back, remove it; and the audit log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated

from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from service.errors import BadRequest
from service.routes.caller import Caller
from service.routes.guards import KEEPS_TO_PREFIX, json_only
from service.routes.keys import DELETE, READ, WRITE
from service.routes.problems import documented
from service.routes.schemas import AliasBody
from service.routes.services import Services
from service.routes.views import AliasMove, AliasView, AuditEntry, AuditLog, Comparison
from service.store.alias import Alias, Target

PATH = "/v1/adapters/{name:str}/aliases/{alias:str}"
ETAG = re.compile(r'"(?P<generation>[0-9]{1,9})"')
MOVED = documented(400, 401, 403, 404, 409, 410, 412, 415, 422, 429, 503, 507)
MOST_ENTRIES = 1000
MOST_MOVES = 100  # of an alias that are shown; the audit log has them all
IfMatch = Annotated[
    str | None, HeaderParameter(name="if-match", description="the `etag` of an earlier answer; 412 if the alias has moved since")
]
IfNoneMatch = Annotated[str | None, HeaderParameter(name="if-none-match", description="`*` to create the alias only")]


@get(PATH, opt={"scope": READ}, tags=["aliases"], summary="Show an alias", responses=documented(400, 401, 403, 404, 429, 503))
async def show_alias(name: FromPath[str], alias: FromPath[str], services: NamedDependency[Services]) -> Response[AliasView]:
    """Where it points, its history, and how its shadow compares."""
    registry = services.lifecycle.registry
    return await asyncio.to_thread(lambda: _shown(name, alias, registry.alias(registry.get(name), alias), services))


@put(
    PATH,
    opt={"scope": WRITE},
    guards=[json_only],
    tags=["aliases"],
    summary="Point an alias",
    responses=MOVED,
)
async def set_alias(
    name: FromPath[str],
    alias: FromPath[str],
    data: JSONBody[AliasBody],
    services: NamedDependency[Services],
    caller: NamedDependency[Caller],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response[AliasView]:
    """The next request for the alias is answered by this version, or by one of these in their shares."""
    target, expected = Target(data.shares(), data.shadow), _expected(if_match, if_none_match)

    def change() -> Response[AliasView]:
        moved = services.lifecycle.set_alias(name, alias, target, require=data.require, expected=expected, who=caller.who)
        return _shown(name, alias, moved, services)

    return await services.change(change)


@post(PATH + "/rollback", opt={"scope": WRITE}, status_code=200, tags=["aliases"], summary="Roll an alias back", responses=MOVED)
async def roll_back(
    name: FromPath[str],
    alias: FromPath[str],
    services: NamedDependency[Services],
    caller: NamedDependency[Caller],
    if_match: IfMatch = None,
) -> Response[AliasView]:
    """It points where it did before its last move; once more, and it goes back one step more."""

    def change() -> Response[AliasView]:
        moved = services.lifecycle.roll_back(name, alias, expected=_expected(if_match, None), who=caller.who)
        return _shown(name, alias, moved, services)

    return await services.change(change)


@delete(PATH, opt={"scope": DELETE}, tags=["aliases"], summary="Remove an alias", responses=MOVED)
async def remove_alias(
    name: FromPath[str], alias: FromPath[str], services: NamedDependency[Services], caller: NamedDependency[Caller]
) -> None:
    """The adapter is not selected by it any more; a version that no alias points at can be deleted."""
    await services.change(lambda: services.lifecycle.registry.remove_alias(name, alias, caller.who))


@get(
    "/v1/audit",
    opt={"scope": READ, KEEPS_TO_PREFIX: True},
    tags=["adapters"],
    summary="Who changed what",
    responses=documented(400, 401, 403, 429, 503),
    sync_to_thread=True,
)
def audit(
    services: NamedDependency[Services],
    caller: NamedDependency[Caller],
    limit: Annotated[int, QueryParameter(ge=1, le=MOST_ENTRIES)] = 100,
    before: Annotated[int | None, QueryParameter(description="the id of the entry to go on after")] = None,
    adapter: Annotated[str | None, QueryParameter(description="entries of this adapter alone")] = None,
) -> AuditLog:
    """Every change of adapters, versions and aliases, the newest first."""
    found = services.lifecycle.registry.records.audit(limit, before, adapter, caller.prefix)
    return AuditLog(
        entries=[
            AuditEntry(
                id=entry.id, at=entry.at, who=entry.who, action=entry.action, adapter=entry.name,
                version=entry.version, alias=entry.alias, detail=entry.detail,
            )
            for entry in found
        ]
    )  # fmt: skip


def _expected(if_match: str | None, if_none_match: str | None) -> int | None:
    """The generation that a change is for; 0 where the alias is not to exist yet, None where any will do."""
    if if_none_match is not None:
        if if_none_match.strip() != "*" or if_match is not None:
            raise BadRequest(
                f"if-none-match {if_none_match[:40]!r} is not read here; accepted: * to create the alias, without if-match"
            )
        return 0
    match = ETAG.fullmatch(if_match.strip()) if if_match is not None else None
    if if_match is not None and match is None:
        raise BadRequest(f'if-match {if_match[:40]!r} is not an etag of an alias; accepted: one such as "3", with its quotes')
    return int(match["generation"]) if match else None


def _shown(name: str, alias: str, at: Alias, services: Services) -> Response[AliasView]:
    target = at.target
    moves = services.lifecycle.registry.records.history(name, alias, MOST_MOVES)
    history = [
        AliasMove(
            generation=move.generation, action=move.action, split=_keyed(move.target.split) if move.target else None,
            shadow=move.target.shadow if move.target else None, who=move.who, at=move.at,
        )
        for move in moves
    ]  # fmt: skip
    view = AliasView(
        adapter=name, alias=alias, generation=at.generation, version=target.version, split=_keyed(target.split),
        shadow=target.shadow, require=dict(target.require), history=history, comparison=_comparison(name, alias, at, services),
    )  # fmt: skip
    return Response(view, headers={"etag": f'"{at.generation}"'})


def _keyed(split: Mapping[int, int]) -> dict[str, int]:
    return {str(version): share for version, share in split.items()}


def _comparison(name: str, alias: str, at: Alias, services: Services) -> Comparison | None:
    task = services.lifecycle.registry.get(name).task
    tally = services.comparisons[task].get(f"{name}@{alias}") if task and at.target.shadow else None
    if tally is None or tally.shadow != at.target.shadow:
        return None
    rows = tally.rows or None
    return Comparison(
        version=tally.version, shadow=tally.shadow, rows=tally.rows, errors=tally.errors,
        agreement=rows and tally.agreed / rows, score_drift=rows and tally.drift / rows,
        batch_ms=rows and 1e3 * tally.seconds / rows,
    )  # fmt: skip
