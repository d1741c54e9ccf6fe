"""Capture: an insert, an update and a delete are in the trail, exactly once and with the right values.

The suite follows audit-trail practice: the other ways to write are in `writes`, the ways to undo a write in
`transactions`, and the ways around a trigger in `evasion`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.CAPTURE


@check(
    "capture.insert",
    claim="an insert leaves one change with the row's values, in one transaction",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def insert(ctx: CheckContext) -> None:
    ctx.write(ctx.client(), ADA, "first")
    changes = ctx.changes()
    if ctx.expect("rows captured", len(changes), equals=1):
        change = changes[0]
        row = ctx.admin.value("SELECT to_jsonb(p) FROM public.posts p")
        ctx.expect("operation", change.op, equals="insert")
        ctx.expect("table", f"{change.table_schema}.{change.table_name}", equals="public.posts")
        ctx.expect("data after", change.data_after, equals=row)
        ctx.expect("changed fields", change.changed_fields, equals=None)
    ctx.expect("audit transactions", ctx.target.count_transactions(ctx.admin), equals=1)


@breaks(insert, at="rows captured")
def insert_trigger_disabled(ctx: CheckContext) -> None:
    ctx.disable_capture("public.posts")


@breaks(insert, at="data after")
def insert_image_altered(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", """NEW.data_after := NEW.data_after || '{"title": "another"}'""")


@check(
    "capture.update",
    claim="an update leaves one change with an id of its own, the new values and the names of the changed columns",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def update(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, ADA, "first")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET title = 'new', views = views WHERE slug = 'first'")
    with ctx.audited(client, ADA):  # the same row twice in one transaction: to NULL and back
        client.run("UPDATE public.posts SET title = NULL")
        client.run("UPDATE public.posts SET title = 'back'")
    changes = ctx.changes("posts")
    ids = [change.id for change in changes]
    ctx.expect("different ids", len(set(ids)), equals=len(changes))
    ctx.expect("ids of a second reading", [change.id for change in ctx.changes("posts")], equals=ids)
    if ctx.expect("operations", [change.op for change in changes], equals=["insert", "update", "update", "update"]):
        titles = [change.value("title") for change in changes[1:]]
        ctx.expect("titles after", titles, equals=["new", None, "back"])
        if ctx.claims(TrailFeature.CHANGED_FIELDS):
            ctx.expect("changed fields", [change.changed_fields for change in changes[1:]], equals=[("title",)] * 3)
        if ctx.target.is_reference:
            ctx.expect(
                "prior values without changed_from", [change.changed_from for change in changes[1:]], equals=[None] * 3
            )


@breaks(update, at="changed fields")
def update_names_every_column(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.changed_fields := ARRAY['title', 'views']")


@check(
    "capture.delete",
    claim="each delete leaves one change that identifies the row and carries no payload, also of a row that returns",
    section=_HERE,
    severity=P0,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
)
def delete(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, ADA, "first")
    key = ctx.admin.value("SELECT id FROM public.posts")
    with ctx.audited(client, ADA):
        client.run("DELETE FROM public.posts WHERE slug = 'first'")
    changes = ctx.changes("posts")
    with ctx.audited(client, ADA):  # equal changes in one transaction
        for _ in range(2):
            client.run("INSERT INTO public.posts (id, slug) VALUES (77, 'returns')")
            client.run("DELETE FROM public.posts WHERE id = 77")
    again = [change.op for change in ctx.changes("posts")[len(changes) :]]
    ctx.expect("operations on a row that returns", again, equals=["insert", "delete"] * 2)
    if ctx.expect("operations", [change.op for change in changes], equals=["insert", "delete"]):
        ctx.expect("the key contains the row's id", str(key) in str(changes[1].table_pk), equals=True)
        ctx.expect("data after a delete", changes[1].data_after, equals=None)


@breaks(delete, at="operations")
def delete_trigger_disabled(ctx: CheckContext) -> None:
    ctx.sabotage('ALTER TABLE public.posts DISABLE TRIGGER "!threadline_audit_delete"')


@breaks(delete, at="data after a delete")
def delete_keeps_a_payload(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", """NEW.data_after := coalesce(NEW.data_after, '{"left": "over"}')""")


@check(
    "capture.no-change",
    claim="an update that changes no value is recorded without changed fields",
    section=_HERE,
    severity=P1,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def no_change(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.write(client, ADA, "first")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET title = title")
        touched = client.run("UPDATE public.posts SET title = 'x' WHERE slug = 'nobody'")
    changes = ctx.changes("posts")
    ctx.expect("rows touched by the second update", touched, equals=0)
    if ctx.expect("operations", [change.op for change in changes], equals=["insert", "update"]):
        ctx.expect("changed fields", changes[1].changed_fields, equals=None)


@breaks(no_change, at="changed fields")
def no_change_invents_a_field(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.changed_fields := ARRAY['title']")


@check(
    "capture.changed-from",
    claim="a table attached with changed_from keeps the prior values of exactly the changed columns",
    section=_HERE,
    severity=P1,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.CHANGED_FROM, TrailFeature.CHANGED_FIELDS),
)
def changed_from(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.profiles (id, email, city) VALUES (1, 'a@example.org', 'Turin')")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.profiles SET email = 'b@example.org', visits = visits + 1, city = 'Turin'")
        client.run("UPDATE public.profiles SET email = NULL")
        client.run("UPDATE public.profiles SET email = 'c@example.org'")
    with ctx.audited(client, ADA):
        client.run("DELETE FROM public.profiles")
    changes = ctx.changes("profiles")
    if ctx.expect("operations", [change.op for change in changes], equals=["insert", *["update"] * 3, "delete"]):
        ctx.expect("prior values", changes[1].changed_from, equals={"email": "a@example.org", "visits": 0})
        nulls = [change.changed_from for change in changes[2:4]]
        ctx.expect("prior values around NULL", nulls, equals=[{"email": "b@example.org"}, {"email": None}])
        ctx.expect("changed fields", changes[1].changed_fields, equals=("email", "visits"))
        ctx.expect(
            "prior values of insert and delete", [changes[0].changed_from, changes[4].changed_from], equals=[None, None]
        )


@breaks(changed_from, at="prior values")
def changed_from_not_asked_for(ctx: CheckContext) -> None:
    ctx.target.attach(ctx.owner, "public.profiles")
