"""Databases of a server: cloned from a template, dropped, or left to the end of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from harness.database.client import Client

#: CREATE DATABASE has STRATEGY from PostgreSQL 15 on (https://www.postgresql.org/docs/15/sql-createdatabase.html)
_HAS_STRATEGY = 150_000
#: the function below pg_stat_activity: planning a query of the view takes longer than the rest
_LEAVE = """
SELECT pg_database_size(oid),
       (SELECT count(pg_terminate_backend(pid)) FROM pg_stat_get_activity(NULL) WHERE datid = d.oid)
FROM pg_database d WHERE datname = %s"""


def create_database(
    admin: Client, name: str, *, owner: str, template: str | None = None, durable: bool = False
) -> None:
    """Create a database.

    :param owner: the role that owns it.
    :param template: the database to clone, which must have no connections; an empty database by default.
    :param durable: whether the server runs with fsync, which it then calls for each copied file.
    """
    statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
    if template:
        statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    # without fsync, copying the files of a small database is faster than the write-ahead log
    if admin.info.server_version >= _HAS_STRATEGY and not durable:
        statement += sql.SQL(" STRATEGY file_copy")
    admin.run(statement)


def drop_database(admin: Client, name: str) -> None:
    """Drop a database and end all connections to it, also the idle server connections of a pooler."""
    admin.run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def leave_database(admin: Client, name: str) -> int:
    """End all connections to a database that stays until its server is removed.

    :returns: its size in bytes; 0 if it is gone.
    """
    return admin.value(_LEAVE, [name]) or 0
