"""Connection pools of API and worker. They keep nothing in a session, so each pool mode of a pooler is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg_pool import AsyncConnectionPool, ConnectionPool

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

    from .settings import Settings


def open_pool(settings: Settings) -> ConnectionPool[Connection[tuple[Any, ...]]]:
    """Return a pool for threads. It connects in the background, so a database that is away delays nothing."""
    pool = ConnectionPool(check=ConnectionPool.check_connection, **_options(settings))
    pool.open(wait=False)
    return pool


def async_pool(settings: Settings) -> AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]:
    """Return a pool for an event loop, to be opened there."""
    return AsyncConnectionPool(check=AsyncConnectionPool.check_connection, **_options(settings))


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "conninfo": settings.database_url,
        "kwargs": {
            "autocommit": True,
            # a pooler may send the next statement to a server connection that lacks a prepared statement
            "prepare_threshold": None,
            "application_name": "ingest",
            "connect_timeout": 3,
            # a lost host ends the connection, and not only the patience of its user
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 5000,
        },
        "min_size": settings.pool_size,
        "max_size": settings.pool_size,
        "timeout": 2.0,
        # short: the next caller begins a new attempt, and none waits for the end of a long backoff
        "reconnect_timeout": 1.0,
        "open": False,
        "name": "ingest",
    }
