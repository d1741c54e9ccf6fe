"""Capture: tables of every structure (partitioned, inherited, viewed, altered, truncated) are in the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.record import NotApplicableError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError, describe, raised_within
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.stored import DELETES_ALONE, News, in_order, records_of
from harness.suites.capture.uncaptured import weaken
from harness.suites.sabotage import blind_coverage, capture_by_statement

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE
#: the partitioned table, and its partitions at every depth once the check has added its own
_ROOT = "measures"
_PARTITIONS = ("measures_2025", "measures_2026", "measures_2027", "measures_2027_1", "measures_2027_rest")
#: a partition that exists before the table is attached
_LEAF = "public.measures_2026"
_QUOTED = '"Shop"."Order ""Items"""'
#: what is written to, the day and sensor of the row, and the leaf that gets it
_PLACES = (
    ("the root", "measures", "2025-05-05", 1, "measures_2025"),
    ("a leaf", "measures_2026", "2026-06-06", 1, "measures_2026"),
    ("a leaf at the second level", "measures_2027_1", "2027-07-07", 1, "measures_2027_1"),
    ("a partition that is partitioned", "measures_2027", "2027-08-08", 5, "measures_2027_rest"),
    ("the root, into the second level", "measures", "2027-09-09", 5, "measures_2027_rest"),
)


