"""The registry's database: migrations, addresses, errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from service.errors import StartupError, StoreFull, Unavailable
from service.store.database import HEAD, Database
from service.store.tables import metadata


def test_migrations_make_the_tables_that_the_code_uses(url: str, tmp_path: Path) -> None:
    database = Database(url, tmp_path)
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
    again = Database(url, tmp_path)
    with again.read() as connection:
        assert connection.scalar(text("SELECT value FROM clock")) == 0
    database.close()
    again.close()


def test_a_change_that_fails_leaves_nothing(url: str, tmp_path: Path) -> None:
    database = Database(url, tmp_path)

    def fail() -> None:
        with database.change() as connection:
            connection.execute(text("UPDATE clock SET value = 7"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with database.read() as connection:
        assert connection.scalar(text("SELECT value FROM clock")) == 0
    database.close()


def test_every_commit_of_sqlite_is_synced_and_there_is_no_write_ahead_log(tmp_path: Path) -> None:
    database = Database(None, tmp_path)
    with database.change() as connection:
        found = [connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")]
    assert found == ["delete", 3, 1]
    database.close()
    assert [file.name for file in tmp_path.iterdir()] == ["registry.db"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:secret@host/db", "mysql://…: no such database; accepted: sqlite:///FILE"),
        ("nonsense", "no such database"),
        ("sqlite://", "no such database"),
        ("postgresql://me:secret@127.0.0.1:1/db", "no database that can be read and written"),
        ("sqlite:////proc/none/registry.db", "no database that can be read and written"),
    ],
)
def test_an_address_that_is_none_is_one_line_without_secrets(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError) as refused:
        Database(url, tmp_path)
    assert said in str(refused.value) and "secret" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StartupError, match="no database"):
        Database(None, tmp_path)
    assert (tmp_path / "registry.db").read_bytes() == b"not a database" * 100


def test_a_full_disk_and_a_locked_database_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(None, tmp_path)

    def fill() -> None:
        with database.change() as connection:
            connection.execute(text("PRAGMA max_page_count = 1"))
            connection.execute(text("CREATE TABLE large AS SELECT zeroblob(100000) AS data"))

    with pytest.raises(StoreFull):
        fill()
    database.close()
    monkeypatch.setattr("service.store.database.LOCK_SECONDS", 0.2)
    waiting = Database(None, tmp_path)
    holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable), waiting.change():
        pass
    holder.close()
    with waiting.change() as connection:
        connection.execute(text("UPDATE clock SET value = value"))
    waiting.close()
