"""What the database holds, read and written: adapters, versions, aliases, their history, the audit log."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update

from service.store.alias import Alias, Move, Target
from service.store.bundle import Manifest
from service.store.database import CHANNEL, Database
from service.store.tables import adapters, aliases, audit, clock, history, versions

READY, QUARANTINED, DELETED = "ready", "quarantined", "deleted"
SET, ROLLED_BACK, REMOVED = "set", "rollback", "remove"
AT_ONCE = 500  # names in one query


@dataclass(frozen=True, slots=True)
class Version:
    """What requests need to know of a version, and no more, since there may be tens of thousands.

    ``task`` is None where the manifest cannot be read; whoever asks for that version is told why.
    """

    task: str | None = None
    state: str = READY
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is known of one adapter; immutable, so that a reader never sees half a change. ``changed`` is the clock then."""

    name: str
    versions: Mapping[int, Version] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, Alias] = field(default_factory=lambda: MappingProxyType({}))
    deleted: frozenset[int] = frozenset()
    newest: int = 0
    changed: int = 0

    @property
    def task(self) -> str | None:
        """The task that every version of it answers."""
        return next((version.task for version in self.versions.values() if version.task), None)

    def find(self, digest: str) -> int | None:
        """The version that has this digest, if there is one."""
        return next((number for number, version in self.versions.items() if version.digest == digest), None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit log."""

    id: int
    at: datetime
    who: str
    action: str
    name: str
    version: int | None
    alias: str | None
    detail: str | None


class Records:
    """Reads of the database, each of one moment; :meth:`change` is the only way to write.

    Everything raises :class:`Unavailable` when the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def load(self, since: int = 0) -> tuple[int, list[Adapter]]:
        """The clock, and every adapter that changed after ``since``."""
        with self.database.read() as connection:
            now = _clock(connection)
            if now == since:
                return now, []
            names = None if not since else list(connection.scalars(select(adapters.c.name).where(adapters.c.changed > since)))
            return now, _load(connection, names)

    def manifests(self, names: Sequence[str]) -> dict[str, dict[int, Manifest]]:
        """The manifests of these adapters' versions, in order, without those that cannot be read."""
        found: defaultdict[str, dict[int, Manifest]] = defaultdict(dict)
        with self.database.read() as connection:
            for some in _pieces(names):
                chosen = _chosen(versions, some, versions.c.name, versions.c.version, versions.c.manifest)
                for row in connection.execute(chosen.order_by(versions.c.version)):
                    if row.manifest:
                        found[row.name][row.version] = Manifest.model_validate_json(row.manifest)  # checked before it came here
        return found

    def history(self, name: str, alias: str) -> list[Move]:
        """An alias's moves, the newest first."""
        chosen = select(history).where(history.c.name == name, history.c.alias == alias)
        with self.database.read() as connection:
            return [_move(row) for row in connection.execute(chosen.order_by(history.c.generation.desc()))]

    def audit(self, limit: int, before: int | None = None, name: str | None = None, prefix: str = "") -> list[Entry]:
        """The newest entries of the audit log, or those before one of them; of one adapter, or of names with a prefix."""
        chosen = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            chosen = chosen.where(audit.c.id < before)
        if name is not None:
            chosen = chosen.where(audit.c.name == name)
        if prefix:
            chosen = chosen.where(func.substr(audit.c.name, 1, len(prefix)) == prefix)
        with self.database.read() as connection:
            return [Entry(row.id, datetime.fromisoformat(row.at), *row[2:]) for row in connection.execute(chosen)]

    @contextmanager
    def change(self, who: str) -> Iterator[Callable[[str], Change]]:
        """Change adapters, each by its name: all of it comes into force at the end, or nothing.

        No server and no thread changes anything else meanwhile.
        """
        with self.database.change() as connection:
            now = connection.scalar(update(clock).values(value=clock.c.value + 1).returning(clock.c.value))
            yield lambda name: Change(connection, name, who, int(now or 0))
            if self.database.is_postgres:
                connection.execute(text(f"NOTIFY {CHANNEL}"))


class Change:
    """A change of one adapter under way."""

    def __init__(self, connection: Connection, name: str, who: str, now: int) -> None:
        self._connection, self.name, self._who, self._now = connection, name, who, now
        self._at = datetime.now(UTC).isoformat(timespec="milliseconds")

    def adapter(self) -> Adapter:
        """The adapter as it stands within this change."""
        found = _load(self._connection, [self.name])
        return found[0] if found else Adapter(self.name)

    def manifests(self) -> dict[int, Manifest | None]:
        """The manifests of its versions; None for one that cannot be read."""
        rows = self._connection.execute(select(versions.c.version, versions.c.manifest).where(versions.c.name == self.name))
        return {row.version: Manifest.model_validate_json(row.manifest) if row.manifest else None for row in rows}

    def add(self, version: int, manifest: Manifest | None, reason: str | None = None) -> None:
        """Register a version; without a manifest it is quarantined from the start, for a reason."""
        self._touch(version)
        row = {
            "name": self.name, "version": version, "state": READY if manifest else QUARANTINED, "reason": reason,
            "task": manifest and manifest.task, "digest": manifest and manifest.digest,
            "manifest": manifest and manifest.model_dump_json(),
        }  # fmt: skip
        self._connection.execute(insert(versions).values(row))
        self._note("publish", version=version, detail=manifest.digest if manifest else reason)

    def add_deleted(self, version: int) -> None:
        """Register that a version once existed, so that its number is not used again."""
        self._touch(version)
        self._connection.execute(insert(versions).values(name=self.name, version=version, state=DELETED))

    def mark(self, version: int, state: str, reason: str | None = None, manifest: Manifest | None = None) -> None:
        """Change a version's state, and its manifest where that has become readable."""
        values: dict[str, Any] = {"state": state, "reason": reason}
        if manifest is not None:
            values |= {"task": manifest.task, "digest": manifest.digest, "manifest": manifest.model_dump_json()}
        if state == DELETED:
            values |= {"manifest": None}
        self._touch()
        where = (versions.c.name == self.name, versions.c.version == version)
        self._connection.execute(update(versions).where(*where).values(values))
        self._note({READY: "restore", QUARANTINED: "quarantine", DELETED: "delete"}[state], version=version, detail=reason)

    def point(self, alias: str, target: Target, action: str = SET, before: int | None = None) -> Alias:
        """Move an alias, and return it as it stands then; ``before`` is the generation that a later rollback goes back to."""
        generation = self._record(alias, target, action, before)
        where = (aliases.c.name == self.name, aliases.c.alias == alias)
        self._connection.execute(delete(aliases).where(*where))
        row = {"name": self.name, "alias": alias, "generation": generation, "target": target.dump()}
        self._connection.execute(insert(aliases).values(row))
        self._note(action, alias=alias, version=target.version, detail=target.dump())
        return Alias(generation, target)

    def remove(self, alias: str) -> None:
        """Take an alias away."""
        self._record(alias, None, REMOVED, None)
        self._connection.execute(delete(aliases).where(aliases.c.name == self.name, aliases.c.alias == alias))
        self._note(REMOVED, alias=alias)

    def before(self, alias: str, generation: int) -> tuple[int | None, Target] | None:
        """What a generation of an alias is rolled back to: that one's own predecessor, and where it pointed."""
        past = self._row(alias, generation)
        earlier = self._row(alias, past.before) if past is not None and past.before is not None else None
        return None if earlier is None or earlier.target is None else (earlier.before, Target.load(earlier.target))

    def _row(self, alias: str, generation: int) -> Row[Any] | None:
        where = (history.c.name == self.name, history.c.alias == alias, history.c.generation == generation)
        return self._connection.execute(select(history).where(*where)).one_or_none()

    def _record(self, alias: str, target: Target | None, action: str, before: int | None) -> int:
        self._touch()
        last = select(func.max(history.c.generation)).where(history.c.name == self.name, history.c.alias == alias)
        generation = 1 + (self._connection.scalar(last) or 0)
        row = {
            "name": self.name, "alias": alias, "generation": generation, "before": before,
            "target": target and target.dump(), "action": action, "who": self._who, "at": self._at,
        }  # fmt: skip
        self._connection.execute(insert(history).values(row))
        return generation

    def _touch(self, version: int = 0) -> None:
        newest = self._connection.scalar(select(adapters.c.newest).where(adapters.c.name == self.name))
        if newest is None:
            self._connection.execute(insert(adapters).values(name=self.name, newest=version, changed=self._now))
        else:
            values = {"newest": max(newest, version), "changed": self._now}
            self._connection.execute(update(adapters).where(adapters.c.name == self.name).values(values))

    def _note(self, action: str, *, version: int | None = None, alias: str | None = None, detail: str | None = None) -> None:
        row = {
            "at": self._at, "who": self._who, "action": action, "name": self.name,
            "version": version, "alias": alias, "detail": detail,
        }  # fmt: skip
        self._connection.execute(insert(audit).values(row))


def _clock(connection: Connection) -> int:
    return int(connection.scalar(select(clock.c.value)) or 0)


def _load(connection: Connection, names: Sequence[str] | None) -> list[Adapter]:
    """Adapters by name, or all of them."""
    found = []
    for some in _pieces(names):
        heads = connection.execute(_chosen(adapters, some).order_by(adapters.c.name)).all()
        if not heads:
            continue
        columns = versions.c.name, versions.c.version, versions.c.task, versions.c.state, versions.c.digest
        known, gone = defaultdict[str, dict[int, Version]](dict), defaultdict[str, set[int]](set)
        rows = connection.execute(_chosen(versions, some, *columns).order_by(versions.c.version))
        for name, number, task, state, digest in rows:
            if state == DELETED:
                gone[name].add(number)
            else:
                known[name][number] = Version(task and sys.intern(task), sys.intern(state), digest)
        pointing = defaultdict[str, dict[str, Alias]](dict)
        for name, alias, generation, target in connection.execute(_chosen(aliases, some)):
            pointing[name][alias] = _alias(generation, target)
        found += [
            Adapter(name, known.get(name, NONE), pointing.get(name, NONE), frozenset(gone.get(name, ())), newest, changed)
            for name, newest, changed in heads
        ]
    return found


NONE: Mapping[Any, Any] = MappingProxyType({})


def _chosen(table: Any, names: Sequence[str] | None, *columns: Any) -> Any:
    chosen = select(*columns) if columns else select(table)
    return chosen if names is None else chosen.where(table.c.name.in_(names))


def _pieces(names: Sequence[str] | None) -> Iterator[Sequence[str] | None]:
    if names is None:
        yield None
        return
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


@lru_cache(maxsize=4096)
def _alias(generation: int, target: str) -> Alias:
    return Alias(generation, Target.load(target))


def _move(row: Row[Any]) -> Move:
    target = Target.load(row.target) if row.target else None
    return Move(row.generation, target, row.action, row.who, datetime.fromisoformat(row.at))
