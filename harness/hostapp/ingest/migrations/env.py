"""Alembic's environment: one transaction for all revisions, under a lock that ends with it.

A lock of the session would stay on a server connection that a pooler lends to others; a lock of the transaction is safe
in each pool mode.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
# a second migration waits here, and then finds nothing to do
connection.execute(text("SET LOCAL lock_timeout = '60s'"))
connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('ingest migrate'))"))
connection.execute(text("CREATE SCHEMA IF NOT EXISTS ingest"))
context.configure(connection=connection, version_table="migrations", version_table_schema="ingest")
context.run_migrations()