@check(
    "capture.truncate",
    claim="a TRUNCATE leaves a record for every table that it emptied",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    judges=(TrailFeature.TRUNCATE,),
)
def truncate(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        ctx.insert_post(client, "first")
        client.run("INSERT INTO public.comments (post_id, body) SELECT id, 'x' FROM public.posts")
        client.run("INSERT INTO public.measures VALUES ('2025-05-05', 1), ('2026-06-06', 1)")
    emptied = [
        ("public.posts CASCADE", ["public.bookmarks", "public.comments", "public.posts"]),
        (_QUOTED, ['Shop.Order "Items"']),
    ]
    if ctx.claims(TrailFeature.PARTITIONS):
        emptied += [(_LEAF, [_LEAF]), ("public.measures", ["public.measures"])]
    recorded = {"truncate"} if ctx.claims(TrailFeature.TRUNCATE) else {"truncate", "delete"}
    news, missing, records = News(ctx), [], []
    for names, tables in emptied:
        try:
            with ctx.audited(client, ADA):
                client.run(f"TRUNCATE {names}")
        except SqlError as error:
            if ctx.claims(TrailFeature.TRUNCATE) or not raised_within(error):
                raise
            ctx.fact(f"a TRUNCATE of {names} is refused", describe(error))  # which removes nothing
            continue
        new = [change for change in news.since_then() if change.op in recorded]
        found = {f"{change.table_schema}.{change.table_name}" for change in new}
        if _ROOT in names:  # under the name of the root, or of the partition
            found |= {table for table in tables if any(name.startswith(f"public.{_ROOT}") for name in found)}
        missing += [table for table in tables if table not in found]
        records += new
    if ctx.records(Recorded.ACTOR):
        ctx.expect("actors", [change.actor for change in records], equals=[ADA.reference] * len(records))
    if ctx.claims(TrailFeature.TRUNCATE):
        ctx.expect("tables without a record", [table for table in missing if table != _LEAF], equals=[])
        if _LEAF in missing:
            ctx.trail_limit("a TRUNCATE of a single partition leaves no record")
    elif missing:
        ctx.fact("truncated tables without a record", ", ".join(missing))
        ctx.trail_limit("a TRUNCATE leaves no record of the rows that it removed")
    else:
        ctx.expect("tables without a record", missing, equals=[])


@breaks(truncate, at="tables without a record")
def truncate_trigger_dropped(ctx: CheckContext) -> None:
    ctx.sabotage('DROP TRIGGER "!threadline_audit_truncate" ON public.comments')


@check(
    "capture.partitions",
    claim="rows of a partitioned table are captured once, at every depth and however they are written",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.PARTITIONS,),
    records=(Recorded.INSERTS,),
)
def partitions(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.alter(
        "public.measures",
        "CREATE TABLE public.measures_2027 PARTITION OF public.measures "
        "FOR VALUES FROM ('2027-01-01') TO ('2028-01-01') PARTITION BY LIST (sensor);"
        "CREATE TABLE public.measures_2027_1 PARTITION OF public.measures_2027 FOR VALUES IN (1);"
        "CREATE TABLE public.measures_2027_rest PARTITION OF public.measures_2027 DEFAULT;"
        "GRANT ALL ON public.measures_2027, public.measures_2027_1, public.measures_2027_rest TO harness_app",
    )
    news, names, keys = News(ctx), set(), []
    for place, table, day, sensor, leaf in _PLACES:
        with ctx.audited(client, ADA):
            client.run(f"INSERT INTO public.{table} VALUES ('{day}', {sensor}, 20.5)")
        changes = records_of(news.since_then(), _ROOT, *_PARTITIONS)
        ctx.expect(f"rows written to {place}", [change.op for change in changes], equals=["insert"])
        keys += [(change.table_pk, {"day": day, "sensor": sensor}) for change in changes]
        names |= {"root" if change.table_name == _ROOT else _kind(change.table_name, leaf) for change in changes}
    ctx.fact("rows are recorded under the name of the", " or ".join(sorted(names)))
    ctx.expect("names of the table", len(names), equals=1)
    ctx.expect("keys", [key for key, _ in keys], equals=[key for _, key in keys])
    with ctx.audited(client, ADA):
        client.run("UPDATE public.measures SET day = '2027-05-05' WHERE day = '2025-05-05'")
    moved = sorted(change.op for change in records_of(news.since_then(), _ROOT, *_PARTITIONS))
    # PostgreSQL deletes the row from one partition, and inserts it into the other
    possible = ctx.expected_ops("delete", "insert"), ctx.expected_ops("update")
    expected = possible[1] if moved == possible[1] else possible[0]
    ctx.expect("a row that moves to another partition", moved, equals=expected)


def _kind(name: str, leaf: str) -> str:
    return "leaf" if name == leaf else "another table"


@breaks(partitions, at="rows written to a leaf")
def partitions_captured_by_statement(ctx: CheckContext) -> None:
    ctx.target.detach(ctx.owner, "public.measures")
    ctx.sabotage(
        "CREATE TRIGGER naive AFTER INSERT ON public.measures REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture('', 'day', 'sensor')"
    )


@breaks(partitions, at="names of the table")
def partitions_under_two_names(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "IF NEW.table_pk ->> 'day' LIKE '2026%' THEN NEW.table_name := 'measures_2026'; END IF")


@check(
    "capture.inheritance",
    claim="rows of a table and of its inheriting table, both attached, are captured once and whole, through either table",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.UPDATES, Recorded.IMAGE),
)
def inheritance(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE TABLE public.cities (id int PRIMARY KEY, name text);"
        "CREATE TABLE public.capitals (state text, PRIMARY KEY (id)) INHERITS (public.cities);"
        "GRANT ALL ON public.cities, public.capitals TO harness_app"
    )
    ctx.target.attach(ctx.owner, "public.cities")
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run(
            "INSERT INTO public.cities VALUES (1, 'Turin'); INSERT INTO public.capitals VALUES (2, 'Rome', 'Lazio');"
            "UPDATE public.cities SET name = 'old'"
        )
    captured = sorted(str(change.value("id")) for change in ctx.changes() if change.op == "update")
    ctx.target.attach(ctx.owner, "public.capitals")
    news = News(ctx)
    for through, condition, expected in (
        ("the parent", "cities", [{"id": 1, "name": "new"}, {"id": 2, "name": "new", "state": "Lazio"}]),
        ("the child", "capitals", [{"id": 2, "name": "newer", "state": "Lazio"}]),
        ("ONLY the parent", "ONLY public.cities", [{"id": 1, "name": "newer"}]),
    ):
        table = condition if " " in condition else f"public.{condition}"
        with ctx.audited(client, ADA):
            client.run(f"UPDATE {table} SET name = '{'new' if through == 'the parent' else 'newer'}'")
        changes = records_of(news.since_then(), "cities", "capitals")
        images = sorted((change.data_after or {} for change in changes), key=lambda image: str(image.get("id")))
        ctx.expect(f"rows updated through {through}", images, equals=expected)
    with ctx.audited(client, ADA):
        client.run("DELETE FROM public.cities")
    deleted = sorted(str(change.table_pk) for change in records_of(news.since_then(), "cities", "capitals"))
    if ctx.records(Recorded.DELETES):
        ctx.expect("rows deleted through the parent", len(deleted), equals=2)
    if captured == ["1"]:
        ctx.trail_limit(
            "rows of an inheriting table are captured once it is attached itself, also those that its parent shows"
        )
    else:
        ctx.expect("rows that the parent shows, before the child is attached", captured, equals=["1", "2"])


