"""Capture: each change has the time at which it was made, and overlapping transactions keep their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded
from harness.checks.registry import P0, P1, SEVERAL_SERVER_CONNECTIONS, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.capture.stored import insert_row

if TYPE_CHECKING:
    from datetime import datetime

    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE


@check(
    "capture.times",
    claim="the time of each change is between the begin of its transaction and its commit",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.TIME, Recorded.IMAGE, Recorded.INSERTS, Recorded.UPDATES),
)
def times(ctx: CheckContext) -> None:
    client = ctx.client()
    between: dict[str, tuple[datetime, datetime]] = {}
    for slug in ("first", "second", "third"):
        began = _now(ctx)
        with ctx.audited(client, ADA):
            ctx.insert_post(client, slug)
            client.run("UPDATE public.posts SET title = 'new' WHERE slug = %s", [slug])
        between[slug] = began, _now(ctx)
    changes = ctx.changes("posts")
    ctx.expect("changes", sorted(change.text("slug") for change in changes), equals=sorted([*between] * 2))
    wrong = [
        f"{change.op} of {slug}: {change.captured_at}, expected {began} to {ended}"
        for change in changes
        if (slug := change.text("slug")) in between
        for began, ended in [between[slug]]
        if not (change.captured_at and began <= change.captured_at <= ended)
    ]
    ctx.expect("changes at another time", wrong, equals=[])


def _now(ctx: CheckContext) -> datetime:
    now: datetime = ctx.admin.value("SELECT clock_timestamp()")
    return now


@breaks(times, at="changes at another time")
def times_of_another_zone(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.captured_at := NEW.captured_at + interval '1 hour'")


@check(
    "capture.overlapping",
    claim="when overlapping transactions update one row, both succeed, and the trail has the updates in their order",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS, SEVERAL_SERVER_CONNECTIONS),
    records=(Recorded.UPDATES, Recorded.IMAGE, Recorded.ORDER),
)
def overlapping(ctx: CheckContext) -> None:
    first, second = ctx.clients(2)
    insert_row(ctx, first, "shared")

    def update(client: Client, title: str) -> None:
        client.run("UPDATE public.posts SET title = %s WHERE slug = 'shared'", [title])

    def late() -> None:
        with ctx.audited(first, ADA):
            first.value("SELECT now()")  # the transaction began before the other one
            with ctx.audited(second, ADA):
                update(second, "by the transaction that began later")
            update(first, "by the transaction that commits later")

    ctx.expect("the later update", ctx.attempt(late), equals="done")
    titles = [change.value("title") for change in ctx.changes("posts") if change.op == "update"]
    written = ["by the transaction that began later", "by the transaction that commits later"]
    ctx.expect("updates in their order", titles, equals=written)


@breaks(overlapping, at="updates in their order")
def overlapping_in_the_order_of_their_begins(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.captured_at := now()")


@check(
    "capture.occurred-at",
    claim="in overlapping transactions the time of a change is not before the time of the row's previous change",
    section=_HERE,
    severity=P1,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS, SEVERAL_SERVER_CONNECTIONS),
    records=(Recorded.TIME, Recorded.UPDATES, Recorded.IMAGE),
)
def occurred_at(ctx: CheckContext) -> None:
    first, second = ctx.clients(2)
    insert_row(ctx, first, "shared")
    moments = []
    with ctx.audited(first, ADA):
        first.run("INSERT INTO public.posts (slug) VALUES ('begun earlier')")
        with ctx.audited(second, ADA):
            second.run("UPDATE public.posts SET title = 'first' WHERE slug = 'shared'")
        moments.append(ctx.admin.value("SELECT clock_timestamp()"))
        first.run("UPDATE public.posts SET title = 'second' WHERE slug = 'shared'")
    times = [(change.captured_at, change.value("title")) for change in ctx.changes("posts") if change.op == "update"]
    titles = [title for _, title in sorted(pair for pair in times if pair[0] is not None)]
    ctx.expect("updates in the order of their times", titles, equals=["first", "second"])
    if ctx.target.is_reference:
        later = "SELECT count(*) FROM public.audit_transactions WHERE occurred_at >= %s"
        ctx.expect("transactions with a later time than their first change", ctx.admin.value(later, moments), equals=0)
        ctx.trail_limit("occurred_at is the time of a transaction's first change; it commits later")


@breaks(occurred_at, at="updates in the order of their times")
def occurred_at_the_begin_of_the_transaction(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.captured_at := now()")


@breaks(occurred_at, at="transactions with a later time than their first change")
def occurred_at_is_made_up(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.occurred_at := '2036-01-01'")
