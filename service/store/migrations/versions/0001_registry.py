"""Adapters, versions, aliases with their history, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    clock = op.create_table(
        "clock",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(clock, [{"id": 1, "value": 0}])
    op.create_table(
        "adapters",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("newest", sa.Integer, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    op.create_index("adapters_changed", "adapters", ["changed"])
    op.create_table(
        "versions",
        sa.Column("name", sa.String(64), sa.ForeignKey("adapters.name"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("task", sa.String(64)),
        sa.Column("digest", sa.String(80)),
        sa.Column("manifest", sa.Text),
        sa.Column("reason", sa.Text),
    )
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(64), sa.ForeignKey("adapters.name"), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
    )
    op.create_table(
        "history",
        sa.Column("name", sa.String(64), sa.ForeignKey("adapters.name"), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True),
        sa.Column("before", sa.Integer),
        sa.Column("target", sa.Text),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("alias", sa.String(64)),
        sa.Column("detail", sa.Text),
    )
    op.create_index("audit_name", "audit", ["name", "id"])
