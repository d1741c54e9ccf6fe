"""Connections to PostgreSQL through psycopg: statements, errors, files of SQL, cloned databases."""

from harness.database.client import (
    AnyConnection,
    Client,
    Endpoint,
    bounded,
    connect,
    console,
    cut,
    fetch,
    is_idle,
    is_open,
    on_side,
    own_port,
    quote_literal,
    quote_name,
    roll_back,
)
from harness.database.connection_strings import address_of, confidential, connect_to
from harness.database.databases import create_database, drop_database, leave_database
from harness.database.sql_errors import Origin, Side, SqlError, describe, is_lost, origin_of, raised_for, refusal
from harness.database.sql_files import load_queries, run_files

__all__ = [
    "AnyConnection",
    "Client",
    "Endpoint",
    "Origin",
    "Side",
    "SqlError",
    "address_of",
    "bounded",
    "confidential",
    "connect",
    "connect_to",
    "console",
    "create_database",
    "cut",
    "describe",
    "drop_database",
    "fetch",
    "is_idle",
    "is_lost",
    "is_open",
    "leave_database",
    "load_queries",
    "on_side",
    "origin_of",
    "own_port",
    "quote_literal",
    "quote_name",
    "raised_for",
    "refusal",
    "roll_back",
    "run_files",
]
