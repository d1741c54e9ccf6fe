"""Capture: installing and attaching, and what operations on live tables do to it."""

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
#: what must survive being a name: 63 bytes, quotes, semicolons, letters beyond ASCII, words of SQL
NAMES = ("x" * 63, 'semi; DROP TABLE "posts" --', "tab\tle", "täble.with'dots", "select", "%s {} $1 \\")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- putting it there --------------------------------------------------------------------------------------


@check(
    "capture.attach",
    claim="capture is put on several tables at once or on none, tells beforehand what it does, and twice is once",
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
    told = attach(ctx.owner, tables, dry_run=True)
    ctx.expect("statements told beforehand", len(told), equals=8)
    ctx.expect("definitions after the dry run", definitions(ctx.owner) == before, equals=True)
    wrong = ctx.sqlstate(partial(attach, ctx.owner, [*tables, "nowhere"]))
    ctx.expect("with a table that there is not", wrong, equals="42P01")
    ctx.expect("definitions after that", definitions(ctx.owner) == before, equals=True)
    ctx.expect("statements run", attach(ctx.owner, tables), equals=told)
    coverage = ctx.target.coverage(ctx.owner)
    ctx.expect("coverage", [coverage["public.one"], coverage["Shop.Two"]], equals=[None, None])
    triggers = "SELECT array_agg(oid ORDER BY oid) FROM pg_trigger WHERE NOT tgisinternal"
    made = ctx.admin.value(triggers)
    ctx.expect("statements the second time", attach(ctx.owner, tables), equals=[])
    ctx.expect("the same triggers", ctx.admin.value(triggers) == made, equals=True)
    changed = attach(ctx.owner, ["one"], changed_from=True)
    ctx.expect("statements to keep prior values, too", len(changed), equals=8)


@breaks(attach_tables, at="statements the second time")
def attach_tables_again_and_again(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_attach_plan", ("IF NOT EXISTS (", "IF false AND NOT EXISTS ("))


@check(
    "capture.install",
    claim="installing tells what it would do, does just that, and finds nothing to do the second time",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="installing",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def install_layer(ctx: CheckContext) -> None:
    empty = ctx.empty_database("empty")
    told = install(empty, dry_run=True)
    ctx.expect("told for an empty database", "create table audit_changes" in told, equals=True)
    ctx.expect("left by the dry run", empty.value("SELECT to_regclass('public.audit_changes')"), equals=None)
    ctx.expect("done in an empty database", install(empty), equals=told)
    ctx.write(ctx.client(), ADA, "before")
    ctx.expect("done where it is there", install(ctx.owner), equals=[])
    ctx.write(ctx.client(), ADA, "after")
    slugs = [each.data_after["slug"] for each in ctx.changes("posts")]
    ctx.expect("changes", slugs, equals=["before", "after"])


@breaks(install_layer, at="done where it is there")
def install_over_something_else(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("RETURN NULL", "RETURN NULL /* not what was installed */"))


@check(
    "capture.parity",
    claim="two environments made from the same files capture alike, and a difference between them is found",
    section=_HERE,
    severity=P0,
    item="1.2",
    area=CAPTURE_TRIGGER,
)
def parity(ctx: CheckContext) -> None:
    """Another database, installed from nothing, beside this check's own."""
    other = ctx.empty_database("parity")
    ctx.target.install_in(other)
    other.run("CREATE TABLE public.posts (id bigint PRIMARY KEY)")
    ctx.target.attach(other, "public.posts")

    def about_posts(found: dict[str, str]) -> dict[str, str]:
        return {
            name: text for name, text in found.items() if name.endswith("public.posts") or name.startswith("function ")
        }

    here, there = about_posts(definitions(ctx.owner)), about_posts(definitions(other))
    ctx.fact("definitions compared", len(there))
    ctx.expect("there are triggers to compare", any(name.startswith("trigger ") for name in there), equals=True)
    ctx.expect("differences", differences(here, there, ("here", "there")), equals=[])
    other.run("ALTER TABLE public.posts DISABLE TRIGGER USER")
    found = differences(here, about_posts(definitions(other)), ("here", "there"))
    ctx.expect("a trigger disabled there is found", bool(found), equals=True)


@breaks(parity, at="differences")
def parity_with_a_disabled_trigger(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")


@breaks(parity, at="differences")
def parity_with_another_function(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("RETURN NULL", "RETURN NULL /* another */"))


@check(
    "capture.hostile-identifiers",
    claim="no name of a schema, table or column leads the capture astray",
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
        if not ctx.expect(f"putting capture on {name}", attached, equals="done"):
            continue
        with ctx.audited(client, ADA):
            client.run(f"INSERT INTO {at} VALUES (1, 'x'); DELETE FROM {at}")
        told = [
            (each.table_schema, each.op, (each.data_after or {}).get(f"c{name}"[:63]))
            for each in ctx.changes()
            if each.table_name == name
        ]
        schema_name = f"s{name}"[:63]
        ctx.expect(f"changes of {name}", told, equals=[(schema_name, "insert", "x"), (schema_name, "delete", None)])
    ctx.expect(
        "the tables are still there", ctx.admin.value("SELECT to_regclass('public.posts')::text"), equals="posts"
    )


@breaks(hostile_identifiers, at=f"changes of {NAMES[0]}")
def hostile_identifiers_are_cut(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.table_name := left(NEW.table_name, 36)")


# --- what operations do to it ----------------------------------------------------------------------------------


@check(
    "capture.schema-change",
    claim="a new column is captured at once, a renamed table under its new name, and one made again is reported uncaptured",
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
    ctx.expect("changes by adding a column with a default", len(ctx.changes()), equals=1)
    ctx.write(client, ADA, "second")
    ctx.expect("the new column", (ctx.changes("posts")[-1].data_after or {}).get("lang"), equals="en")
    ctx.owner.run("ALTER TABLE public.posts RENAME TO articles")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.articles SET lang = 'de' WHERE slug = 'first'")
    ctx.expect("changes under the new name", [each.op for each in ctx.changes("articles")], equals=["update"])
    ctx.owner.run("DROP TABLE public.authors; CREATE TABLE public.authors (code text PRIMARY KEY)")
    ctx.expect(
        "coverage of a table made again", ctx.target.coverage(ctx.owner)["public.authors"] is None, equals=False
    )
    ctx.trail_limit(
        "the values that ADD COLUMN … DEFAULT fills in are no changes; a renamed table's history is under two names"
    )


@breaks(schema_change, at="coverage of a table made again")
def schema_change_unnoticed(ctx: CheckContext) -> None:
    blind_coverage(ctx)


@breaks(schema_change, at="changes under the new name")
def schema_change_loses_the_capture(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_TABLE_NAME <> 'posts' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@check(
    "capture.replica-role",
    claim="under session_replication_role = replica ordinary triggers are silent, and those enabled ALWAYS capture",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def replica_role(ctx: CheckContext) -> None:
    """As the apply worker of logical replication writes: with that role and an empty search_path."""

    def apply(slug: str) -> None:
        with ctx.admin.transaction():
            ctx.admin.run("SET LOCAL session_replication_role = replica; SET LOCAL search_path = ''")
            ctx.insert_post(ctx.admin, slug)

    ordinary = ctx.admin.value(_ORDINARY)
    ctx.expect("a replicated write", ctx.attempt(partial(apply, "silent")), equals="done")
    silent = [each.data_after["slug"] for each in ctx.changes("posts")]
    ctx.expect("changes as the triggers are", silent, equals=[] if ordinary else ["silent"])
    for name in [row[0] for row in ctx.admin.rows(_TRIGGERS)]:
        ctx.owner.run(f"ALTER TABLE public.posts ENABLE ALWAYS TRIGGER {name}")
    ctx.expect("a replicated write with ALWAYS", ctx.attempt(partial(apply, "heard")), equals="done")
    heard = [each.data_after["slug"] for each in ctx.changes("posts")]
    ctx.expect("changes with ALWAYS", heard, equals=[*silent, "heard"])
    ctx.documented_limit(
        "rows that replication applies are captured only where the triggers are enabled ALWAYS",
        "https://www.postgresql.org/docs/current/sql-altertable.html",
    )


_ORDINARY = """
    SELECT bool_and(tgenabled = 'O') FROM pg_trigger WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal
"""
_TRIGGERS = "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal"


@breaks(replica_role, at="changes with ALWAYS")
def replica_role_not_heard(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "IF TG_OP = 'INSERT' THEN",
            "IF current_setting('session_replication_role') = 'replica' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN",
        )
    )


@check(
    "capture.views",
    claim="writes through a view, and writes to an unlogged table, are captured like any other",
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
        client.run("UPDATE public.titles SET title = 'again'")
        client.run("INSERT INTO public.sessions VALUES (1, 'x')")
    told = [(each.table_name, each.op) for each in ctx.changes()]
    ctx.expect("changes", told, equals=[("posts", "insert"), ("posts", "update"), ("sessions", "insert")])


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
    claim="a transaction's time is that of its first change, not of its commit, and its changes have their own",
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
    [(occurred,)] = ctx.admin.rows("SELECT occurred_at FROM public.audit_transactions")
    times = [row[0] for row in ctx.admin.rows("SELECT captured_at FROM public.audit_changes ORDER BY captured_at")]
    ctx.expect(
        "first change, transaction, then the second change", times[0] <= occurred < between < times[-1], equals=True
    )
    ctx.trail_limit("occurred_at is the time of a transaction's first change; it commits later")


@breaks(occurred_at, at="first change, transaction, then the second change")
def occurred_at_is_made_up(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.occurred_at := '2026-01-01'")
