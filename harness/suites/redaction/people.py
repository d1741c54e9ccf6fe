"""The table that the checks of redaction write to: people, with columns that are excluded or masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.suites.actors import ADA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext

#: the placeholder of masked columns
MASK = "[REDACTED]"


def create_people(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE TABLE public.people (id int PRIMARY KEY, name text, email text, token text, notes jsonb, salary int);"
        "GRANT ALL ON public.people TO harness_app"
    )


def create_redacted_people(ctx: CheckContext) -> None:
    create_people(ctx)
    ctx.target.attach_redacted(ctx.owner, "public.people", exclude=["token"], mask=["email", "notes", "salary"])


def write(ctx: CheckContext, *statements: str) -> None:
    client = ctx.client()
    for statement in statements:
        with ctx.audited(client, ADA):
            client.run(statement)


def images(ctx: CheckContext) -> list[Any]:
    return [change.data_after for change in ctx.changes("people")]


def keep_everything(ctx: CheckContext) -> None:
    """Make capture ignore the redaction rules."""
    ctx.rewrite_capture(("public.threadline_redacted(TG_RELID, v_after, v_rules)", "v_after"))


INSERT = "INSERT INTO public.people VALUES (1, 'Ada', 'ada@example.org', 'secret', '{\"diagnosis\": {\"code\": \"F32\"}}', 100)"


def rows_holding(ctx: CheckContext, word: str, own_table: str = "public.people") -> int:
    """Return how many rows hold a text in any column, of all tables of the database except the audited one.

    Of the audited table, the columns that belong to the trail count.

    :param own_table: the audited table, which holds the text itself; its partitions do, too.
    """
    return sum(holding(ctx, word, own_table).values())


def holding(ctx: CheckContext, word: str, own_table: str = "public.people") -> dict[str, int]:
    """Return the same by table, without the tables that do not hold the text."""
    searched = [f"SELECT '{table}', {table_row}" for table, table_row in _searched(ctx, own_table)]
    found = ctx.admin.execute("\nUNION ALL ".join(searched).encode(), {"word": f"%{word}%"})
    return {name: number for name, number in found if number}


def _searched(ctx: CheckContext, own_table: str) -> Iterator[tuple[str, str]]:
    for name, is_own, columns in ctx.admin.rows(_TABLES, [own_table, sorted(ctx.target.own_columns)]):
        shown = name.replace("'", "''").replace("%", "%%")
        table = name.replace("%", "%%")
        if not is_own:
            yield shown, f"count(*) FROM {table} t WHERE t::text LIKE %(word)s"
        for column in columns or () if is_own else ():
            yield shown, f"count(*) FROM {table} t WHERE {column}::text LIKE %(word)s"


#: tables with rows, whether they are the audited one, and its columns that belong to the trail
_TABLES = """
    WITH own AS (SELECT to_regclass(%s) AS oid)
    SELECT format('%%I.%%I', n.nspname, c.relname), o.oid IS NOT NULL,
           (SELECT array_agg(quote_ident(a.attname)) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY (%s::text[]))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (SELECT own.oid FROM own WHERE own.oid = c.oid
                       UNION SELECT p.relid FROM own, pg_partition_tree(own.oid) p WHERE p.relid = c.oid) o ON true
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_temp%%'
"""
