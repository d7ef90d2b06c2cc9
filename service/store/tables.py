"""The registry's tables, for SQLite and PostgreSQL alike; ``migrations`` makes and changes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

clock = Table(
    # One row, which every change counts up first. So changes come one after another, and no reader sees a later one without
    # the earlier ones, which a sequence of the database's own would not give.
    "clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
adapters = Table(
    "adapters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("newest", Integer, nullable=False),  # the highest version number ever used
    Column("changed", BigInteger, nullable=False),  # the clock at its last change
    Index("adapters_changed", "changed"),
)
versions = Table(
    "versions",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("task", String(64)),
    Column("digest", String(80)),
    Column("manifest", Text),  # null for one whose manifest could not be read, or that was deleted
    Column("reason", Text),  # why it is quarantined
    ForeignKeyConstraint(["name"], ["adapters.name"]),
)
aliases = Table(
    "aliases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("target", Text, nullable=False),
    ForeignKeyConstraint(["name"], ["adapters.name"]),
)
history = Table(
    "history",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("before", Integer),  # the generation that a rollback goes back to
    Column("target", Text),  # null where the alias was removed
    Column("action", String(16), nullable=False),
    Column("who", Text, nullable=False),
    Column("at", String(40), nullable=False),
    ForeignKeyConstraint(["name"], ["adapters.name"]),
)
audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("version", Integer),
    Column("alias", String(64)),
    Column("detail", Text),
    Index("audit_name", "name", "id"),
)
