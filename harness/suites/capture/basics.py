"""Capture: an insert, an update and a delete are in the trail, exactly once and with the right values.

The suite follows audit-trail practice: the other ways to write are in `writes`, the ways to undo a write in
`transactions`, and the ways around a trigger in `shadowing` and `forging`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.areas import CAPTURE_TRIGGER
from harness.suites.capture.stored import News, in_order, insert_row, stored_rows

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
    records=(Recorded.INSERTS,),
)
def insert(ctx: CheckContext) -> None:
    ctx.write(ctx.client(), ADA, "first")
    changes = ctx.changes()
    if ctx.expect("rows captured", len(changes), equals=1):
        change = changes[0]
        ctx.expect("operation", change.op, equals="insert")
        ctx.expect("table", f"{change.table_schema}.{change.table_name}", equals="public.posts")
        if ctx.records(Recorded.IMAGE):
            ctx.expect("data after", change.data_after, equals=stored_rows(ctx, "public.posts")[0])
        ctx.expect("changed fields", change.changed_fields, equals=None)
    if ctx.records(Recorded.TRANSACTION_ID):
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
    records=(Recorded.UPDATES, Recorded.IMAGE),
)
def update(ctx: CheckContext) -> None:
    client = ctx.client()
    insert_row(ctx, client, "first")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET title = 'new', views = views WHERE slug = 'first'")
    with ctx.audited(client, ADA):  # the same row twice in one transaction: to NULL and back
        client.run("UPDATE public.posts SET title = NULL")
        client.run("UPDATE public.posts SET title = 'back'")
    changes = ctx.changes("posts")
    ids = [change.id for change in changes]
    ctx.expect("different ids", len(set(ids)), equals=len(changes))
    ctx.expect("ids of a second reading", [change.id for change in ctx.changes("posts")], equals=ids)
    operations = in_order(ctx, [change.op for change in changes])
    if ctx.expect("operations", operations, equals=ctx.expected_ops("insert", "update", "update", "update")):
        updates = [change for change in changes if change.op == "update"]
        titles = in_order(ctx, [change.value("title") for change in updates])
        ctx.expect("titles after", titles, equals=in_order(ctx, ["new", None, "back"]))
        if ctx.claims(TrailFeature.CHANGED_FIELDS):
            ctx.expect("changed fields", [change.changed_fields for change in updates], equals=[("title",)] * 3)
        if ctx.target.is_reference:
            ctx.expect(
                "prior values without changed_from", [change.changed_from for change in updates], equals=[None] * 3
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
    records=(Recorded.DELETES,),
)
def delete(ctx: CheckContext) -> None:
    client = ctx.client()
    insert_row(ctx, client, "first")
    key = ctx.admin.value("SELECT id FROM public.posts")
    with ctx.audited(client, ADA):
        client.run("DELETE FROM public.posts WHERE slug = 'first'")
    changes, news = ctx.changes("posts"), News(ctx)
    with ctx.audited(client, ADA):  # equal changes in one transaction
        for _ in range(2):
            client.run("INSERT INTO public.posts (id, slug) VALUES (77, 'returns')")
            client.run("DELETE FROM public.posts WHERE id = 77")
    again = in_order(ctx, [change.op for change in news.since_then()])
    returns = in_order(ctx, ctx.expected_ops("insert", "delete", "insert", "delete"))
    ctx.expect("operations on a row that returns", again, equals=returns)
    if ctx.expect("operations", sorted(change.op for change in changes), equals=ctx.expected_ops("delete", "insert")):
        [deleted] = [change for change in changes if change.op == "delete"]
        ctx.expect("the key contains the row's id", str(key) in str(deleted.table_pk), equals=True)
        ctx.expect("data after a delete", deleted.data_after, equals=None)


@breaks(delete, at="operations")
def delete_trigger_disabled(ctx: CheckContext) -> None:
    ctx.sabotage('ALTER TABLE public.posts DISABLE TRIGGER "!threadline_audit_delete"')


@breaks(delete, at="data after a delete")
def delete_keeps_a_payload(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", """NEW.data_after := coalesce(NEW.data_after, '{"left": "over"}')""")


@check(
    "capture.no-change",
    claim="an update that changes no value names no column, and one that touches no row is not recorded",
    section=_HERE,
    severity=P1,
    item="1.1",
    area=CAPTURE_TRIGGER,
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.UPDATES,),
)
def no_change(ctx: CheckContext) -> None:
    client = ctx.client()
    insert_row(ctx, client, "first")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET title = title")
        touched = client.run("UPDATE public.posts SET title = 'x' WHERE slug = 'nobody'")
    changes = ctx.changes("posts")
    ctx.expect("rows touched by the second update", touched, equals=0)
    updates = [change for change in changes if change.op == "update"]
    # both are right: the update is recorded as one of nothing, or is not recorded
    ctx.expect("updates recorded at most", max(len(updates), 1), equals=1)
    ctx.fact("an update that changes no value is", "recorded" if updates else "not recorded")
    if ctx.claims(TrailFeature.CHANGED_FIELDS):
        ctx.expect("changed fields", [change.changed_fields for change in updates], equals=[None] * len(updates))
    if ctx.claims(TrailFeature.CHANGED_FROM):
        prior = [change.changed_from or None for change in updates]
        ctx.expect("prior values", prior, equals=[None] * len(updates))


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
    records=(Recorded.UPDATES,),
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
    expected = in_order(ctx, ctx.expected_ops("insert", *["update"] * 3, "delete"))
    if ctx.expect("operations", in_order(ctx, [change.op for change in changes]), equals=expected):
        updates = [change for change in changes if change.op == "update"]
        others = [change.changed_from for change in changes if change.op != "update"]
        before = [{"email": "a@example.org", "visits": 0}, {"email": "b@example.org"}, {"email": None}]
        prior = in_order(ctx, [change.changed_from for change in updates])
        ctx.expect("prior values", prior, equals=in_order(ctx, before))
        fields = in_order(ctx, [change.changed_fields for change in updates])
        ctx.expect("changed fields", fields, equals=in_order(ctx, [("email", "visits"), ("email",), ("email",)]))
        ctx.expect("prior values of insert and delete", others, equals=[None] * len(others))
    _several_rows(ctx)


def _several_rows(ctx: CheckContext) -> None:
    """Update several rows so that their new values sort in another order than their old ones."""
    ctx.owner.run(
        "CREATE TABLE public.turned (a integer, number integer PRIMARY KEY); GRANT ALL ON public.turned TO harness_app"
    )
    ctx.target.attach(ctx.owner, "public.turned", changed_from=True)
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.turned VALUES (1, 1), (2, 2), (3, 3)")
        client.run("UPDATE public.turned SET a = -a")
    prior = {
        str(change.table_pk["number"]): change.changed_from
        for change in ctx.changes("turned")
        if change.op == "update" and change.table_pk
    }
    expected = {str(number): {"a": number} for number in (1, 2, 3)}
    ctx.expect("prior values of several rows, by key", prior, equals=expected)


@breaks(changed_from, at="prior values of several rows, by key")
def prior_values_of_another_row(ctx: CheckContext) -> None:
    ctx.tamper(
        "audit_changes",
        "IF NEW.table_name = 'turned' AND NEW.op = 'update' THEN "
        "NEW.changed_from := jsonb_build_object('a', 4 - (NEW.changed_from ->> 'a')::integer); END IF",
    )


@breaks(changed_from, at="prior values")
def changed_from_not_asked_for(ctx: CheckContext) -> None:
    ctx.target.attach(ctx.owner, "public.profiles")
