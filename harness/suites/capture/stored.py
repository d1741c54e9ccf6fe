"""What checks of captured rows write and compare: the rows as they are stored, and the changes since a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from harness.audit.target_file import Recorded
from harness.suites.actors import ADA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.database import Client

T = TypeVar("T")

#: why a check that deletes no row does not apply
DELETES_ALONE = "the trail records neither inserts nor updates: see trail.inserts and trail.updates"


def insert_row(ctx: CheckContext, client: Client, slug: str) -> None:
    """Insert a post in one audited unit of work, and change nothing else, whatever the trail records."""
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug, title) VALUES (%s, 'a title')", [slug])


def in_order(ctx: CheckContext, values: Iterable[T]) -> list[T]:
    """Return what is compared in the order of the changes; sorted, for a trail that records no order."""
    return list(values) if ctx.records(Recorded.ORDER) else sorted(values, key=str)


def stored_rows(ctx: CheckContext, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table in the order of their columns, without the columns that belong to the trail."""
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
