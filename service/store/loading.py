"""Adapters read from the database."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, select

from service.store.alias import Alias, Target
from service.store.entries import DELETED, Adapter, Version
from service.store.tables import adapters, aliases, versions

AT_ONCE = 500  # names in one query
NONE: Mapping[Any, Any] = MappingProxyType({})


def load_adapters(connection: Connection, names: Sequence[str] | None) -> list[Adapter]:
    """Adapters by name, or all of them."""
    found = []
    for some in pieces(names):
        heads = connection.execute(chosen(adapters, some).order_by(adapters.c.name)).all()
        if not heads:
            continue
        columns = versions.c.name, versions.c.version, versions.c.task, versions.c.state, versions.c.digest
        known, gone = defaultdict[str, dict[int, Version]](dict), defaultdict[str, set[int]](set)
        rows = connection.execute(chosen(versions, some, *columns).order_by(versions.c.version))
        for name, number, task, state, digest in rows:
            if state == DELETED:
                gone[name].add(number)
            else:
                known[name][number] = Version(task and sys.intern(task), sys.intern(state), digest)
        pointing = defaultdict[str, dict[str, Alias]](dict)
        for name, alias, generation, target in connection.execute(chosen(aliases, some)):
            pointing[name][alias] = _alias(generation, target)
        found += [
            Adapter(name, known.get(name, NONE), pointing.get(name, NONE), frozenset(gone.get(name, ())), newest, changed)
            for name, newest, changed in heads
        ]
    return found


def chosen(table: Any, names: Sequence[str] | None, *columns: Any) -> Any:
    """A query of a table, or of some of its columns, for these adapters or for all."""
    found = select(*columns) if columns else select(table)
    return found if names is None else found.where(table.c.name.in_(names))


def pieces(names: Sequence[str] | None) -> Iterator[Sequence[str] | None]:
    """The names, as many at a time as one query takes; None stands for all."""
    if names is None:
        yield None
        return
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


@lru_cache(maxsize=4096)
def _alias(generation: int, target: str) -> Alias:
    return Alias(generation, Target.load(target))