@breaks(inheritance, at="rows updated through the parent")
def inheritance_captured_by_statement(ctx: CheckContext) -> None:
    capture_by_statement(ctx)


@check(
    "capture.schema-change",
    claim="a new column, another type and a new name of a table do not end its capture",
    section=_HERE,
    severity=P1,
    item="1.3",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.INSERTS, Recorded.IMAGE),
)
def schema_change(ctx: CheckContext) -> None:
    client, limits = ctx.client(), []
    ctx.write(client, ADA, "first")
    news = News(ctx)
    ctx.alter("public.posts", "ALTER TABLE public.posts ADD lang text NOT NULL DEFAULT 'en'")
    if not news.since_then():
        limits.append("the values that ADD COLUMN … DEFAULT fills in are not captured")
    ctx.write(client, ADA, "second")
    ctx.expect("the new column", [change.value("lang") for change in news.since_then()], equals=["en"])
    ctx.alter("public.posts", "ALTER TABLE public.posts ALTER views TYPE text USING views::text, DROP COLUMN lang")
    news.since_then()
    ctx.write(client, ADA, "third")
    seen = [(change.value("views"), change.value("lang")) for change in news.since_then()]
    ctx.expect("a column of another type, and a dropped one", seen, equals=[("0", "no column lang in the row")])
    ctx.alter("public.articles", "ALTER TABLE public.posts RENAME TO articles")
    news.since_then()
    with ctx.audited(client, ADA):
        client.run("UPDATE public.articles SET title = 'renamed' WHERE slug = 'first'")
        client.run("INSERT INTO public.articles (slug) VALUES ('fourth')")
    changes = news.since_then()
    expected = ctx.expected_ops("update", "insert")
    ctx.expect("changes of the renamed table", sorted(change.op for change in changes), equals=sorted(expected))
    names = {change.table_name for change in changes}
    ctx.expect("names of the renamed table", sorted(names), equals=["posts"] if names == {"posts"} else ["articles"])
    if ctx.changes("posts") and names != {"posts"}:
        limits.append("a renamed table's history is under two names")
    anew = "DROP TABLE public.authors; CREATE TABLE public.authors (code text PRIMARY KEY)"
    if ctx.claims(TrailFeature.COVERAGE) and weaken(ctx, ctx.owner, anew):
        problem = ctx.target.coverage(ctx.owner)["public.authors"]
        ctx.expect("coverage of a recreated table", problem is None, equals=False)
    if limits:
        ctx.trail_limit("; ".join(limits))


@breaks(schema_change, at="coverage of a recreated table")
def schema_change_unnoticed(ctx: CheckContext) -> None:
    blind_coverage(ctx)


@breaks(schema_change, at="changes of the renamed table")
def schema_change_loses_the_capture(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_TABLE_NAME <> 'posts' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
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
    if not ctx.expected_ops("insert", "update"):
        raise NotApplicableError(DELETES_ALONE)
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
    changes = in_order(ctx, [(change.table_name, change.op) for change in ctx.changes()])
    written = [("posts", "insert"), ("sessions", "insert"), ("posts", "update")]
    expected = [(table, op) for table, op in written if op in ctx.expected_ops(op)]
    ctx.expect("changes", changes, equals=in_order(ctx, expected))


@breaks(views, at="changes")
def views_lose_an_update(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "ELSIF TG_OP = 'UPDATE' THEN",
            "ELSIF TG_OP = 'UPDATE' AND false THEN NULL; ELSIF TG_OP = 'UPDATE' THEN RETURN NULL;",
        )
    )
