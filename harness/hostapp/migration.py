"""Prepares the database: the application's table, Oban's, and what the application's role may do with them.

Run by the role that is to own the tables, past the pooler. The audit layer is not this application's to install:
whoever owns it puts capture on `public.posts`.
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
    # Oban's pruner deletes, and each of its processes keeps rows of its own
    ("SELECT, INSERT, UPDATE, DELETE", "oban_jobs"),
    ("SELECT, INSERT, UPDATE, DELETE", "oban_leaders"),
    ("SELECT, INSERT, UPDATE, DELETE", "oban_producers"),
)


def migrate(settings: MigrationSettings) -> None:
    """Make what is missing, in one transaction; a second run, also one at the same time, changes nothing.

    :raises psycopg.Error: when the role may not.
    """
    with psycopg.connect(settings.dsn, connect_timeout=10, application_name="hostapp migrate") as connection:
        # one migration at a time: IF NOT EXISTS alone does not keep two from creating the same table
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('hostapp migrate'))")
        # Oban looks for its type in the current schema
        connection.execute("SET LOCAL search_path = public")
        _run(connection, install_sql("public"))
        _run(connection, _SCHEMA.read_text(encoding="utf-8"))
        for rights, table in _RIGHTS:
            connection.execute(
                sql.SQL("GRANT {} ON public.{} TO {}").format(
                    sql.SQL(rights), sql.Identifier(table), sql.Identifier(settings.application_role)
                )
            )
    _LOG.info("the database is prepared")


def _run(connection: psycopg.Connection[Any], statements: str) -> None:
    """Run several statements at once, which psycopg does for a text without parameters."""
    connection.execute(statements.encode())
