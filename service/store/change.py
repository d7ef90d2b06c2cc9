"""Changes of the database, each inside a transaction that ``service.store.records`` begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from service.store.alias import Alias, Target
from service.store.bundle import Manifest
from service.store.entries import DELETED, QUARANTINED, READY, Adapter
from service.store.loading import load_adapters
from service.store.tables import adapters, aliases, audit, history, versions

SET, ROLLED_BACK, REMOVED, PUBLISHED = "set", "rollback", "remove", "publish"


@dataclass(frozen=True, slots=True)
class Found:
    """What the files say of an adapter: its versions, each by its manifest or by why that cannot be read."""

    name: str
    versions: Mapping[int, Manifest | str]
    deleted: frozenset[int]
    aliases: Mapping[str, Target]


class Changes:
    """One transaction's changes, of any number of adapters, at one tick of the clock."""

    def __init__(self, connection: Connection, who: str, now: int) -> None:
        self._connection, self._who, self._now = connection, who, now

    def of(self, name: str) -> Change:
        """Changes of one adapter."""
        return Change(self._connection, name, self._who, self._now)

    def bring_in(self, found: Sequence[Found]) -> None:
        """Register adapters that are only known from their files, unless somebody was faster."""
        names = [one.name for one in found]
        known = set(self._connection.scalars(select(adapters.c.name).where(adapters.c.name.in_(names))))
        new, at = [one for one in found if one.name not in known], datetime.now(UTC).isoformat(timespec="milliseconds")
        by = {"who": self._who, "at": at}
        gone = {"state": DELETED, "task": None, "digest": None, "manifest": None, "reason": None}
        self._insert(adapters, [
            {"name": one.name, "newest": max((*one.versions, *one.deleted)), "changed": self._now} for one in new
        ])  # fmt: skip
        self._insert(versions, [
            _version_row(one.name, version, said)
            for one in new for version, said in one.versions.items()
        ])  # fmt: skip
        self._insert(versions, [{"name": one.name, "version": version, **gone} for one in new for version in sorted(one.deleted)])
        pointing = [
            {"name": one.name, "alias": alias, "generation": 1, "target": target.dump()}
            for one in new for alias, target in one.aliases.items()
        ]  # fmt: skip
        self._insert(aliases, pointing)
        self._insert(history, [{**row, "before": None, "action": SET, **by} for row in pointing])
        self._insert(audit, [
            {"name": one.name, "action": PUBLISHED, "version": version, "alias": None, **by,
             "detail": _detail(said)}
            for one in new for version, said in one.versions.items()
        ])  # fmt: skip
        self._insert(audit, [
            {"name": one.name, "action": SET, "version": target.version, "alias": alias, "detail": target.dump(), **by}
            for one in new for alias, target in one.aliases.items()
        ])  # fmt: skip

    def _insert(self, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._connection.execute(insert(table), rows)


class Change:
    """A change of one adapter under way."""

    def __init__(self, connection: Connection, name: str, who: str, now: int) -> None:
        self._connection, self.name, self._who, self._now = connection, name, who, now
        self._at = datetime.now(UTC).isoformat(timespec="milliseconds")

    def adapter(self) -> Adapter:
        """The adapter as it stands within this change."""
        found = load_adapters(self._connection, [self.name])
        return found[0] if found else Adapter(self.name)

    def manifests(self) -> dict[int, Manifest | None]:
        """The manifests of its versions; None for one that cannot be read."""
        rows = self._connection.execute(select(versions.c.version, versions.c.manifest).where(versions.c.name == self.name))
        return {row.version: Manifest.model_validate_json(row.manifest) if row.manifest else None for row in rows}

    def add(self, version: int, said: Manifest | str) -> None:
        """Register a version by its manifest; by why that cannot be read, it is quarantined from the start."""
        self._touch(version)
        self._connection.execute(insert(versions).values(_version_row(self.name, version, said)))
        self._note(PUBLISHED, version=version, detail=_detail(said))

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


def _detail(said: Manifest | str) -> str:
    return said.digest if isinstance(said, Manifest) else said


def _version_row(name: str, version: int, said: Manifest | str) -> dict[str, Any]:
    manifest, reason = (said, None) if isinstance(said, Manifest) else (None, said)
    return {
        "name": name, "version": version, "state": READY if manifest else QUARANTINED, "reason": reason,
        "task": manifest and manifest.task, "digest": manifest and manifest.digest,
        "manifest": manifest and manifest.model_dump_json(),
    }  # fmt: skip
