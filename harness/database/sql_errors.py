"""Errors of a server or of the connection to it: whose they are, and how the evidence spells them."""

from __future__ import annotations

import contextlib
import re
from enum import StrEnum
from typing import TYPE_CHECKING

import psycopg
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

#: any error of a server, or of the connection to it; `sqlstate` is None for an error of the connection
SqlError = psycopg.Error
#: the SQLSTATE of each class of errors, by its name in psycopg: `DuplicatePreparedStatement` is 42P05
SQLSTATES: dict[str, str] = {
    name: state for name, kind in vars(psycopg.errors).items() if (state := getattr(kind, "sqlstate", None))
}


class Side(StrEnum):
    """The side whose work a connection does."""

    #: the application's work
    APPLICATION = "application"
    #: the statements of the audit target
    TARGET = "audit target"
    #: provisioning, observation and cleanup
    HARNESS = "harness"


class Origin(Struct, frozen=True):
    """The origin of an SQL error."""

    side: Side
    #: whether the connection had ended when the error was raised
    closed: bool = False


_ORIGIN = "harness_origin"


def origin_of(error: SqlError) -> Origin | None:
    """Return the origin of an SQL error; None when it was raised on a connection of another library."""
    return vars(error).get(_ORIGIN)


def set_origin(error: SqlError, origin: Origin) -> None:
    """Set the origin of an SQL error, whatever it was."""
    vars(error)[_ORIGIN] = origin


@contextlib.contextmanager
def raised_for(side: Side) -> Iterator[None]:
    """Set the side of the SQL errors in the block, except for lost connections: a connection keeps its own side."""
    try:
        yield
    except SqlError as error:
        origin = origin_of(error)
        if not is_lost(error):
            set_origin(error, Origin(side, origin is not None and origin.closed))
        raise


#: beginnings of the SQLSTATEs of a connection that ended, or could not be made; 08P01 is any mistake in the protocol
#: (https://www.postgresql.org/docs/current/errcodes-appendix.html)
_LOST = ("080", "57P01", "57P02", "57P03", "57P05")
#: classes of errors that are about no statement: conflicts, resources, limits, operators, and the system
_NOT_OF_THE_STATEMENT = ("40", "53", "54", "57", "58", "XX")


def is_lost(error: SqlError) -> bool:
    """Return whether an error says that a connection ended, or could not be made."""
    if error.sqlstate:
        return error.sqlstate.startswith(_LOST)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def is_rejected(error: SqlError) -> bool:
    """Return whether the server rejected the statement itself: it did not run out of resources, and nobody ended it."""
    return bool(error.sqlstate) and not is_lost(error) and not str(error.sqlstate).startswith(_NOT_OF_THE_STATEMENT)


def describe(error: BaseException) -> str:
    """Return an error as the evidence spells it: the SQLSTATE, else the class, then the first line of the message."""
    text = str(error).strip().splitlines()
    message = text[0] if text else ""
    state = getattr(error, "sqlstate", None)
    return f"{state} {message}" if state else f"{type(error).__name__}: {message}"


def raised_within(error: BaseException) -> str:
    """Return the function that raised an error, as the server names it; "" for an error of the statement itself."""
    if not isinstance(error, SqlError):
        return ""
    context = (error.diag.context or "").strip().splitlines()
    return next((line for line in context if "function" in line), "")


def describe_in_full(error: BaseException) -> str:
    """Return an error as :func:`describe` does, with the function that raised it."""
    within = raised_within(error)
    return describe(error) + (f" ({within})" if within else "")


#: libpq does not keep PgBouncer's SQLSTATE while it connects, so refused logins are recognised by their text
_REFUSED = re.compile(
    r"authentication failed|no such user|wrong password type|cannot do SCRAM|login failed|not allowed to connect"
    # a database that matches `*` and is still unknown: PgBouncer rejects the options of the entry
    r"|no such database"
    r"|no pg_hba.conf entry|role \"[^\"]*\" does not exist|role \"[^\"]*\" is not permitted",
    re.IGNORECASE,
)


def refusal(error: BaseException) -> str | None:
    """Return the reason when a server refused the login; None when the server may not be up yet."""
    text = str(error)
    return " ".join(text.split()) if _REFUSED.search(text) else None
