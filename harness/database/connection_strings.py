"""Connection strings of an operator: connecting with them, and the parts that evidence must not show."""

from __future__ import annotations

import socket

import psycopg
from psycopg.conninfo import conninfo_to_dict

from harness.database.client import Client
from harness.errors import ConfigError
from harness.passwords import passwords_of

_INVALID = "invalid connection string: libpq cannot parse it"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def connect_to(dsn: str, *, connect_timeout_s: int = 10) -> Client:
    """Connect in autocommit mode with a connection string.

    :param connect_timeout_s: seconds.
    :raises SqlError: as psycopg does.
    :raises ConfigError: for an invalid connection string. The message does not repeat it: it may hold a password.
    """
    _ = _parts(dsn)
    try:
        return Client.connect(dsn, autocommit=True, connect_timeout=connect_timeout_s, prepare_threshold=None)
    except psycopg.ProgrammingError:  # a value that libpq parses and cannot use
        raise ConfigError(_INVALID) from None


def confidential(dsn: str) -> tuple[str, ...]:
    """Return the parts of a connection string that evidence must not show: passwords, and the addresses of servers.

    :raises ConfigError: for an invalid connection string.
    """
    parts = _parts(dsn)
    found = [*passwords_of(dsn)]
    for name in ("host", "hostaddr"):
        for host in parts.get(name, "").split(","):
            if host not in ("", *_LOOPBACK) and not host.startswith("/"):
                found += [host, *_addresses(host)]
    return tuple(dict.fromkeys(found))


def address_of(dsn: str) -> tuple[str, ...]:
    """Return the server and the database that a connection string names, without the login; "" for a default.

    :raises ConfigError: for an invalid connection string.
    """
    parts = _parts(dsn)
    return tuple(parts.get(name, "") for name in ("service", "host", "hostaddr", "port", "dbname"))


def _parts(dsn: str) -> dict[str, str]:
    """Return the parameters of a connection string, as texts.

    libpq quotes an invalid one in its error. Of a valid one whose password is not percent-encoded, it reads a part of
    the password as host, port or database, and quotes that part.
    """
    try:
        parts = {name: str(value or "") for name, value in conninfo_to_dict(dsn).items()}
    except (psycopg.Error, ValueError):
        raise ConfigError(_INVALID) from None
    host, port, database = (parts.get(name, "") for name in ("host", "port", "dbname"))
    for wrong, problem in (
        ("@" in host, "the host contains an @"),
        (not all(number.isdecimal() for number in port.split(",") if number), "the port is not a number"),
        ("@" in database and "user" not in parts, "the database contains an @, and the user is missing"),
    ):
        if wrong:
            raise ConfigError(
                f"invalid connection string: {problem}, so libpq reads a part of the password as an address",
                hint="in a password write %40 for @, %2F for / and %3A for a colon",
            )
    return parts


def _addresses(name: str) -> list[str]:
    """Return the addresses of a host: libpq's messages show them next to its name."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []
