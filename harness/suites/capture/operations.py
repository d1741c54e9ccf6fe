"""Capture: installing and attaching, and what operations on live tables do to it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.coverage import definitions, differences
from harness.audit.installing import attach, install
from harness.audit.target_file import Feature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.habits import ADA, CAPTURE_TRIGGER, blind_coverage

if TYPE_CHECKING:
    from harness.checks.context import Bench

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
    area="attaching",
    claims=(Feature.LIBRARY,),
)
def attach_tables(bench: Bench) -> None:
    bench.owner.run('CREATE TABLE public.one (id int PRIMARY KEY); CREATE TABLE "Shop"."Two" (id int PRIMARY KEY)')
    tables = ["one", '"Shop"."Two"']
    before = definitions(bench.owner)
    told = attach(bench.owner, tables, dry_run=True)
    bench.expect("statements told beforehand", len(told), equals=8)
    bench.expect("definitions after the dry run", definitions(bench.owner) == before, equals=True)
    wrong = bench.sqlstate(partial(attach, bench.owner, [*tables, "nowhere"]))
    bench.expect("with a table that there is not", wrong, equals="42P01")
    bench.expect("definitions after that", definitions(bench.owner) == before, equals=True)
    bench.expect("statements run", attach(bench.owner, tables), equals=told)
    coverage = bench.target.coverage(bench.owner)
    bench.expect("coverage", [coverage["public.one"], coverage["Shop.Two"]], equals=[None, None])
    triggers = "SELECT array_agg(oid ORDER BY oid) FROM pg_trigger WHERE NOT tgisinternal"
    made = bench.admin.value(triggers)
    bench.expect("statements the second time", attach(bench.owner, tables), equals=[])
    bench.expect("the same triggers", bench.admin.value(triggers) == made, equals=True)
    changed = attach(bench.owner, ["one"], changed_from=True)
    bench.expect("statements to keep prior values, too", len(changed), equals=8)


@breaks(attach_tables, at="statements the second time")
def attach_tables_again_and_again(bench: Bench) -> None:
    bench.rewrite_function("threadline_attach_plan", ("IF NOT EXISTS (", "IF false AND NOT EXISTS ("))


@check(
    "capture.install",
    claim="installing tells what it would do, does just that, and finds nothing to do the second time",
    section=_HERE,
    severity=P1,
    area="installing",
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def install_layer(bench: Bench) -> None:
    empty = bench.empty_database("empty")
    told = install(empty, dry_run=True)
    bench.expect("told for an empty database", "create table audit_changes" in told, equals=True)
    bench.expect("left by the dry run", empty.value("SELECT to_regclass('public.audit_changes')"), equals=None)
    bench.expect("done in an empty database", install(empty), equals=told)
    bench.write(bench.client(), ADA, "before")
    bench.expect("done where it is there", install(bench.owner), equals=[])
    bench.write(bench.client(), ADA, "after")
    slugs = [each.data_after["slug"] for each in bench.changes("posts")]
    bench.expect("changes", slugs, equals=["before", "after"])


@breaks(install_layer, at="done where it is there")
def install_over_something_else(bench: Bench) -> None:
    bench.rewrite_capture(("RETURN NULL", "RETURN NULL /* not what was installed */"))


@check(
    "capture.parity",
    claim="two environments made from the same files capture alike, and a difference between them is found",
    section=_HERE,
    severity=P0,
    area=CAPTURE_TRIGGER,
)
def parity(bench: Bench) -> None:
    """Another database, installed from nothing, beside this check's own."""
    other = bench.empty_database("parity")
    bench.target.install_in(other)
    other.run("CREATE TABLE public.posts (id bigint PRIMARY KEY)")
    bench.target.attach(other, "public.posts")

    def about_posts(found: dict[str, str]) -> dict[str, str]:
        return {
            name: text for name, text in found.items() if name.endswith("public.posts") or name.startswith("function ")
        }

    here, there = about_posts(definitions(bench.owner)), about_posts(definitions(other))
    bench.fact("definitions compared", len(there))
    bench.expect("there are triggers to compare", any(name.startswith("trigger ") for name in there), equals=True)
    bench.expect("differences", differences(here, there, ("here", "there")), equals=[])
    other.run("ALTER TABLE public.posts DISABLE TRIGGER USER")
    found = differences(here, about_posts(definitions(other)), ("here", "there"))
    bench.expect("a trigger disabled there is found", bool(found), equals=True)


@breaks(parity, at="differences")
def parity_with_a_disabled_trigger(bench: Bench) -> None:
    bench.disable_capture("public.posts")


@breaks(parity, at="differences")
def parity_with_another_function(bench: Bench) -> None:
    bench.rewrite_capture(("RETURN NULL", "RETURN NULL /* another */"))


@check(
    "capture.hostile-identifiers",
    claim="no name of a schema, table or column leads the capture astray",
    section=_HERE,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def hostile_identifiers(bench: Bench) -> None:
    client = bench.client()
    for name in NAMES:
        schema, table, column = quoted(f"s{name}"[:63]), quoted(name), quoted(f"c{name}"[:63])
        at = f"{schema}.{table}"
        bench.owner.run(
            f"CREATE SCHEMA {schema}; CREATE TABLE {at} (id int PRIMARY KEY, {column} text); "
            f"GRANT USAGE ON SCHEMA {schema} TO harness_app; GRANT ALL ON {at} TO harness_app"
        )
        attached = bench.attempt(partial(bench.target.attach, bench.owner, at))
        if not bench.expect(f"putting capture on {name}", attached, equals="done"):
            continue
        with bench.audited(client, ADA):
            client.run(f"INSERT INTO {at} VALUES (1, 'x'); DELETE FROM {at}")
        told = [
            (each.table_schema, each.op, (each.data_after or {}).get(f"c{name}"[:63]))
            for each in bench.changes()
            if each.table_name == name
        ]
        schema_name = f"s{name}"[:63]
        bench.expect(f"changes of {name}", told, equals=[(schema_name, "insert", "x"), (schema_name, "delete", None)])
    bench.expect(
        "the tables are still there", bench.admin.value("SELECT to_regclass('public.posts')::text"), equals="posts"
    )


@breaks(hostile_identifiers, at=f"changes of {NAMES[0]}")
def hostile_identifiers_are_cut(bench: Bench) -> None:
    bench.tamper("audit_changes", "NEW.table_name := left(NEW.table_name, 36)")


# --- what operations do to it ----------------------------------------------------------------------------------


@check(
    "capture.schema-change",
    claim="a new column is captured at once, a renamed table under its new name, and one made again is reported uncaptured",
    section=_HERE,
    severity=P1,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.COVERAGE,),
)
def schema_change(bench: Bench) -> None:
    client = bench.client()
    bench.write(client, ADA, "first")
    bench.owner.run("ALTER TABLE public.posts ADD lang text NOT NULL DEFAULT 'en'")
    bench.expect("changes by adding a column with a default", len(bench.changes()), equals=1)
    bench.write(client, ADA, "second")
    bench.expect("the new column", (bench.changes("posts")[-1].data_after or {}).get("lang"), equals="en")
    bench.owner.run("ALTER TABLE public.posts RENAME TO articles")
    with bench.audited(client, ADA):
        client.run("UPDATE public.articles SET lang = 'de' WHERE slug = 'first'")
    bench.expect("changes under the new name", [each.op for each in bench.changes("articles")], equals=["update"])
    bench.owner.run("DROP TABLE public.authors; CREATE TABLE public.authors (code text PRIMARY KEY)")
    bench.expect(
        "coverage of a table made again", bench.target.coverage(bench.owner)["public.authors"] is None, equals=False
    )
    bench.trail_limit(
        "the values that ADD COLUMN … DEFAULT fills in are no changes; a renamed table's history is under two names"
    )


