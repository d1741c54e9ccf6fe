"""Exports of a trail by its own statement: each one continues where the last one ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.changes import REQUIRED, Change, shown
from harness.audit.statements import run_statement, within_deadline
from harness.database import Client, Side, raised_for
from harness.errors import DatabaseError

if TYPE_CHECKING:
    from harness.audit.target import AuditTarget


class TrailExport(Struct, frozen=True, kw_only=True):
    """The changes of one export."""

    changes: tuple[Change, ...]
    #: where the next export continues; None before the first change
    cursor: str | None


@raised_for(Side.TARGET)
def export_trail(target: AuditTarget, client: Client, since: str | None = None) -> TrailExport:
    """Return the changes that earlier exports do not have.

    :param since: the cursor of the last export; None for the first one.
    :raises SqlError: of the server.
    :raises DatabaseError: for a statement that does not end in time, or with wrong columns.
    """
    where = target.at("export")
    with within_deadline(client, "export", where):
        columns, rows = run_statement(client, target.statements.export, "export", where, {"since": since})
    if missing := [name for name in (*REQUIRED, "cursor") if name not in columns]:
        raise DatabaseError(f"statements.export: missing column {', '.join(missing)}", where=where)
    cursors = [row["cursor"] for row in rows]
    if wrong := [cursor for cursor in cursors if cursor != cursors[0] or isinstance(cursor, dict | list | None)]:
        raise DatabaseError(
            f"statements.export: cursor is {shown(wrong[0])}, needed one text that all rows share", where=where
        )
    return TrailExport(
        changes=tuple(target.canonical(client, rows, "export")),
        cursor=str(cursors[0]) if cursors else since,
    )
