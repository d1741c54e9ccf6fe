"""What checks of captured rows compare: the rows as they are stored, and the changes since a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.audit.target import Change
    from harness.checks.context import CheckContext


def stored_rows(ctx: CheckContext, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table in the order of its first column, without the columns that belong to the trail."""
    statement = f"SELECT to_jsonb(t.*) - %s::text[] FROM {table} t ORDER BY t.*"
    return [row for (row,) in ctx.admin.rows(statement, [sorted(ctx.target.own_columns)])]


class News:
    """The changes that the trail got since they were asked for last."""

    def __init__(self, ctx: CheckContext) -> None:
        self._ctx = ctx
        self._seen = {change.id for change in ctx.changes()}

    def since_then(self) -> list[Change]:
        """Return the new changes in the order of the trail."""
        changes = [change for change in self._ctx.changes() if change.id not in self._seen]
        self._seen |= {change.id for change in changes}
        return changes


def records_of(changes: list[Change], *tables: str) -> list[Change]:
    """Return the changes of some tables, by their names."""
    return [change for change in changes if change.table_name in tables]
