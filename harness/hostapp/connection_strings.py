"""Connection strings, checked before they are used: errors of libpq quote them, with their passwords."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict


def problem_of(text: str) -> str:
    """Return why a connection string cannot be used, in words that repeat none of it; "" if it can.

    A password that is not percent-encoded makes libpq read a part of it as host, port or database, and then messages
    name that part.
    """
    try:
        parts = conninfo_to_dict(text)
    except (psycopg.Error, ValueError):
        return "libpq cannot parse it"
    host, port, database = (str(parts.get(name) or "") for name in ("host", "port", "dbname"))
    if "@" in host or ("@" in database and "user" not in parts):
        return "a password has to be percent-encoded: %40 for @, %2F for / and %3A for a colon"
    if not all(number.isdecimal() for number in port.split(",") if number):
        return "the port is not a number; in a password write %40 for @, %2F for / and %3A for a colon"
    return ""
