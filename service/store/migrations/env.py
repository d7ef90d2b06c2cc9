"""Alembic's entry: the connection, inside its transaction, comes from ``service.store.database``."""

from alembic import context

from service.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
