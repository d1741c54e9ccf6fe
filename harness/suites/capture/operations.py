"""Capture: installation, attaching, and the effect of operations on live tables."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.sabotage import blind_coverage

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE
#: texts that must work as identifiers: 63 bytes, quotes, semicolons, letters beyond ASCII, SQL keywords
NAMES = ("x" * 63, 'semi; DROP TABLE "posts" --', "tab\tle", "täble.with'dots", "select", "%s {} $1 \\")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@check(
    "capture.hostile-identifiers",
    claim="capture works for any name of a schema, table or column",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def hostile_identifiers(ctx: CheckContext) -> None:
    client = ctx.client()
    for name in NAMES:
        schema, table, column = quoted(f"s{name}"[:63]), quoted(name), quoted(f"c{name}"[:63])
        at = f"{schema}.{table}"
        ctx.owner.run(
            f"CREATE SCHEMA {schema}; CREATE TABLE {at} (id int PRIMARY KEY, {column} text); "
            f"GRANT USAGE ON SCHEMA {schema} TO harness_app; GRANT ALL ON {at} TO harness_app"
        )
        attached = ctx.attempt(partial(ctx.target.attach, ctx.owner, at))
        if not ctx.expect(f"attaching {name}", attached, equals="done"):
            continue
        with ctx.audited(client, ADA):
            client.run(f"INSERT INTO {at} VALUES (1, 'x'); DELETE FROM {at}")
        column_name, schema_name = f"c{name}"[:63], f"s{name}"[:63]
        values = {"insert": "x", "delete": None} if ctx.records(Recorded.IMAGE) else {}
        changes = [
            (change.table_schema, change.op, (change.data_after or {}).get(column_name) if values else None)
            for change in ctx.changes()
            if change.table_name == name
        ]
        expected = [
            (schema_name, operation, values.get(operation)) for operation in ctx.expected_ops("insert", "delete")
        ]
        ctx.expect(f"changes of {name}", changes, equals=expected)
    ctx.expect("public.posts still exists", ctx.admin.value("SELECT to_regclass('public.posts')::text"), equals="posts")


@breaks(hostile_identifiers, at=f"changes of {NAMES[0]}")
def hostile_identifiers_are_cut(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.table_name := left(NEW.table_name, 36)")


# --- operations on live tables ---------------------------------------------------------------------------------


@check(
    "capture.schema-change",
    claim="a new column is captured at once, a renamed table under its new name, and a recreated table is reported uncaptured",
    section=_HERE,
    severity=P1,
    item="1.3",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.COVERAGE,),
)
def schema_change(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, ADA, "first")
    ctx.owner.run("ALTER TABLE public.posts ADD lang text NOT NULL DEFAULT 'en'")
    ctx.expect("changes after ADD COLUMN … DEFAULT", len(ctx.changes()), equals=1)
    ctx.write(client, ADA, "second")
    ctx.expect("the new column", [change.value("lang") for change in ctx.changes("posts")[-1:]], equals=["en"])
    ctx.owner.run("ALTER TABLE public.posts RENAME TO articles")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.articles SET lang = 'de' WHERE slug = 'first'")
    ctx.expect("changes under the new name", [change.op for change in ctx.changes("articles")], equals=["update"])
    ctx.owner.run("DROP TABLE public.authors; CREATE TABLE public.authors (code text PRIMARY KEY)")
    ctx.expect("coverage of a recreated table", ctx.target.coverage(ctx.owner)["public.authors"] is None, equals=False)
    ctx.trail_limit(
        "the values that ADD COLUMN … DEFAULT fills in are not captured; a renamed table's history is under two names"
    )


@breaks(schema_change, at="coverage of a recreated table")
def schema_change_unnoticed(ctx: CheckContext) -> None:
    blind_coverage(ctx)


@breaks(schema_change, at="changes under the new name")
def schema_change_loses_the_capture(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_TABLE_NAME <> 'posts' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@check(
    "capture.replica-role",
    claim="under session_replication_role = replica ordinary triggers do not fire, and triggers enabled ALWAYS capture",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def replica_role(ctx: CheckContext) -> None:
    """Write like the apply worker of logical replication: with that role and an empty search_path."""

    def apply(slug: str) -> None:
        with ctx.admin.transaction():
            ctx.admin.run("SET LOCAL session_replication_role = replica; SET LOCAL search_path = ''")
            ctx.insert_post(ctx.admin, slug)

    ordinary = ctx.admin.value(_ORDINARY)
    ctx.expect("a replicated write", ctx.attempt(partial(apply, "silent")), equals="done")
    silent = [change.text("slug") for change in ctx.changes("posts")]
    ctx.expect("changes with the triggers as attached", silent, equals=[] if ordinary else ["silent"])
    if not ordinary:
        return
    for name in [row[0] for row in ctx.admin.rows(_TRIGGERS)]:
        ctx.owner.run(f"ALTER TABLE public.posts ENABLE ALWAYS TRIGGER {name}")
    ctx.expect("a replicated write with ALWAYS", ctx.attempt(partial(apply, "captured")), equals="done")
    captured = [change.text("slug") for change in ctx.changes("posts")]
    ctx.expect("changes with ALWAYS", captured, equals=["captured"])
    ctx.documented_limit(
        "rows that replication applies are captured only where the triggers are enabled ALWAYS",
        "https://www.postgresql.org/docs/current/sql-altertable.html",
    )


_ORDINARY = """
    SELECT bool_and(tgenabled = 'O') FROM pg_trigger WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal
