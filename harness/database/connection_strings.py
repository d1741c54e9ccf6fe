"""Connection strings of an operator: connecting with them, and the parts that evidence must not show."""

from __future__ import annotations

import socket

import psycopg
from psycopg.conninfo import conninfo_to_dict

from harness.database.client import Client
from harness.errors import ConfigError
from harness.passwords import passwords_of

_INVALID = "invalid connection string: libpq cannot parse it"


def connect_to(dsn: str, *, connect_timeout_s: int = 10) -> Client:
    """Connect in autocommit mode with a connection string.

    :param connect_timeout_s: seconds.
    :raises SqlError: as psycopg does.
    :raises ConfigError: for an invalid connection string. The message does not repeat it: it may hold a password.
    """
    try:
        if any("@" in (host or "") for host in str(conninfo_to_dict(dsn).get("host", "")).split(",")):
            raise ConfigError(
                "the host of the connection string contains an @, so libpq reads only a part of the password",
                hint="in a password write %40 for @, %2F for / and %3A for a colon",
            )
        return Client.connect(dsn, autocommit=True, connect_timeout=connect_timeout_s, prepare_threshold=None)
    except psycopg.ProgrammingError:
        raise ConfigError(_INVALID) from None


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def confidential(dsn: str) -> tuple[str, ...]:
    """Return the parts of a connection string that evidence must not show: passwords, and the addresses of servers.

    :raises ConfigError: for an invalid connection string.
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigError(_INVALID) from None
    found = [*passwords_of(dsn)]
    for name in ("host", "hostaddr"):
        for host in str(parts.get(name) or "").split(","):
            if host not in ("", *_LOOPBACK) and not host.startswith("/"):
                found += [host, *_addresses(host)]
    return tuple(dict.fromkeys(found))


def address_of(dsn: str) -> tuple[str, ...]:
    """Return the server and the database that a connection string names, without the login; "" for a default."""
    parts = conninfo_to_dict(dsn)
    return tuple(str(parts.get(name) or "") for name in ("service", "host", "hostaddr", "port", "dbname"))


def _addresses(name: str) -> list[str]:
    """Return the addresses of a host: libpq's messages show them next to its name."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []
