"""Prepares the database: the application's tables, Oban's tables, and the privileges of the application's role.

It runs as the role that will own the tables, past the pooler. It does not install the audit layer; its owner attaches
capture to `public.posts`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from oban.schema import install_sql
from psycopg import sql

if TYPE_CHECKING:
    from .settings import MigrationSettings

_LOG = logging.getLogger("hostapp.database")
_SCHEMA = Path(__file__).with_name("schema.sql")
_RIGHTS = (
    ("SELECT, INSERT, UPDATE", "posts"),
    ("SELECT, INSERT, DELETE", "hostapp_pauses"),
    # Oban's pruner deletes jobs, and each of its processes maintains its own rows
    ("SELECT, INSERT, UPDATE, DELETE", "oban_jobs"),
    ("SELECT, INSERT, UPDATE, DELETE", "oban_leaders"),
    ("SELECT, INSERT, UPDATE, DELETE", "oban_producers"),
)


def migrate(settings: MigrationSettings) -> None:
    """Create missing tables and grant privileges, in one transaction. Running it again, or concurrently, is safe.

    :raises psycopg.Error: when the role lacks a privilege, or the server is unreachable.
    """
    with psycopg.connect(settings.dsn, connect_timeout=10, application_name="hostapp migrate") as connection:
        # serialises migrations: IF NOT EXISTS alone does not prevent two of them from creating the same table
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('hostapp migrate'))")
        # Oban expects its enum type in the current schema
        connection.execute("SET LOCAL search_path = public")
        _run(connection, install_sql("public"))
        _run(connection, _SCHEMA.read_text(encoding="utf-8"))
        for rights, table in _RIGHTS:
            connection.execute(
                sql.SQL("GRANT {} ON public.{} TO {}").format(
                    sql.SQL(rights), sql.Identifier(table), sql.Identifier(settings.application_role)
                )
            )
    _LOG.info("the database migration is complete")


def _run(connection: psycopg.Connection[Any], statements: str) -> None:
    """Execute several statements at once; psycopg allows this for a query without parameters."""
    connection.execute(statements.encode())
