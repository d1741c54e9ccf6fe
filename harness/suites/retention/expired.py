"""What a purge of any trail deletes: what is expired, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA, BOB
from harness.suites.retention.purging import (
    ANY_AGE,
    DAYS,
    age,
    cutoff_of_days,
    purge_before,
    slugs_left,
    slugs_since,
    time_of,
    write,
)
from harness.suites.searching import holding

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.RETENTION
_AREA = "purge"
_ROWS = (Recorded.INSERTS, Recorded.IMAGE)
#: more than a purge deletes at once: two batches of a thousand, and one more
_MANY = 2001


@check(
    "retention.old-gone",
    claim="a purge deletes changes captured before the cutoff, keeps later ones, and touches no other table",
    section=_HERE,
    severity=P0,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.RETENTION,),
    records=_ROWS,
)
def old_gone(ctx: CheckContext) -> None:
    client = ctx.client()
    write(ctx, "old-1", "old-2")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET title = 'old-3' WHERE slug = 'old-1'")
        client.run("DELETE FROM public.posts WHERE slug = 'old-2'")
        client.run("TRUNCATE public.bookmarks")
    ctx.write(client, None if ctx.target.may_write_undeclared else ADA, "old-4")
    age(ctx, 2 * DAYS)
    write(ctx, "new-1", "new-2")
    rows = ctx.admin.rows("SELECT slug, title FROM public.posts ORDER BY slug")
    purge_before(ctx, cutoff_of_days(ctx))
    ctx.expect("changes left", slugs_left(ctx), equals=["new-1", "new-2"])
    left = [(change.op, change.table_name) for change in ctx.changes()]
    others = [change for change in left if change != ("insert", "posts")]
    ctx.expect("changes left of other operations and tables", others, equals=[])
    ctx.expect("tables that still hold old values", holding(ctx, "old-", "public.posts"), equals={})
    ctx.expect("audited rows", ctx.admin.rows("SELECT slug, title FROM public.posts ORDER BY slug"), equals=rows)
    before = sorted(change.id for change in ctx.changes())
    purge_before(ctx, cutoff_of_days(ctx))
    ctx.expect("changes after a second purge", sorted(change.id for change in ctx.changes()), equals=before)


@breaks(old_gone, at="changes left")
def old_gone_with_the_new(ctx: CheckContext) -> None:
    ctx.rewrite_function(*ANY_AGE)


@check(
    "retention.boundary",
    claim="a purge keeps the change that was captured exactly at the cutoff, whatever the time zone of its session",
    section=_HERE,
    severity=P0,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.RETENTION,),
    records=(*_ROWS, Recorded.TIME),
)
def boundary(ctx: CheckContext) -> None:
    write(ctx, "before", "at", "after")
    cutoff, last = time_of(ctx, "at"), time_of(ctx, "after")
    expected = slugs_since(ctx, cutoff)  # of a trail whose times are whole seconds, possibly all three
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        ctx.owner.run(f"SET TimeZone = '{zone}'")
        purge_before(ctx, cutoff)
        ctx.owner.run("RESET TimeZone")
        ctx.expect(f"changes left in the zone {zone}", slugs_left(ctx), equals=expected)
    expected = slugs_since(ctx, last)
    purge_before(ctx, last)
    ctx.expect("changes left by the next cutoff", slugs_left(ctx), equals=expected)


@breaks(boundary, at="changes left in the zone Pacific/Kiritimati")
def boundary_included(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("c.captured_at < cutoff", "c.captured_at <= cutoff"))


@check(
    "retention.mixed-age",
    claim="a purge within a transaction deletes its older changes, and keeps its newer ones with actor and transaction",
    section=_HERE,
    severity=P0,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.RETENTION,),
    records=(*_ROWS, Recorded.TIME),
)
def mixed_age(ctx: CheckContext) -> None:
    client = ctx.client()
    write(ctx, "alone", days_old=DAYS)
    with ctx.audited(client, BOB):
        ctx.insert_post(client, "old")
        ctx.insert_post(client, "new")
    cutoff = time_of(ctx, "new")
    expected = slugs_since(ctx, cutoff)
    transactions = {change.transaction_id for change in ctx.changes("posts") if change.text("slug") == "new"}
    counted = ctx.target.count_transactions(ctx.admin)
    purge_before(ctx, cutoff)
    left = ctx.changes("posts")
    ctx.expect("changes left", sorted(change.text("slug") for change in left), equals=expected)
    if ctx.records(Recorded.ACTOR):
        ctx.expect(
            "actors of the changes left", [change.actor for change in left], equals=[BOB.reference] * len(expected)
        )
    if ctx.records(Recorded.TRANSACTION_ID):
        ctx.expect("their transaction", {change.transaction_id for change in left}, equals=transactions)
    ctx.fact("transactions", f"{counted} before the purge, {ctx.target.count_transactions(ctx.admin)} after it")


@breaks(mixed_age, at="changes left")
def mixed_age_deletes_the_transaction(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_purge_changes",
        ("NOT EXISTS (SELECT FROM public.audit_changes c WHERE c.transaction_id = t.id)", "true"),
    )


@check(
    "retention.purge",
    claim="a purge deletes thousands of expired changes with their transactions, however many share one",
    section=_HERE,
    severity=P0,
    item="4.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.RETENTION,),
    records=_ROWS,
)
def purge_of_many(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run(f"INSERT INTO public.posts (slug) SELECT 'old-' || n FROM generate_series(1, {_MANY}) n")
    write(ctx, *(f"old-{n}" for n in ("a", "b", "c")), days_old=2 * DAYS)
    write(ctx, "new-1", "new-2")
    purge_before(ctx, cutoff_of_days(ctx))
    left = slugs_left(ctx)
    ctx.expect("expired changes left", sum(slug.startswith("old-") for slug in left), equals=0)
    ctx.expect("new changes left", [slug for slug in left if slug.startswith("new-")], equals=["new-1", "new-2"])
    transactions = ctx.target.count_transactions(ctx.admin)
    if ctx.target.is_reference:
        ctx.expect("transactions left", transactions, equals=2)
    elif transactions > len({change.transaction_id for change in ctx.changes()}):
        ctx.trail_limit("a purge keeps the records of transactions of which no change is left")


@breaks(purge_of_many, at="expired changes left")
def purge_that_finds_nothing(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("c.captured_at < cutoff", "false"))


@breaks(purge_of_many, at="transactions left")
def purge_that_leaves_transactions(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("IF empty_transactions THEN", "IF false THEN"))
    ctx.rewrite_function("threadline_purge_transactions", ("p.occurred_at < cutoff", "false"))


@check(
    "retention.side-by-side",
    claim="two concurrent purges next to a writer delete no new change and fail no write, and leave no expired change",
    section=_HERE,
    severity=P0,
    item="4.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.RETENTION,),
    records=_ROWS,
)
def side_by_side(ctx: CheckContext) -> None:
    client, waiting = ctx.client(), ctx.direct_client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug) SELECT 'old-' || n FROM generate_series(1, 400) n")
    age(ctx, 2 * DAYS)
    cutoff = cutoff_of_days(ctx)
    owners = [ctx.owner, ctx.another_owner()]
    written = [f"new-{n}" for n in range(20)]

    def write_new() -> None:
        for slug in written:
            ctx.write(client, ADA, slug)

    with ctx.audited(waiting, BOB):  # open while both purges run
        ctx.insert_post(waiting, "open")
        with ThreadPoolExecutor(3) as pool:
            writing = pool.submit(ctx.attempt, write_new)
            purges = [pool.submit(ctx.attempt, partial(purge_before, ctx, cutoff, owner)) for owner in owners]
            ctx.fact("outcomes of the purges", ", ".join(sorted(purged.result() for purged in purges)))
            ctx.expect("the writes", writing.result(), equals="done")
    purge_before(ctx, cutoff)
    ctx.expect("changes left", slugs_left(ctx), equals=sorted([*written, "open"]))
    if ctx.records(Recorded.ACTOR):
        ctx.expect("actor of the transaction that was open", ctx.actor_of("open"), equals=BOB.reference)


@breaks(side_by_side, at="changes left")
def side_by_side_deletes_new_changes(ctx: CheckContext) -> None:
    ctx.rewrite_function(*ANY_AGE)


@check(
    "retention.rights",
    claim="the application's role cannot purge the trail",
    section=_HERE,
    severity=P0,
    item="4.3",
    area="rights of the application role",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.RETENTION,),
    records=_ROWS,
)
def rights(ctx: CheckContext) -> None:
    write(ctx, "old-1", "old-2", days_old=2 * DAYS)
    cutoff, client = cutoff_of_days(ctx), ctx.client()
    ctx.fact("outcome of its purge", ctx.attempt(partial(purge_before, ctx, cutoff, client)))
    ctx.expect("changes left", slugs_left(ctx), equals=["old-1", "old-2"])


@breaks(rights, at="changes left")
def rights_for_everybody(ctx: CheckContext) -> None:
    for function in (
        "public.threadline_purge_changes(timestamptz, integer, boolean, timestamptz)",
        "public.threadline_purge_actions(timestamptz, integer)",
    ):
        ctx.sabotage(f"ALTER FUNCTION {function} SECURITY DEFINER; GRANT EXECUTE ON FUNCTION {function} TO harness_app")


@check(
    "retention.actions",
    claim="a purge keeps the actions of changes that it keeps, and no others",
    section=_HERE,
    severity=P1,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.RETENTION, TrailFeature.ACTIONS),
    records=(*_ROWS, Recorded.TIME),
)
def actions(ctx: CheckContext) -> None:
    client = ctx.client()
    for name in ("old", "recent"):
        age(ctx, DAYS)
        with ctx.audited(client, ADA):
            ctx.insert_post(client, f"{name}-1")
            ctx.target.record_action(client, name, f"correlation-{name}")
            ctx.insert_post(client, f"{name}-2")
    cutoff = time_of(ctx, "recent-2")
    expected = slugs_since(ctx, cutoff)
    purge_before(ctx, cutoff)
    left = ctx.changes("posts")
    ctx.expect("changes left", sorted(change.text("slug") for change in left), equals=expected)
    correlations = {key: action["correlation_id"] for key, action in ctx.target.actions(ctx.admin).items()}
    found = [correlations.get(change.action_id or "") for change in left]
    ctx.expect("correlations of the changes left", found, equals=["correlation-recent"] * len(left))
    ctx.fact("actions left", len(correlations))
    if "correlation-old" in correlations.values():
        ctx.trail_limit("a purge keeps the actions of changes that it deletes")


@breaks(actions, at="correlations of the changes left")
def actions_are_deleted(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_purge_changes",
        ("transactions := 0;", "UPDATE public.audit_transactions SET action_id = NULL; transactions := 0;"),
    )
