"""Investigation: reading the trail for the changes of a row, their actors, and the state of a row at a time."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.actor import Actor
from harness.audit.reading import (
    Filter,
    FilterError,
    actor_history,
    as_of,
    changes_of_transaction,
    diff,
    history,
    timeline,
)
from harness.audit.target_file import TrailFeature
from harness.audit.telemetry import Telemetry
from harness.audit.work import Action, audited
from harness.checks.registry import P0, P1, SEVERAL_SERVER_CONNECTIONS, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA, BOB, reader
from harness.suites.sabotage import unlink_actions

if TYPE_CHECKING:
    from harness.audit.reading import AuditedChange
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.EXPORT
_AREA = "reading the trail"


def _slugs(changes: list[AuditedChange]) -> list[str]:
    return [str((change.data_after or {}).get("slug")) for change in changes]


def _filter_error(fields: dict[str, Any]) -> str:
    """Return the first part of the error for a filter; "accepted" when it is valid."""
    try:
        Filter.from_map(fields)
    except FilterError as error:
        return str(error).partition(";")[0]
    return "accepted"


@check(
    "export.timeline",
    claim="filters by table, actor, time and correlation find exactly their changes, newest first, bounds included",
    section=_HERE,
    severity=P0,
    item="5.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def timeline_filters(ctx: CheckContext) -> None:
    client = ctx.client()
    for slug, actor in (("a", ADA), ("b", BOB), ("c", ADA)):
        ctx.write(client, actor, slug)
    with ctx.audited(client, BOB):
        client.run("INSERT INTO public.authors VALUES ('k', 'Kit')")
    trail = reader(ctx)
    ctx.expect("all", [change.table_name for change in timeline(trail)], equals=["authors", "posts", "posts", "posts"])
    posts = timeline(trail, Filter(table="posts"))
    ctx.expect("by table", _slugs(posts), equals=["c", "b", "a"])
    ctx.expect("by table and schema", _slugs(timeline(trail, Filter(table="public.posts"))), equals=["c", "b", "a"])
    ctx.expect("by the same name elsewhere", timeline(trail, Filter(table="Shop.posts")), equals=[])
    ctx.expect("by actor", _slugs(timeline(trail, Filter(actor=ADA))), equals=["c", "a"])
    middle = posts[1].captured_at
    ctx.expect(
        "from, included", _slugs(timeline(trail, Filter(table="posts", captured_from=middle))), equals=["c", "b"]
    )
    ctx.expect("to, included", _slugs(timeline(trail, Filter(table="posts", captured_to=middle))), equals=["b", "a"])
    none = Filter(captured_from=middle + timedelta(microseconds=1), captured_to=middle)
    ctx.expect("between the two", timeline(trail, none), equals=[])
    refused: dict[str, dict[str, Any]] = {
        "unknown timeline filter 'tabel'": {"tabel": "posts", "repo": None},
        "correlation_id: found None": {"correlation_id": None},
        "correlation_id: found '  ', needed a text that is not blank": {"correlation_id": "  "},
        "captured_from: found '2026', needed a time with a zone": {"captured_from": "2026"},
    }
    for message, fields in refused.items():
        ctx.expect(f"refused: {message}", _filter_error(fields), equals=message)
    _correlations(ctx, trail)
    _transactions(ctx, trail)


@breaks(timeline_filters, at="by actor")
def timeline_of_mixed_up_actors(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", f"NEW.actor_ref := '{BOB.setting}'")


@breaks(timeline_filters, at="from, included")
def timeline_of_equal_times(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.captured_at := '2026-01-01'")


def _correlations(ctx: CheckContext, trail: Client) -> None:
    client = ctx.client()
    for slug, name in (("one", "c-1"), ("two", "c-2")):
        with audited(client, ADA, action=Action(name="posted", correlation_id=name), to=Telemetry()):
            ctx.insert_post(client, slug)
    for name in ("c-1", "  c-1 "):
        found = timeline(trail, Filter(correlation_id=name))
        ctx.expect(f"changes with the correlation {name!r}", _slugs(found), equals=["one"])
        ctx.expect(f"correlation of {name!r}", [change.correlation_id for change in found], equals=["c-1"])
    ctx.expect("an unknown correlation", timeline(trail, Filter(correlation_id="c")), equals=[])


def _transactions(ctx: CheckContext, trail: Client) -> None:
    client, nobody = ctx.client(), Actor("anonymous")
    for slug, actor in (("x", nobody), ("y", nobody), ("z", None)):
        ctx.write(client, actor, slug)
    by_transaction = {change.transaction_id: change.text("slug") for change in ctx.changes("posts")}
    for name, actor, slugs in (
        ("Bob", BOB, ["b"]),
        ("anonymous", nobody, ["y", "x"]),
        ("an unknown actor", Actor("user", "carl"), []),
        ("an admin with the same id", Actor("admin", "ada"), []),
    ):
        found = [by_transaction.get(transaction["id"]) for transaction in actor_history(trail, actor)]
        ctx.expect(f"transactions of {name}", [slug for slug in found if slug], equals=slugs)


@breaks(timeline_filters, at="changes with the correlation 'c-1'")
def timeline_without_links(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@check(
    "export.history",
    claim="a row's history is found by its typed primary key, newest first, also under an earlier key",
    section=_HERE,
    severity=P0,
    item="5.1",
    area="row key",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def row_history(ctx: CheckContext) -> None:
    entry = "6f1e2d3c-0000-4000-8000-00000000abcd"
    client = ctx.client()
    for statement in (
        "INSERT INTO public.posts (id, slug) VALUES (41, 'x'), (42, 'y')",
        f"INSERT INTO public.ledger VALUES (1, '{entry}', 1), (2, '{entry}', 1)",
        "UPDATE public.posts SET views = 1",
        "UPDATE public.posts SET id = 43 WHERE id = 41",
        "DELETE FROM public.ledger WHERE tenant = 1",
        "INSERT INTO public.profiles (id, city) VALUES (41, 'Turin')",
        "UPDATE public.profiles SET city = 'Bari'",
    ):
        with ctx.audited(client, ADA):
            client.run(statement)
    trail = reader(ctx)

    def ops(table: str, key: dict[str, Any]) -> list[str]:
        return [change.op for change in history(trail, table, key)]

    ctx.expect("a number", ops("posts", {"id": 42}), equals=["update", "insert"])
    ctx.expect("the same digits as a text", ops("posts", {"id": "42"}), equals=[])
    ctx.expect("the key it no longer has", ops("posts", {"id": 41}), equals=["update", "update", "insert"])
    ctx.expect("the key it has now", ops("public.posts", {"id": 43}), equals=["update"])
    ctx.expect("a composite key", ops("ledger", {"entry": entry, "tenant": 1}), equals=["delete", "insert"])
    ctx.expect("part of a composite key", ops("ledger", {"entry": entry}), equals=[])
    ctx.expect("an unknown key", ops("posts", {"id": 7}), equals=[])
    ctx.expect("the same key in another table", ops("profiles", {"id": 41}), equals=["update", "insert"])
    prior = [change.changed_from for change in history(trail, "profiles", {"id": 41})]
    ctx.expect("prior values", prior, equals=[{"city": "Turin"}, None])


@breaks(row_history, at="a number")
def row_history_by_text_keys(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.table_pk := jsonb_build_object('id', NEW.table_pk ->> 'id')")


@breaks(row_history, at="the key it no longer has")
def row_history_forgets_old_keys(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.changed_from := NULL")


@check(
    "export.as-of",
    claim="the trail shows what a row was at a time, or that it was deleted, moved or is older than the trail",
    section=_HERE,
    severity=P0,
    item="5.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def state_at_a_time(ctx: CheckContext) -> None:
    client = ctx.client()
    for statement in (
        "INSERT INTO public.authors VALUES ('k', 'Kit'), ('m', 'Mo'), ('t', 'Tom')",
        "UPDATE public.authors SET name = 'Kat' WHERE code = 'k'",
        "DELETE FROM public.authors WHERE code = 'k'",
        "UPDATE public.authors SET code = 'm2' WHERE code = 'm'",
        "TRUNCATE public.authors",
        "INSERT INTO public.authors VALUES ('t', 'Tam')",
    ):
        with ctx.audited(client, ADA):
            client.run(statement)
    trail = reader(ctx)
    deleted, updated, inserted = history(trail, "authors", {"code": "k"})

    def at(code: str, when: Any) -> tuple[str, Any]:
        state = as_of(trail, "authors", {"code": code}, when)
        return state.state, state.row or state.key

    tick = timedelta(microseconds=1)
    ctx.expect("before the first change", at("k", inserted.captured_at - tick), equals=("before_horizon", None))
    ctx.expect("at the insert", at("k", inserted.captured_at), equals=("present", {"code": "k", "name": "Kit"}))
    ctx.expect(
        "just before the update", at("k", updated.captured_at - tick), equals=("present", {"code": "k", "name": "Kit"})
    )
    ctx.expect("at the update", at("k", updated.captured_at), equals=("present", {"code": "k", "name": "Kat"}))
    ctx.expect("at the delete", at("k", deleted.captured_at), equals=("deleted", None))
    moved = history(trail, "authors", {"code": "m2"})[0].captured_at
    ctx.expect("under the key it no longer has", at("m", moved), equals=("moved", {"code": "m2"}))
    ctx.expect("under the key it has", at("m2", moved), equals=("present", {"code": "m2", "name": "Mo"}))
    emptied = next(change for change in timeline(trail, Filter(table="authors")) if change.op == "truncate").captured_at
    ctx.expect("after a TRUNCATE", at("t", emptied), equals=("deleted", None))
    ctx.expect(
        "inserted again", at("t", emptied + timedelta(hours=1)), equals=("present", {"code": "t", "name": "Tam"})
    )


@breaks(state_at_a_time, at="at the update")
def state_of_an_altered_trail(ctx: CheckContext) -> None:
    ctx.tamper(
        "audit_changes", """IF NEW.op = 'update' THEN NEW.data_after := NEW.data_after || '{"name": "Kit"}'; END IF"""
    )


@breaks(state_at_a_time, at="after a TRUNCATE")
def state_after_a_truncate_that_is_not_captured(ctx: CheckContext) -> None:
    ctx.sabotage('DROP TRIGGER "!threadline_audit_truncate" ON public.comments')
    ctx.tamper("audit_changes", "IF NEW.op = 'truncate' THEN NEW.table_pk := '\"gone\"'; END IF")


@check(
    "export.transaction",
    claim="a transaction's changes are listed newest first, and each can be shown as a difference by field",
    section=_HERE,
    severity=P1,
    item="5.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def transaction(ctx: CheckContext) -> None:
    client = ctx.client()
    with audited(client, ADA, to=Telemetry()) as work:
        client.run("INSERT INTO public.profiles (id, city) VALUES (1, 'Turin')")
        client.run("UPDATE public.profiles SET city = 'Bari', visits = 2")
        client.run("DELETE FROM public.profiles")
    ctx.write(client, BOB, "other")
    trail = reader(ctx)
    changes = changes_of_transaction(trail, work.transaction_id)
    ctx.expect("operations", [change.op for change in changes], equals=["delete", "update", "insert"])
    differences = [diff(change, expand_inserts=True) for change in changes]
    ctx.expect("differences encode as JSON", json.loads(json.dumps(differences, default=str))[0]["op"], equals="DELETE")
    ctx.expect(
        "fields of the update",
        [differences[1]["field_changes"]] if len(differences) > 1 else [],
        equals=[[{"name": "city", "after": "Bari", "before": "Turin"}, {"name": "visits", "after": 2, "before": 0}]],
    )
    ctx.expect(
        "fields of the insert",
        [field["name"] for field in differences[-1]["field_changes"]] if differences else [],
        equals=["city", "email", "id", "visits"],
    )
    ctx.expect(
        "an unknown transaction", changes_of_transaction(trail, "6f1e2d3c-0000-4000-8000-00000000abcd"), equals=[]
    )
    ctx.expect("an invalid UUID", _with_invalid_uuid(trail), equals="refused")


def _with_invalid_uuid(client: Client) -> str:
    try:
        changes_of_transaction(client, "1; DROP TABLE posts")
    except FilterError:
        return "refused"
    return "accepted"


@breaks(transaction, at="operations")
def transaction_torn_apart(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.transaction_id := gen_random_uuid()")


@check(
    "export.commit-order",
    claim="times are those of the changes, not of the commits, so a late commit changes an earlier result",
    section=_HERE,
    severity=P0,
    item="5.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS, SEVERAL_SERVER_CONNECTIONS),
    requires_features=(TrailFeature.LIBRARY,),
)
def commit_order(ctx: CheckContext) -> None:
    slow = ctx.client()
    trail = reader(ctx)
    read = partial(as_of, trail, "authors", {"code": "k"})
    with ctx.audited(slow, ADA):
        slow.run("INSERT INTO public.authors VALUES ('k', 'Kit')")
        when = ctx.admin.value("SELECT clock_timestamp()")
        ctx.expect("before the commit", read(when).state, equals="before_horizon")
    ctx.expect("after the commit, for the same time", read(when).state, equals="present")
    ctx.trail_limit(
        "the state of a row at a time can still change while a transaction that began before that time is open; "
        "an export that continues from a snapshot misses nothing"
    )


@breaks(commit_order, at="after the commit, for the same time")
def commit_order_of_later_times(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.captured_at := NEW.captured_at + interval '1 hour'")
