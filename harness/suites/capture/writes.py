"""Capture: each other way to write rows (COPY, MERGE, upsert, cascades) is in the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded
from harness.checks.record import NotApplicableError
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.stored import DELETES_ALONE, News, insert_row, records_of

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE
#: rows that one statement writes. A trail may stop at the first thousand
_MANY = 2000


@check(
    "capture.bulk",
    claim="COPY, data-modifying CTEs and statements of thousands of rows are captured row by row",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def bulk(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.copy_in("COPY public.posts (slug, title) FROM STDIN", [(f"copy-{n}", "t") for n in range(50)])
        client.run(
            "WITH gone AS (DELETE FROM public.posts WHERE slug LIKE 'copy-1%' RETURNING slug) "
            "INSERT INTO public.posts (slug) SELECT 'again-' || slug FROM gone"
        )
    changes = ctx.changes("posts")
    with ctx.audited(client, ADA):
        client.run(f"INSERT INTO public.profiles (id) SELECT n FROM generate_series(1, {_MANY}) n")
        client.run("UPDATE public.profiles SET visits = id")
    if ctx.records(Recorded.INSERTS) and ctx.records(Recorded.IMAGE):
        captured = sorted(change.text("slug") for change in changes if change.op == "insert")
        again = [f"again-copy-{n}" for n in range(50) if str(n).startswith("1")]
        ctx.expect("inserts captured", captured, equals=sorted([f"copy-{n}" for n in range(50)] + again))
    if ctx.records(Recorded.DELETES):
        ctx.expect("deletes captured", sum(change.op == "delete" for change in changes), equals=11)
    if ctx.records(Recorded.TRANSACTION_ID) and ctx.expected_ops("insert", "delete"):
        ctx.expect("audit transactions", len({change.transaction_id for change in changes}), equals=1)
    expected = dict.fromkeys(ctx.expected_ops("insert", "update"), (_MANY, _MANY))
    ctx.expect("changes of 2,000 rows, and of different ones", _counts(ctx, "profiles"), equals=expected)


def _counts(ctx: CheckContext, table: str) -> dict[str, tuple[int, int]]:
    """Return the number of changes and of different keys by operation, counted on the server."""
    with ctx.target.within_a_query():
        rows = ctx.admin.rows(
            "SELECT lower(op::text), count(*), count(DISTINCT table_pk::text) "
            f"FROM ({ctx.target.changes_query(ctx.admin)}) c WHERE table_name = '{table}' GROUP BY 1"
        )
    return {op: (changes, keys) for op, changes, keys in rows}


@breaks(bulk, at="inserts captured")
def bulk_loses_a_row(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("FROM new_rows n OFFSET 0", "FROM new_rows n OFFSET 1"))


@breaks(bulk, at="changes of 2,000 rows, and of different ones")
def bulk_only_the_first_thousand(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("FROM new_rows n OFFSET 0", "FROM (SELECT * FROM new_rows LIMIT 1000) n OFFSET 0"))


@check(
    "capture.upsert",
    claim="an upsert is captured as the insert or update that it performed, and DO NOTHING leaves no change",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def upsert(ctx: CheckContext) -> None:
    if not (recorded := ctx.expected_ops("insert", "update")):
        raise NotApplicableError(DELETES_ALONE)
    client = ctx.client()
    insert_row(ctx, client, "there")
    with ctx.audited(client, ADA):
        client.run(
            "INSERT INTO public.posts (slug, title) VALUES ('there', 'b'), ('fresh', 'b') "
            "ON CONFLICT (slug) DO UPDATE SET title = EXCLUDED.title"
        )
        client.run("INSERT INTO public.posts (slug, title) VALUES ('there', 'c') ON CONFLICT DO NOTHING")
    compared = slice(3 if ctx.records(Recorded.IMAGE) else 1)
    changes = [(change.op, change.text("slug"), change.text("title"))[compared] for change in ctx.changes("posts")]
    written = [("insert", "fresh", "b"), ("insert", "there", "a title"), ("update", "there", "b")]
    ctx.expect("changes", sorted(changes), equals=[change[compared] for change in written if change[0] in recorded])


@breaks(upsert, at="changes")
def upsert_update_not_captured(ctx: CheckContext) -> None:
    ctx.sabotage('ALTER TABLE public.posts DISABLE TRIGGER "!threadline_audit_update"')


@check(
    "capture.merge",
    claim="a MERGE is captured as the inserts, updates and deletes that it performed",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def merge(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug, title) VALUES ('keep', 'old'), ('drop', 'old')")
    news = News(ctx)
    with ctx.audited(client, ADA):
        client.run(
            "MERGE INTO public.posts p USING (VALUES ('keep'), ('drop'), ('make')) AS s (slug) ON p.slug = s.slug "
            "WHEN MATCHED AND s.slug = 'drop' THEN DELETE WHEN MATCHED THEN UPDATE SET title = 'new' "
            "WHEN NOT MATCHED THEN INSERT (slug, title) VALUES (s.slug, 'new')"
        )
    changes = records_of(news.since_then(), "posts")
    expected = ctx.expected_ops("delete", "insert", "update")
    ctx.expect("operations", sorted(change.op for change in changes), equals=expected)
    if ctx.records(Recorded.IMAGE):
        images = {change.op: change.text("slug") for change in changes if change.op in {"insert", "update"}}
        kept = {op: slug for op, slug in (("insert", "make"), ("update", "keep")) if op in expected}
        ctx.expect("images after", images, equals=kept)


@breaks(merge, at="operations")
def merge_delete_not_captured(ctx: CheckContext) -> None:
    ctx.sabotage('ALTER TABLE public.posts DISABLE TRIGGER "!threadline_audit_delete"')


@check(
    "capture.cascade",
    claim="rows changed by a foreign key action are captured with the statement's transaction and actor",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def cascade(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (id, slug) VALUES (1, 'one'), (2, 'two')")
        client.run("INSERT INTO public.comments (post_id, body) VALUES (1, 'a'), (1, 'b'), (2, 'c')")
        client.run("INSERT INTO public.bookmarks (post_id) VALUES (1)")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET id = 7 WHERE id = 2")
    with ctx.audited(client, ADA):
        client.run("DELETE FROM public.posts WHERE id = 1")
    changes = [change for change in ctx.changes() if change.op != "insert"]
    comments, bookmarks = records_of(changes, "comments"), records_of(changes, "bookmarks")
    expected = ctx.expected_ops("delete", "delete", "update")
    ctx.expect("rows captured for comments", sorted(change.op for change in comments), equals=expected)
    expected = ctx.expected_ops("update")
    ctx.expect("rows captured for bookmarks", [change.op for change in bookmarks], equals=expected)
    if ctx.records(Recorded.IMAGE):
        left = [change.value("post_id") for change in bookmarks]
        ctx.expect("the reference that was set to NULL", left, equals=[None] * len(expected))
    if ctx.records(Recorded.TRANSACTION_ID) and ctx.expected_ops("delete", "update"):
        deleted = [change for change in changes if change.op == "delete"]
        transactions = {change.transaction_id for change in [*deleted, *bookmarks]}
        ctx.expect("audit transactions of the deletion", len(transactions), equals=1)
    if ctx.records(Recorded.ACTOR):
        actors = [change.actor for change in ctx.changes()]
        ctx.expect("actors", actors, equals=[ADA.reference] * len(actors))


@breaks(cascade, at="rows captured for comments")
def cascade_child_not_captured(ctx: CheckContext) -> None:
    ctx.disable_capture("public.comments")