"""
_TRIGGERS = "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal"


@breaks(replica_role, at="changes with ALWAYS")
def replica_role_ignored(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "IF TG_OP = 'INSERT' THEN",
            "IF current_setting('session_replication_role') = 'replica' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN",
        )
    )


@check(
    "capture.views",
    claim="writes through a view and to an unlogged table are captured like any other, in their order",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def views(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE VIEW public.titles AS SELECT id, slug, title FROM public.posts; GRANT ALL ON public.titles TO harness_app;"
        "CREATE UNLOGGED TABLE public.sessions (id int PRIMARY KEY, data text); GRANT ALL ON public.sessions TO harness_app"
    )
    ctx.target.attach(ctx.owner, "public.sessions")
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.titles (slug, title) VALUES ('seen', 'through a view')")
        client.run("INSERT INTO public.sessions VALUES (1, 'x')")
        client.run("UPDATE public.titles SET title = 'again'")
    changes = [(change.table_name, change.op) for change in ctx.changes()]
    ctx.expect("changes", changes, equals=[("posts", "insert"), ("sessions", "insert"), ("posts", "update")])


@breaks(views, at="changes")
def views_lose_an_update(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "ELSIF TG_OP = 'UPDATE' THEN",
            "ELSIF TG_OP = 'UPDATE' AND false THEN NULL; ELSIF TG_OP = 'UPDATE' THEN RETURN NULL;",
        )
    )


@check(
    "capture.occurred-at",
    claim="a transaction's time is the time of its first change, not of its commit, and each change has its own",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def occurred_at(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        ctx.insert_post(client, "first")
        between = ctx.admin.value("SELECT clock_timestamp()")
        ctx.insert_post(client, "second")
    occurred = [row[0] for row in ctx.admin.rows("SELECT occurred_at FROM public.audit_transactions")]
    times = [row[0] for row in ctx.admin.rows("SELECT captured_at FROM public.audit_changes ORDER BY captured_at")]
    in_order = len(occurred) == 1 and len(times) > 1 and times[0] <= occurred[0] < between < times[-1]
    ctx.expect("first change, transaction, then the second change", in_order, equals=True)
    ctx.trail_limit("occurred_at is the time of a transaction's first change; it commits later")


@breaks(occurred_at, at="first change, transaction, then the second change")
def occurred_at_is_made_up(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.occurred_at := '2026-01-01'")
