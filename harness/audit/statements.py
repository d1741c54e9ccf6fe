"""Statements of an audit target that run: their errors name them, and they end within a deadline."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.database import Client, SqlError, cancelled_after, describe
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: reading the trail of a check takes a fraction of a second; checks under load write the most rows
LONGEST_S = 45.0
_CANCELLED = "57014"


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
            f"statements.{name} does not run: {describe(error)}", where=where, hint=error.diag.message_hint or ""
        ) from None


@contextlib.contextmanager
def within_deadline(client: Client, name: str, where: str) -> Iterator[None]:
    """Cancel a statement of the target that does not end.

    :raises DatabaseError: for a statement that was cancelled.
    """
    with cancelled_after(client, LONGEST_S) as late:
        try:
            yield
        except SqlError as error:
            if late.is_set() and error.sqlstate == _CANCELLED:
                raise DatabaseError(
                    f"statements.{name} did not end within {LONGEST_S:g} s, and was cancelled", where=where
                ) from None
            raise
