"""Exports of a trail by its own statement: each one continues where the last one ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness import config
from harness.audit.changes import REQUIRED, Change, change_of
from harness.audit.statements import within_deadline
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
    where = config.at_key(target.where, "statements.export")
    with within_deadline(client, "export", where):
        cursor = client.execute(target.statements.export.encode(), {"since": since})
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
    if missing := [name for name in (*REQUIRED, "cursor") if name not in names]:
        raise DatabaseError(f"statements.export: missing column {', '.join(missing)}", where=where)
    cursors = {row["cursor"] for row in rows}
    if len(cursors) > 1 or None in cursors:
        raise DatabaseError(
            f"statements.export: found {len(cursors)} values of cursor, needed one text that all rows share",
            where=where,
        )
    changes = (change_of(row, target.own_columns, where) for row in rows)
    return TrailExport(
        changes=tuple(replace(change, actor=target.actor.read(change.actor)) for change in changes),
        cursor=str(cursors.pop()) if cursors else since,
    )
