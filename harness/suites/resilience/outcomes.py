"""What an error says about a unit of work: that it certainly did not happen, or that it may have happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.database import SqlError
    from harness.model.history import Outcome

#: SQLSTATEs by which a server refuses a COMMIT before it writes the commit record: data and constraint errors of
#: deferred triggers, serialization failures, deadlocks, and what a trigger raises. Not all of class 40 belong here:
#: 40003 says that the completion is unknown. Classes 08, 53, 57, 58 and XX may follow a commit that happened
#: (https://www.postgresql.org/docs/current/errcodes-appendix.html)
_REFUSED = ("22", "23", "27", "40001", "40002", "40P01", "44", "P0")


def outcome_of(error: SqlError, *, commit_sent: bool) -> Outcome:
    """Return the outcome of a unit of work that ended with an error.

    :param commit_sent: whether the COMMIT may have reached the server.
    """
    refused = (error.sqlstate or "").startswith(_REFUSED)
    return "unknown" if commit_sent and not refused else "fail"
