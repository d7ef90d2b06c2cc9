"""What the database holds, as it is read; and the one way to change it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select, text, update

from service.store.alias import Move, Target
from service.store.bell import CHANNEL
from service.store.bundle import Manifest
from service.store.change import Changes
from service.store.database import Database
from service.store.entries import Adapter, Entry
from service.store.loading import chosen, load_adapters, pieces
from service.store.tables import adapters, audit, clock, history, versions


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
            return now, load_adapters(connection, names)

    def manifests(self, names: Sequence[str]) -> dict[str, dict[int, Manifest]]:
        """The manifests of these adapters' versions, in order, without those that cannot be read."""
        found: defaultdict[str, dict[int, Manifest]] = defaultdict(dict)
        with self.database.read() as connection:
            for some in pieces(names):
                wanted = chosen(versions, some, versions.c.name, versions.c.version, versions.c.manifest)
                for row in connection.execute(wanted.order_by(versions.c.version)):
                    if row.manifest:
                        found[row.name][row.version] = Manifest.model_validate_json(row.manifest)  # checked before it came here
        return found

    def history(self, name: str, alias: str, limit: int | None = None) -> list[Move]:
        """An alias's moves, or the last of them, the newest first."""
        wanted = select(history).where(history.c.name == name, history.c.alias == alias).limit(limit)
        with self.database.read() as connection:
            return [_move(row) for row in connection.execute(wanted.order_by(history.c.generation.desc()))]

    def audit(self, limit: int, before: int | None = None, name: str | None = None, prefix: str = "") -> list[Entry]:
        """The newest entries of the audit log, or those before one of them; of one adapter, or of names with a prefix."""
        wanted = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(audit.c.id < before)
        if name is not None:
            wanted = wanted.where(audit.c.name == name)
        if prefix:
            wanted = wanted.where(func.substr(audit.c.name, 1, len(prefix)) == prefix)
        with self.database.read() as connection:
            return [Entry(row.id, datetime.fromisoformat(row.at), *row[2:]) for row in connection.execute(wanted)]

    @contextmanager
    def change(self, who: str) -> Iterator[Changes]:
        """Change adapters, each by its name: all of it comes into force at the end, or nothing.

        No server and no thread changes anything else meanwhile.
        """
        with self.database.change() as connection:
            now = connection.scalar(update(clock).values(value=clock.c.value + 1).returning(clock.c.value))
            yield Changes(connection, who, int(now or 0))
            if self.database.is_postgres:
                connection.execute(text(f"NOTIFY {CHANNEL}"))

    @contextmanager
    def hold(self, name: str) -> Iterator[Adapter]:
        """An adapter as it stands, which nobody changes meanwhile; nothing is written for it, so a full disk takes it."""
        with self.database.change() as connection:
            connection.execute(select(clock.c.value).with_for_update())
            found = load_adapters(connection, [name])
            yield found[0] if found else Adapter(name)


def _clock(connection: Connection) -> int:
    return int(connection.scalar(select(clock.c.value)) or 0)


def _move(row: Row[Any]) -> Move:
    target = Target.load(row.target) if row.target else None
    return Move(row.generation, target, row.action, row.who, datetime.fromisoformat(row.at))