@breaks(schema_change, at="coverage of a table made again")
def schema_change_unnoticed(bench: Bench) -> None:
    blind_coverage(bench)


@breaks(schema_change, at="changes under the new name")
def schema_change_loses_the_capture(bench: Bench) -> None:
    bench.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_TABLE_NAME <> 'posts' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@check(
    "capture.replica-role",
    claim="under session_replication_role = replica ordinary triggers are silent, and those enabled ALWAYS capture",
    section=_HERE,
    severity=P0,
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def replica_role(bench: Bench) -> None:
    """As the apply worker of logical replication writes: with that role and an empty search_path."""

    def apply(slug: str) -> None:
        with bench.admin.transaction():
            bench.admin.run("SET LOCAL session_replication_role = replica; SET LOCAL search_path = ''")
            bench.insert_post(bench.admin, slug)

    ordinary = bench.admin.value(_ORDINARY)
    bench.expect("a replicated write", bench.attempt(partial(apply, "silent")), equals="done")
    silent = [each.data_after["slug"] for each in bench.changes("posts")]
    bench.expect("changes as the triggers are", silent, equals=[] if ordinary else ["silent"])
    for name in [row[0] for row in bench.admin.rows(_TRIGGERS)]:
        bench.owner.run(f"ALTER TABLE public.posts ENABLE ALWAYS TRIGGER {name}")
    bench.expect("a replicated write with ALWAYS", bench.attempt(partial(apply, "heard")), equals="done")
    heard = [each.data_after["slug"] for each in bench.changes("posts")]
    bench.expect("changes with ALWAYS", heard, equals=[*silent, "heard"])
    bench.documented_limit(
        "rows that replication applies are captured only where the triggers are enabled ALWAYS",
        "https://www.postgresql.org/docs/current/sql-altertable.html",
    )


_ORDINARY = """
    SELECT bool_and(tgenabled = 'O') FROM pg_trigger WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal
"""
_TRIGGERS = "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = 'public.posts'::regclass AND NOT tgisinternal"


@breaks(replica_role, at="changes with ALWAYS")
def replica_role_not_heard(bench: Bench) -> None:
    bench.rewrite_capture(
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
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def views(bench: Bench) -> None:
    bench.owner.run(
        "CREATE VIEW public.titles AS SELECT id, slug, title FROM public.posts; GRANT ALL ON public.titles TO harness_app;"
        "CREATE UNLOGGED TABLE public.sessions (id int PRIMARY KEY, data text); GRANT ALL ON public.sessions TO harness_app"
    )
    bench.target.attach(bench.owner, "public.sessions")
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.titles (slug, title) VALUES ('seen', 'through a view')")
        client.run("UPDATE public.titles SET title = 'again'")
        client.run("INSERT INTO public.sessions VALUES (1, 'x')")
    told = [(each.table_name, each.op) for each in bench.changes()]
    bench.expect("changes", told, equals=[("posts", "insert"), ("posts", "update"), ("sessions", "insert")])


@breaks(views, at="changes")
def views_lose_an_update(bench: Bench) -> None:
    bench.rewrite_capture(
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
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def occurred_at(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        bench.insert_post(client, "first")
        between = bench.admin.value("SELECT clock_timestamp()")
        bench.insert_post(client, "second")
    [(occurred,)] = bench.admin.rows("SELECT occurred_at FROM public.audit_transactions")
    times = [row[0] for row in bench.admin.rows("SELECT captured_at FROM public.audit_changes ORDER BY captured_at")]
    bench.expect(
        "first change, transaction, then the second change", times[0] <= occurred < between < times[-1], equals=True
    )
    bench.trail_limit("occurred_at is the time of a transaction's first change; it commits later")


@breaks(occurred_at, at="first change, transaction, then the second change")
def occurred_at_is_made_up(bench: Bench) -> None:
    bench.tamper("audit_transactions", "NEW.occurred_at := '2026-01-01'")
