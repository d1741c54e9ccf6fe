"""The search for a text in a database: which tables hold it, except for the audited table that it was written to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext

#: tables with rows, whether they are the audited one, and its columns that belong to the trail
_TABLES = """
    WITH own AS (SELECT to_regclass(%s) AS oid)
    SELECT format('%%I.%%I', n.nspname, c.relname), o.oid IS NOT NULL,
           (SELECT array_agg(quote_ident(a.attname)) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY (%s::text[]))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (SELECT own.oid FROM own WHERE own.oid = c.oid
                       UNION SELECT p.relid FROM own, pg_partition_tree(own.oid) p WHERE p.relid = c.oid) o ON true
    WHERE c.relkind IN ('r', 'm') AND c.relispopulated
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_temp%%'
"""


def holding(ctx: CheckContext, text: str, own_table: str) -> dict[str, int]:
    """Return how many rows of each table hold a text in any column; tables that do not hold it are left out.

    Of the audited table and its partitions, only the columns that belong to the trail count.

    :param own_table: the audited table that the text was written to.
    """
    searched = [f"SELECT '{table}', {table_row}" for table, table_row in _searched(ctx, own_table)]
    found = ctx.admin.execute("\nUNION ALL ".join(searched).encode(), {"text": f"%{text}%"})
    return {name: number for name, number in found if number}


def _searched(ctx: CheckContext, own_table: str) -> Iterator[tuple[str, str]]:
    for name, is_own, columns in ctx.admin.rows(_TABLES, [own_table, sorted(ctx.target.own_columns)]):
        shown = name.replace("'", "''").replace("%", "%%")
        # without inheriting tables, which are searched themselves, or are the audited one
        table = f"ONLY {name.replace('%', '%%')}"
        if not is_own:
            yield shown, f"count(*) FROM {table} t WHERE (t.*)::text LIKE %(text)s"
        for column in columns or () if is_own else ():
            yield shown, f"count(*) FROM {table} t WHERE t.{column.replace('%', '%%')}::text LIKE %(text)s"
