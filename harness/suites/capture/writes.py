"""Capture: each other way to write rows (COPY, MERGE, cascades, TRUNCATE, partitions) is in the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE


def _ops(ctx: CheckContext, table: str) -> list[str]:
    return [change.op for change in ctx.changes(table)]


@check(
    "capture.bulk",
    claim="COPY, multi-row statements and data-modifying CTEs are captured row by row",
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
        client.run("INSERT INTO public.posts (slug) SELECT 'many-' || n FROM generate_series(1, 50) n")
        client.run(
            "WITH gone AS (DELETE FROM public.posts WHERE slug LIKE 'copy-1%' RETURNING slug) "
            "INSERT INTO public.posts (slug) SELECT 'again-' || slug FROM gone"
        )
    changes = ctx.changes("posts")
    captured = sorted(change.text("slug") for change in changes if change.op == "insert")
    written = sorted(
        [f"copy-{n}" for n in range(50)]
        + [f"many-{n}" for n in range(1, 51)]
        + [f"again-copy-{n}" for n in range(50) if str(n).startswith("1")]
    )
    ctx.expect("inserts captured", captured, equals=written)
    ctx.expect("deletes captured", sum(change.op == "delete" for change in changes), equals=11)
    ctx.expect("audit transactions", len({change.transaction_id for change in changes}), equals=1)


@breaks(bulk, at="inserts captured")
def bulk_loses_a_row(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("FROM new_rows n OFFSET 0", "FROM new_rows n OFFSET 1"))


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
    client = ctx.client()
    ctx.write(client, ADA, "there")
    with ctx.audited(client, ADA):
        client.run(
            "INSERT INTO public.posts (slug, title) VALUES ('there', 'b'), ('fresh', 'b') "
            "ON CONFLICT (slug) DO UPDATE SET title = EXCLUDED.title"
        )
        client.run("INSERT INTO public.posts (slug, title) VALUES ('there', 'c') ON CONFLICT DO NOTHING")
    changes = [(change.op, change.text("slug"), change.text("title")) for change in ctx.changes("posts")]
    ctx.expect(
        "changes",
        sorted(changes),
        equals=[("insert", "fresh", "b"), ("insert", "there", "a title"), ("update", "there", "b")],
    )


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
    with ctx.audited(client, ADA):
        client.run(
            "MERGE INTO public.posts p USING (VALUES ('keep'), ('drop'), ('make')) AS s (slug) ON p.slug = s.slug "
            "WHEN MATCHED AND s.slug = 'drop' THEN DELETE WHEN MATCHED THEN UPDATE SET title = 'new' "
            "WHEN NOT MATCHED THEN INSERT (slug, title) VALUES (s.slug, 'new')"
        )
    changes = ctx.changes("posts")[2:]
    ctx.expect("operations", sorted(change.op for change in changes), equals=["delete", "insert", "update"])
    ctx.expect(
        "images after",
        sorted(change.text("slug") for change in changes if change.data_after),
        equals=["keep", "make"],
    )


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
    comments, bookmarks = ctx.changes("comments")[3:], ctx.changes("bookmarks")[1:]
    ctx.expect("rows captured for comments", [change.op for change in comments], equals=["update", "delete", "delete"])
    ctx.expect(
        "rows captured for bookmarks",
        [(change.op, change.data_after and change.value("post_id")) for change in bookmarks],
        equals=[("update", None)],
    )
    deleted = [change for change in ctx.changes("posts") if change.op == "delete"]
    transactions = {change.transaction_id for change in [*deleted, *comments[1:], *bookmarks]}
    ctx.expect("audit transactions of the deletion", len(transactions), equals=1)
    ctx.expect("actors", [change.actor for change in ctx.changes()], equals=[ADA.reference] * len(ctx.changes()))


@breaks(cascade, at="rows captured for comments")
def cascade_child_not_captured(ctx: CheckContext) -> None:
    ctx.disable_capture("public.comments")


@check(
    "capture.truncate",
    claim="a TRUNCATE leaves a record for every table it emptied",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.TRUNCATE,),
)
def truncate(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, ADA, "first")
    with ctx.audited(client, ADA):
        client.run("TRUNCATE public.posts CASCADE")
    changes = [change for change in ctx.changes() if change.op == "truncate"]
    ctx.expect(
        "tables recorded", sorted(change.table_name for change in changes), equals=["bookmarks", "comments", "posts"]
    )
    ctx.expect("actors", [change.actor for change in changes], equals=[ADA.reference] * len(changes))


@breaks(truncate, at="tables recorded")
def truncate_trigger_dropped(ctx: CheckContext) -> None:
    ctx.sabotage('DROP TRIGGER "!threadline_audit_truncate" ON public.comments')


@check(
    "capture.partitions",
    claim="rows of a partitioned table are captured under its name, however they are written",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.PARTITIONS,),
)
def partitions(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.owner.run(
        "CREATE TABLE public.measures_2027 PARTITION OF public.measures "
        "FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')"
    )
    ctx.owner.run("GRANT ALL ON public.measures_2027 TO harness_app")
    for name, table, day in (
        ("the root", "measures", "2025-05-05"),
        ("a leaf", "measures_2026", "2026-06-06"),
        ("a new leaf", "measures_2027", "2027-07-07"),
    ):
        before = len(ctx.changes("public.measures"))
        with ctx.audited(client, ADA):
            client.run(f"INSERT INTO public.{table} VALUES ('{day}', 1, 20.5)")
        ctx.expect(f"rows written to {name}", len(ctx.changes("public.measures")) - before, equals=1)
    with ctx.audited(client, ADA):
        client.run("UPDATE public.measures SET day = '2026-05-05' WHERE day = '2025-05-05'")
    ctx.expect("a row that moves to another partition", _ops(ctx, "public.measures")[3:], equals=["delete", "insert"])
    keys = [change.table_pk for change in ctx.changes("public.measures")[:1]]
    ctx.expect("key", keys, equals=[{"day": "2025-05-05", "sensor": 1}])


@breaks(partitions, at="rows written to a leaf")
def partitions_captured_by_statement(ctx: CheckContext) -> None:
    ctx.target.detach(ctx.owner, "public.measures")
    ctx.sabotage(
        "CREATE TRIGGER naive AFTER INSERT ON public.measures REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION public.threadline_capture('', 'day', 'sensor')"
    )


@check(
    "capture.stored-values",
    claim="the trail holds the stored values, also when another trigger edits or suppresses rows",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def stored_values(ctx: CheckContext) -> None:
    ctx.owner.run(
        "ALTER TABLE public.posts ADD shout text GENERATED ALWAYS AS (upper(title)) STORED;"
        "CREATE FUNCTION public.edit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.slug = 'never' THEN "
        "RETURN NULL; END IF; NEW.title := NEW.title || '!'; RETURN NEW; END $$;"
        "CREATE TRIGGER edit BEFORE INSERT ON public.posts FOR EACH ROW EXECUTE FUNCTION public.edit()"
    )
    client = ctx.client()
    ctx.write(client, ADA, "edited")
    ctx.write(client, ADA, "never")
    stored = [row for (row,) in ctx.admin.rows("SELECT to_jsonb(p) FROM public.posts p ORDER BY id")]
    ctx.expect("images", [change.data_after for change in ctx.changes("posts")], equals=stored)
    ctx.expect("title stored", [row["title"] for row in stored], equals=["a title!"])
    ctx.expect("audit transactions", ctx.target.count_transactions(ctx.admin), equals=1)


@breaks(stored_values, at="images")
def stored_values_image_altered(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", """NEW.data_after := NEW.data_after || '{"title": "a title"}'""")
