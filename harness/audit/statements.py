"""Statements of an audit target that run: their errors name them, and they end within a deadline."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.database import Client, SqlError, cancelled_after, describe_in_full
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: reading the trail of a check takes a fraction of a second; checks under load write the most rows
LONGEST_S = 45.0
_CANCELLED = "57014"
_STATEMENT = "harness_statement"

#: rows by the names of their columns
Rows = list[dict[str, Any]]


@contextlib.contextmanager
def explained(name: str, where: str) -> Iterator[None]:
    """Turn an SQL error of one of the target's statements into an error that names the statement.

    :param name: the key of the statement.
    :param where: file and line.
    :raises DatabaseError: with the SQLSTATE.
    """
    try:
        yield
    except SqlError as error:
        raise DatabaseError(
            f"statements.{name} does not run: {describe_in_full(error)}",
            where=where,
            hint=error.diag.message_hint or "",
        ) from None


@contextlib.contextmanager
def within_deadline(client: Client, name: str, where: str) -> Iterator[None]:
    """Cancel a statement of the target that does not end. Its other errors name it: see :func:`statement_of`.

    :param name: the key of the statement.
    :param where: file and line.
    :raises DatabaseError: for a statement that was cancelled.
    """
    with cancelled_after(client, LONGEST_S) as late:
        try:
            with named(name, where):
                yield
        except SqlError as error:
            if late.is_set() and error.sqlstate in {_CANCELLED, None}:  # None: the connection was broken
                raise DatabaseError(
                    f"statements.{name} did not end within {LONGEST_S:g} s, and was cancelled", where=where
                ) from None
            raise


@contextlib.contextmanager
def named(name: str, where: str) -> Iterator[None]:
    """Let the SQL errors of a statement of the target name it: see :func:`statement_of`.

    :param name: the key of the statement.
    :param where: file and line.
    """
    try:
        yield
    except SqlError as error:
        vars(error)[_STATEMENT] = f"statements.{name} ({Path(where).name})"
        raise


def statement_of(error: BaseException) -> str:
    """Return the target's statement that raised an error, with its file and line; "" for another error."""
    return str(vars(error).get(_STATEMENT, ""))


def run_statement(
    client: Client, statement: str, name: str, where: str, parameters: Mapping[str, object] | None = None
) -> tuple[list[str], Rows]:
    """Run a statement of the target, and return the names of its columns, and its rows.

    :param statement: its text; `name` is its key, and `where` its file and line.
    :raises SqlError: of the server.
    :raises DatabaseError: for a value that cannot be read.
    """
    cursor = client.execute(statement.encode(), parameters)
    columns = [column.name for column in cursor.description or ()]
    try:
        return columns, [dict(zip(columns, row, strict=True)) for row in cursor] if columns else []
    except (ValueError, RecursionError) as error:  # of a JSON value, such as a number of thousands of digits
        raise DatabaseError(f"statements.{name}: a value cannot be read: {error}", where=where) from None
