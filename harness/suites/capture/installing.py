"""Capture: installing and attaching, again and elsewhere, and the trail's own tables."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from harness.audit.coverage import definitions, differences
from harness.checks.record import NotApplicableError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.errors import DatabaseError
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.stored import in_order
from harness.suites.capture.uncaptured import weaken

if TYPE_CHECKING:
    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE


# --- again -----------------------------------------------------------------------------------------------------


@check(
    "capture.attach",
    claim="attaching a table again, after detaching or recreating it, captures each write once and keeps its history",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="attaching",
    needs=(TRANSACTION_BLOCKS,),
)
def attach_again(ctx: CheckContext) -> None:
    client, target = ctx.client(), ctx.target
    attach = partial(target.attach, ctx.owner, "public.authors")

    def write(code: str) -> None:
        with ctx.audited(client, ADA):
            client.run("INSERT INTO public.authors VALUES (%s, 'x')", [code])
            client.run("UPDATE public.authors SET name = 'y' WHERE code = %s", [code])
            client.run("DELETE FROM public.authors WHERE code = %s", [code])

    def captured() -> int:
        return len(_of_one_kind(ctx, ctx.changes("authors")))

    write("first")
    ctx.fact("attaching a second time", ctx.attempt(attach))
    write("second")
    ctx.expect("changes after attaching a second time", captured(), equals=2)
    missing = ctx.attempt(partial(target.attach, ctx.owner, "public.nowhere"))
    ctx.expect("attaching a missing table", missing == "done", equals=False)
    write("third")
    ctx.expect("changes after attaching a missing table", captured(), equals=3)
    if target.statements.detach:
        target.detach(ctx.owner, "public.authors")
        write("unseen")
        ctx.expect("changes after detaching", captured(), equals=3)
        attach()
        write("fourth")
        ctx.expect("changes after attaching once more", captured(), equals=4)
    before = captured()
    anew = (
        "DROP TABLE public.authors; CREATE TABLE public.authors (code text PRIMARY KEY, name text NOT NULL);"
        "GRANT ALL ON public.authors TO harness_app"
    )
    if weaken(ctx, ctx.owner, anew):
        attach()
        write("fifth")
        ctx.expect("changes of a recreated table", captured(), equals=before + 1)


def _of_one_kind(ctx: CheckContext, changes: list[Change]) -> list[Change]:
    """Return the changes of the first operation that the trail records: one for each row that is written and deleted."""
    kind = next(iter(ctx.expected_ops("insert", "update", "delete")), "")
    return [change for change in changes if change.op == kind]


@breaks(attach_again, at="changes of a recreated table")
def attach_leaves_inserts_out(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_attach",
        ("EXECUTE v_statement;", "IF v_statement NOT LIKE '%AFTER INSERT%' THEN EXECUTE v_statement; END IF;"),
    )


@check(
    "capture.install",
    claim="installing the trail again, or an attempt at it, keeps its history and its capture",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="installing",
    needs=(TRANSACTION_BLOCKS,),
)
def install_again(ctx: CheckContext) -> None:
    if not ctx.target.install:
        raise NotApplicableError("the audit target names no SQL that installs the trail")
    client = ctx.client()
    _write_and_delete(ctx, client, "before")
    before = ctx.changes()
    installer = ctx.admin if ctx.target.needs_superuser else ctx.owner
    try:
        with installer.transaction():
            ctx.target.install_in(installer)
        outcome = "done"
    except DatabaseError as error:  # a script that cannot run twice is harmless if it changes nothing
        outcome = f"refused: {error.what}"
    ctx.fact("installing a second time", outcome)
    ctx.expect("the history afterwards", in_order(ctx, ctx.changes()) == in_order(ctx, before), equals=True)
    _write_and_delete(ctx, client, "after")
    new = len(_of_one_kind(ctx, ctx.changes())) - len(_of_one_kind(ctx, before))
    ctx.expect("new changes", new, equals=1)


def _write_and_delete(ctx: CheckContext, client: Client, slug: str) -> None:
    """Insert, update and delete a post in one audited unit of work: a trail may leave one kind of change out."""
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug) VALUES (%s)", [slug])
        client.run("UPDATE public.posts SET title = 'new' WHERE slug = %s", [slug])
        client.run("DELETE FROM public.posts WHERE slug = %s", [slug])


@breaks(install_again, at="the history afterwards")
def install_begins_anew(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE FUNCTION public.anew() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "'BEGIN DELETE FROM public.audit_changes; END'; "
        "CREATE EVENT TRIGGER anew ON ddl_command_end WHEN TAG IN ('CREATE FUNCTION') EXECUTE FUNCTION public.anew()"
    )


# --- elsewhere -------------------------------------------------------------------------------------------------

#: the table `posts` as SQL that makes it, without its foreign keys
_POSTS = """
    SELECT format('CREATE TABLE public.posts (%%s)', string_agg(part, ', ' ORDER BY place)) FROM (
        SELECT a.attnum AS place, format('%%I %%s%%s%%s', a.attname, format_type(a.atttypid, a.atttypmod),
                   CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
                   CASE WHEN a.attidentity <> '' THEN ' GENERATED BY DEFAULT AS IDENTITY'
                        ELSE coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '') END) AS part
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'public.posts'::regclass AND a.attnum > 0 AND NOT a.attisdropped
          AND a.attname <> ALL (%s::text[])
        UNION ALL
        SELECT 10000 + row_number() OVER (ORDER BY k.conname), pg_get_constraintdef(k.oid) FROM pg_constraint k
        WHERE k.conrelid = 'public.posts'::regclass AND k.contype IN ('p', 'u')
    ) AS parts
