"""Capture: installation, attaching, and the effect of operations on live tables."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.coverage import definitions, differences
from harness.audit.installing import attach, install
from harness.audit.target_file import TrailFeature
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


# --- installing and attaching ------------------------------------------------------------------------------


@check(
    "capture.attach",
    claim="attaching several tables is atomic and idempotent, and a dry run reports its statements",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="attaching",
    requires_features=(TrailFeature.LIBRARY,),
)
def attach_tables(ctx: CheckContext) -> None:
    ctx.owner.run('CREATE TABLE public.one (id int PRIMARY KEY); CREATE TABLE "Shop"."Two" (id int PRIMARY KEY)')
    tables = ["one", '"Shop"."Two"']
    before = definitions(ctx.owner)
    planned = attach(ctx.owner, tables, dry_run=True)
    ctx.expect("statements of the dry run", len(planned), equals=8)
    ctx.expect("definitions after the dry run", definitions(ctx.owner) == before, equals=True)
    outcome = ctx.sqlstate(partial(attach, ctx.owner, [*tables, "nowhere"]))
    ctx.expect("attaching a missing table", outcome, equals="42P01")
    ctx.expect("definitions after the failure", definitions(ctx.owner) == before, equals=True)
    ctx.expect("statements run", attach(ctx.owner, tables), equals=planned)
    coverage = ctx.target.coverage(ctx.owner)
    ctx.expect("coverage", [coverage["public.one"], coverage["Shop.Two"]], equals=[None, None])
    triggers = "SELECT array_agg(oid ORDER BY oid) FROM pg_trigger WHERE NOT tgisinternal"
    created = ctx.admin.value(triggers)
    ctx.expect("statements the second time", attach(ctx.owner, tables), equals=[])
    ctx.expect("the same triggers", ctx.admin.value(triggers) == created, equals=True)
    changed = attach(ctx.owner, ["one"], changed_from=True)
    ctx.expect("statements to keep prior values", len(changed), equals=8)


@breaks(attach_tables, at="statements the second time")
def attach_tables_again_and_again(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_attach_plan", ("IF NOT EXISTS (", "IF false AND NOT EXISTS ("))


@check(
    "capture.install",
    claim="a dry run reports exactly what installing does, and installing twice changes nothing",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="installing",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def install_layer(ctx: CheckContext) -> None:
    empty = ctx.empty_database("empty")
    planned = install(empty, dry_run=True)
    ctx.expect("the dry run creates audit_changes", "create table audit_changes" in planned, equals=True)
    ctx.expect(
        "audit_changes after the dry run", empty.value("SELECT to_regclass('public.audit_changes')"), equals=None
    )
    ctx.expect("steps in an empty database", install(empty), equals=planned)
    ctx.write(ctx.client(), ADA, "before")
    ctx.expect("steps of a second installation", install(ctx.owner), equals=[])
    ctx.write(ctx.client(), ADA, "after")
    slugs = [change.text("slug") for change in ctx.changes("posts")]
    ctx.expect("changes", slugs, equals=["before", "after"])


@breaks(install_layer, at="steps of a second installation")
def install_over_something_else(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("RETURN NULL", "RETURN NULL /* not what was installed */"))


@check(
    "capture.parity",
    claim="two environments installed from the same files capture alike, and a difference between them is found",
    section=_HERE,
    severity=P0,
    item="1.2",
    area=CAPTURE_TRIGGER,
)
def parity(ctx: CheckContext) -> None:
    """Compare this check's database with another one that is installed from scratch."""
    other = ctx.empty_database("parity")
    ctx.target.install_in(other)
    other.run("CREATE TABLE public.posts (id bigint PRIMARY KEY)")
    ctx.target.attach(other, "public.posts")

    def of_posts(named: dict[str, str]) -> dict[str, str]:
        return {
            name: definition
            for name, definition in named.items()
            if name.endswith("public.posts") or name.startswith("function ")
        }

    here, there = of_posts(definitions(ctx.owner)), of_posts(definitions(other))
    ctx.fact("definitions compared", len(there))
    ctx.expect("there are triggers to compare", any(name.startswith("trigger ") for name in there), equals=True)
    ctx.expect("differences", differences(here, there, ("here", "there")), equals=[])
    other.run("ALTER TABLE public.posts DISABLE TRIGGER USER")
    drift = differences(here, of_posts(definitions(other)), ("here", "there"))
    ctx.expect("a trigger disabled there is found", bool(drift), equals=True)


@breaks(parity, at="differences")
def parity_with_a_disabled_trigger(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")


@breaks(parity, at="differences")
def parity_with_another_function(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("RETURN NULL", "RETURN NULL /* another */"))


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
        changes = [
            (change.table_schema, change.op, (change.data_after or {}).get(f"c{name}"[:63]))
            for change in ctx.changes()
            if change.table_name == name
        ]
        schema_name = f"s{name}"[:63]
        ctx.expect(f"changes of {name}", changes, equals=[(schema_name, "insert", "x"), (schema_name, "delete", None)])
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
    for name in [row[0] for row in ctx.admin.rows(_TRIGGERS)]:
        ctx.owner.run(f"ALTER TABLE public.posts ENABLE ALWAYS TRIGGER {name}")
    ctx.expect("a replicated write with ALWAYS", ctx.attempt(partial(apply, "captured")), equals="done")
    captured = [change.text("slug") for change in ctx.changes("posts")]
    ctx.expect("changes with ALWAYS", captured, equals=[*silent, "captured"])
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
