"""Alembic's door: `web.ledger.database` brings the connection, inside a transaction that holds the migration lock."""

from __future__ import annotations

from alembic import context

from web.ledger.models import Model

context.configure(connection=context.config.attributes["connection"], target_metadata=Model.metadata)
context.run_migrations()
