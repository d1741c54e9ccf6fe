"""A transaction number that repeats: records of an earlier transaction get the number of the running one.

The server assigns a number twice only after a dump was restored into another cluster. The trail's own tables then hold
records with a number that is not of this cluster, and a new number in them is all that such a restore makes different.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.record import spell
from harness.database import SqlError, is_lost, roll_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.audit.target import Change
    from harness.checks.context import CheckContext

#: the columns of a table that may hold the number of a transaction
_COLUMNS = """
SELECT pg_catalog.quote_ident(attname), pg_catalog.format_type(atttypid, -1) FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
  AND atttypid = ANY ('{int4,int8,numeric,text,varchar,xid,xid8}'::regtype[])"""


def repeat_number(ctx: CheckContext, earlier: Sequence[int], number: int) -> int:
    """Give the records of the first of two earlier transactions another number, wherever the trail keeps it.

    A column keeps it if it has the numbers of both. Nothing stays changed where the trail then reads differently, apart
    from its ids of transactions: a restore would have brought the other records along.

    :param number: of the running transaction.
    :return: the number of records.
    """
    before, renumbered = ctx.changes("posts"), 0
    try:
        with ctx.admin.transaction():
            ctx.admin.run("SET LOCAL session_replication_role = replica")  # a restore fires no triggers
            for table in ctx.target.tables:
                for column, type_ in ctx.admin.rows(_COLUMNS, [table]):
                    held = f"SELECT count(DISTINCT {column}::text) FROM {table} WHERE {column}::text = ANY (%s)"
                    if ctx.admin.value(held, [list(map(str, earlier))]) == len(earlier):
                        renumbered += ctx.admin.run(
                            f"UPDATE {table} SET {column} = %s::text::{type_} WHERE {column}::text = %s",
                            [str(number), str(earlier[0])],
                        )
            if differing(before, ctx.changes("posts")):
                renumbered = 0
                roll_back()
    except SqlError as error:  # such as one of a column that nobody can write to
        if is_lost(error):
            raise
        return 0
    return renumbered


#: what a change keeps, whatever numbers transactions have
_KEPT = ("op", "table_name", "table_pk", "data_after", "changed_fields", "changed_from", "actor")


def differing(before: Sequence[Change], after: Sequence[Change]) -> list[str]:
    """Return in which changes differ from what they were before, except for the ids of their transactions."""
    now = {change.id: change for change in after}
    return [
        f"{spell(change.table_pk)}: {what}"
        for change in before
        for what in _differences(change, now.get(change.id))
    ]


def _differences(change: Change, now: Change | None) -> Iterator[str]:
    if now is None:
        yield "no change has its id"
        return
    for name in _KEPT:
        if (was := getattr(change, name)) != (found := getattr(now, name)):
            yield f"{name} {spell(found)} instead of {spell(was)}"
