"""Validates the rows of a target's `sql.state`: an unknown word would be judged as a wrong state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.checks.record import NotExercisedError
from harness.database import SqlError, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.database import Client

#: the states that a target's query may return
WORDS = ("waiting", "running", "done", "failed", "cancelled")
_COLUMNS = 2
#: a query for states is ended by the server after this time, seconds
_LONGEST_S = 10


class StateQueryError(NotExercisedError):
    """The query of a target failed, or returned something else than keys and states."""


def read_states(client: Client, query: str) -> dict[int, str]:
    """Return the state of each job, by its key.

    :raises StateQueryError: with what was found and expected.
    """
    try:
        client.run(f"SET statement_timeout = '{_LONGEST_S} s'")
        return states_in(client.rows(query))
    except SqlError as error:
        raise StateQueryError(f"sql.state of the target failed: {describe(error)}") from None


def states_in(rows: Iterable[Sequence[Any]]) -> dict[int, str]:
    """Return the state of each job, by its key.

    :raises StateQueryError: with what was found and expected.
    """
    found = {}
    for row in rows:
        if len(row) != _COLUMNS:
            raise StateQueryError(f"sql.state returns {len(row)} columns, expected key and state")
        key, state = row
        try:
            number = int(key)
        except (TypeError, ValueError, OverflowError):
            raise StateQueryError(f"sql.state returns the key {key!r}, expected an integer") from None
        if state not in WORDS:
            raise StateQueryError(f"sql.state returns {state!r} for job {number}, expected one of {', '.join(WORDS)}")
        found[number] = str(state)
    return found
