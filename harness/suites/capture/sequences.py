"""Capture: several changes of one row, within one statement, function or trigger, are captured one by one, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.stored import in_order, stored_rows
from harness.suites.sabotage import capture_by_statement

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE
#: ways to update the row {slug} more than once, and the titles after each update; None: only the stored title
_WAYS: tuple[tuple[str, str, list[str | None] | None], ...] = (
    (
        "a DO block",
        "DO $$ BEGIN UPDATE public.posts SET title = 'b' WHERE slug = {slug}; "
        "UPDATE public.posts SET title = 'c' WHERE slug = {slug}; END $$",
        ["b", "c"],
    ),
    ("a function", "SELECT public.retitle({slug}, ARRAY['b', NULL, 'd'])", ["b", None, "d"]),
    (
        "a function called for each of several rows",
        "SELECT public.retitle({slug}, ARRAY[t]) FROM unnest('{{b,c}}'::text[]) t",
        ["b", "c"],
    ),
    (
        "one message",
        "UPDATE public.posts SET title = 'b' WHERE slug = {slug}; UPDATE public.posts SET title = 'c' WHERE slug = {slug}",
        ["b", "c"],
    ),
    (
        "a value that returns",
        "UPDATE public.posts SET title = 'b' WHERE slug = {slug}; "
        "UPDATE public.posts SET title = 'a title' WHERE slug = {slug}",
        ["b", "a title"],
    ),
    (
        "upserts",
        "INSERT INTO public.posts (slug) VALUES ({slug}) ON CONFLICT (slug) DO UPDATE SET title = 'b'; "
        "INSERT INTO public.posts (slug) VALUES ({slug}) ON CONFLICT (slug) DO UPDATE SET title = public.posts.title || 'c'",
        ["b", "bc"],
    ),
    # PostgreSQL carries out only one of the two, and does not say which
    (
        "a CTE and its statement",
        "WITH first AS (UPDATE public.posts SET title = 'b' WHERE slug = {slug} RETURNING id) "
        "UPDATE public.posts SET title = 'c' WHERE slug = {slug}",
        None,
    ),
)


@check(
    "capture.repeated-updates",
    claim="each of several updates of a row in one DO block, function, message or command is captured with its values",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.UPDATES, Recorded.IMAGE),
)
def repeated_updates(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE FUNCTION public.retitle(of_slug text, titles text[]) RETURNS void LANGUAGE plpgsql AS $$ DECLARE t text; "
        "BEGIN FOREACH t IN ARRAY titles LOOP UPDATE public.posts SET title = t WHERE slug = of_slug; END LOOP; END $$"
    )
    client = ctx.client()
    with ctx.audited(client, ADA):
        ways = [way for way, _, _ in _WAYS]
        client.run("INSERT INTO public.posts (slug, title) SELECT unnest(%s::text[]), 'a title'", [ways])
    with ctx.audited(client, ADA):
        for way, statement, _ in _WAYS:
            client.run(statement.format(slug=f"'{way}'"))
    stored = dict(ctx.admin.rows("SELECT slug, title FROM public.posts"))
    updates = [change for change in ctx.changes("posts") if change.op == "update"]
    for way, _, titles in _WAYS:
        expected = [stored[way]] if titles is None else titles
        found = [change.value("title") for change in updates if change.value("slug") == way]
        ctx.expect(f"titles after {way}", in_order(ctx, found), equals=in_order(ctx, expected))
    if ctx.claims(TrailFeature.CHANGED_FIELDS):
        ctx.expect("changed fields", {change.changed_fields for change in updates}, equals={("title",)})


@breaks(repeated_updates, at="titles after a DO block")
def repeated_updates_only_the_last(ctx: CheckContext) -> None:
    ctx.sabotage(
        "CREATE FUNCTION public.only_last() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.op = 'update' THEN "
        "DELETE FROM public.audit_changes WHERE op = 'update' AND table_pk = NEW.table_pk; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER only_last BEFORE INSERT ON public.audit_changes FOR EACH ROW EXECUTE FUNCTION public.only_last()"
    )


@check(
    "capture.nested-writes",
    claim="writes by triggers to their own row, three levels deep, are captured after the write that fired the trigger",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="capture function",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.UPDATES, Recorded.IMAGE, Recorded.ORDER),
)
def nested_writes(ctx: CheckContext) -> None:
    ctx.owner.run(
        "CREATE TABLE public.orders (id int PRIMARY KEY, step int NOT NULL); GRANT ALL ON public.orders TO harness_app;"
        "CREATE FUNCTION public.proceed() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN UPDATE public.orders SET step = step + 1 WHERE id = NEW.id; RETURN NULL; END';"
        "CREATE TRIGGER a_proceed AFTER INSERT OR UPDATE ON public.orders FOR EACH ROW WHEN (NEW.step < 3) "
        "EXECUTE FUNCTION public.proceed()"
    )
    ctx.target.attach(ctx.owner, "public.orders")
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.orders VALUES (1, 0), (2, 1)")
    for row, first in ((1, 0), (2, 1)):
        steps = [change.value("step") for change in ctx.changes("orders") if change.value("id") == row]
        expected = list(range(first if ctx.records(Recorded.INSERTS) else first + 1, 4))
        ctx.expect(f"steps of row {row} in the order of capture", steps, equals=expected)


@breaks(nested_writes, at="steps of row 1 in the order of capture")
def nested_writes_captured_by_statement(ctx: CheckContext) -> None:
    capture_by_statement(ctx)


@check(
    "capture.stored-values",
    claim="the trail holds whole rows as they are stored, also values that a trigger or the server itself put there",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.IMAGE,),
)
def stored_values(ctx: CheckContext) -> None:
    ctx.alter(
        "public.posts",
        "ALTER TABLE public.posts ADD shout text GENERATED ALWAYS AS (upper(title)) STORED, ADD body text,"
        "ADD number bigint GENERATED ALWAYS AS IDENTITY, ADD made date NOT NULL DEFAULT '2026-01-01', ADD note text;"
        "ALTER TABLE public.posts ALTER body SET STORAGE EXTERNAL;"
        "CREATE FUNCTION public.edit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.slug = 'never' THEN "
        "RETURN NULL; END IF; NEW.title := NEW.title || '!'; RETURN NEW; END $$;"
        "CREATE TRIGGER edit BEFORE INSERT OR UPDATE ON public.posts FOR EACH ROW EXECUTE FUNCTION public.edit();",
    )
    client = ctx.client()
    with ctx.audited(client, ADA):
        # more than a million characters, which are kept out of line; the update does not touch them
        client.run("INSERT INTO public.posts (slug, title, body) VALUES ('edited', 'a title', repeat('body', 300000))")
    stored = stored_rows(ctx, "public.posts")
    ctx.write(client, ADA, "never")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET views = 1")
    stored += stored_rows(ctx, "public.posts")
    titles = [row["title"] for row in stored]
    ctx.expect("titles stored", titles, equals=["a title!", "a title!!"])
    images = {change.op: change.data_after for change in ctx.changes("posts")}
    expected = dict(zip(("insert", "update"), stored, strict=True))
    for op in ctx.expected_ops("insert", "update"):
        ctx.expect(f"columns that differ after the {op}", _differing(images.get(op), expected[op]), equals=[])
    if ctx.records(Recorded.TRANSACTION_ID):
        number = len(ctx.expected_ops("insert", "update"))
        ctx.expect("audit transactions", ctx.target.count_transactions(ctx.admin), equals=number)


def _differing(image: dict[str, object] | None, row: dict[str, object]) -> list[str]:
    if image is None:
        return ["no image of the row"]
    return sorted(name for name in {*image, *row} if (image.get(name), name in image) != (row.get(name), name in row))


@breaks(stored_values, at="columns that differ after the update")
def stored_values_image_altered(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", """NEW.data_after := NEW.data_after || '{"title": "a title!"}'""")