"""
_CALLED = """
    SELECT DISTINCT 'function ' || t.tgfoid::regprocedure FROM pg_trigger t
    WHERE t.tgrelid = ANY (%s::regclass[]) AND NOT t.tgisinternal
"""


@check(
    "capture.parity",
    claim="two environments installed from the same files capture alike, and a difference between them is found",
    section=_HERE,
    severity=P0,
    item="1.2",
    area=CAPTURE_TRIGGER,
)
def parity(ctx: CheckContext) -> None:
    """Compare this check's database with another one that is installed from scratch, with one equal table."""
    other = ctx.empty_database("parity")
    installer = ctx.connect(ctx.lab.admin(other.info.dbname)) if ctx.target.needs_superuser else other
    ctx.target.install_in(installer)
    other.run(ctx.admin.value(_POSTS, [sorted(ctx.target.own_columns)]))
    ctx.target.attach(other, "public.posts")
    tables = ["public.posts", *(table for table in ctx.target.tables if other.value("SELECT to_regclass(%s)", [table]))]
    with ctx.owner.transaction():
        ctx.owner.run("SET LOCAL search_path = ''")
        called = {name for (name,) in ctx.owner.rows(_CALLED, [tables])}
    there = _comparable(other)
    # of the functions here, those for other tables have no counterpart there
    here = {
        name: definition
        for name, definition in _comparable(ctx.owner).items()
        if name in called or name in there or any(name.endswith((f" on {table}", f" of {table}")) for table in tables)
    }
    ctx.fact("definitions compared", len(there))
    ctx.expect("there are triggers to compare", any(name.startswith("trigger ") for name in there), equals=True)
    ctx.expect("differences", differences(here, there, ("here", "there")), equals=[])
    if weaken(ctx, other, "ALTER TABLE public.posts DISABLE TRIGGER USER"):
        drift = differences(here, _comparable(other), ("here", "there"))
        ctx.expect("a trigger disabled there is found", bool(drift), equals=True)


def _comparable(client: Client) -> dict[str, str]:
    """Return definitions without the table's number in its database, which triggers may have as an argument."""
    posts = client.value("SELECT 'public.posts'::regclass::oid::text")
    number = re.compile(rf"(?<!\d){posts}(?!\d)")
    return {name: number.sub("NUMBER", definition) for name, definition in definitions(client).items()}


@breaks(parity, at="differences")
def parity_with_a_disabled_trigger(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")


@breaks(parity, at="differences")
def parity_with_another_function(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("RETURN NULL", "RETURN NULL /* another */"))


# --- the trail's own tables ------------------------------------------------------------------------------------


@check(
    "capture.no-recursion",
    claim="the trail does not record the writes to its own tables",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
)
def no_recursion(ctx: CheckContext) -> None:
    _write_and_delete(ctx, ctx.client(), "first")
    recorded = {f"{change.table_schema}.{change.table_name}" for change in ctx.changes()}
    ctx.expect("tables of the recorded changes", sorted(recorded), equals=["public.posts"])


@breaks(no_recursion, at="tables of the recorded changes")
def no_recursion_but_forced(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE TRIGGER itself AFTER INSERT ON public.audit_transactions REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture('', 'id')"
    )


#: where rows of the trail are: its tables with their partitions and children, and the sequences that number them
_KEPT_IN = """
    WITH RECURSIVE kept (id) AS (
        SELECT t.name::regclass::oid FROM unnest(%s::text[]) AS t (name)
        UNION SELECT i.inhrelid FROM pg_inherits i JOIN kept ON kept.id = i.inhparent
    )
    SELECT format('%%I.%%I', n.nspname, c.relname), c.relpersistence = 'p'
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid IN (SELECT id FROM kept)
       OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d JOIN kept ON kept.id = d.refobjid
                                      WHERE d.objid = c.oid AND d.deptype IN ('a', 'i'))
    ORDER BY 1
"""


@check(
    "capture.durable",
    claim="the trail is as durable as the audited tables: its own tables are permanent, and capture does not make the commit asynchronous",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="trail tables",
    needs=(TRANSACTION_BLOCKS,),
)
def durable(ctx: CheckContext) -> None:
    for table, permanent in ctx.admin.rows(_KEPT_IN, [list(ctx.target.tables)]):
        ctx.expect(f"{table} survives a crash", permanent, equals=True)
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("SET LOCAL synchronous_commit = on")
        ctx.insert_post(client, "durable")
        client.run("SET CONSTRAINTS ALL IMMEDIATE")
        ctx.expect("synchronous_commit after the write", client.value("SHOW synchronous_commit"), equals="on")


@breaks(durable, at="public.audit_changes survives a crash")
def durable_no_more(ctx: CheckContext) -> None:
    ctx.sabotage("ALTER TABLE public.audit_changes SET UNLOGGED")


@breaks(durable, at="synchronous_commit after the write")
def durable_sometime(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "SET LOCAL synchronous_commit = off")
