"""How a purge runs: in batches, dry, refused, and next to writers and other purges."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.audit.retention import RetentionError, purge
from harness.audit.target_file import TrailFeature
from harness.audit.telemetry import Telemetry
from harness.audit.work import Action, record_action
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.retention.purging import ANY_AGE, DAYS, policy_of, purge_trail, slugs_left, write

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.RETENTION
_AREA = "purge"


@check(
    "retention.purge",
    claim="a purge deletes all expired changes and their transactions in batches, and a second purge finds nothing",
    section=_HERE,
    severity=P0,
    item="4.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def purge_in_batches(ctx: CheckContext) -> None:
    write(ctx, *(f"old-{n}" for n in range(6)), days_old=2 * DAYS)
    write(ctx, "new-1", "new-2")
    first = purge_trail(ctx, batch_size=2)
    ctx.expect("changes deleted", first.deleted_changes, equals=6)
    ctx.expect("transactions deleted", first.deleted_transactions, equals=6)
    ctx.expect("batches", first.batches, equals=3)
    ctx.expect("complete", first.complete, equals=True)
    ctx.expect("changes left", slugs_left(ctx), equals=["new-1", "new-2"])
    ctx.expect("transactions left", ctx.target.count_transactions(ctx.admin), equals=2)
    again = purge_trail(ctx)
    ctx.expect(
        "deleted by a second purge",
        (again.deleted_changes, again.deleted_transactions, again.batches),
        equals=(0, 0, 0),
    )


@breaks(purge_in_batches, at="changes deleted")
def purge_that_finds_nothing(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("c.captured_at < cutoff", "false"))


@breaks(purge_in_batches, at="transactions deleted")
def purge_that_leaves_transactions(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("IF empty_transactions THEN", "IF false THEN"))
    ctx.rewrite_function("threadline_purge_transactions", ("p.occurred_at < cutoff", "false"))


@check(
    "retention.stops-early",
    claim="a purge that stops at its batch limit reports itself incomplete, and the next purge continues",
    section=_HERE,
    severity=P1,
    item="4.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def stops_early(ctx: CheckContext) -> None:
    write(ctx, *(f"old-{n}" for n in range(5)), days_old=2 * DAYS)
    first = purge_trail(ctx, batch_size=1, max_batches=2)
    ctx.expect("first: changes and batches", (first.deleted_changes, first.batches), equals=(2, 2))
    ctx.expect("first: complete", first.complete, equals=False)
    second = purge_trail(ctx, batch_size=3, max_batches=1)
    ctx.expect("second: complete at exactly the limit", (second.deleted_changes, second.complete), equals=(3, True))
    ctx.expect("changes left", slugs_left(ctx), equals=[])


@breaks(stops_early, at="first: complete")
def stops_early_reported_as_complete(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_purge_preview", ("c.captured_at < cutoff)", "false)"), ("t.occurred_at < cutoff", "false")
    )


@check(
    "retention.dry-run",
    claim="a dry run deletes nothing and counts exactly what a run deletes",
    section=_HERE,
    severity=P1,
    item="4.2",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def dry_run(ctx: CheckContext) -> None:
    client = ctx.client()
    for n in range(5):
        with ctx.audited(client, ADA):
            ctx.insert_post(client, f"old-{n}")
            record_action(client, Action(name=f"posted-{n}"))
    ctx.admin.run(
        ctx.target.statements.age.replace("%(age)s", "'90 days'")
        + ";UPDATE public.audit_actions SET inserted_at = inserted_at - interval '90 days'"
    )
    write(ctx, "new")
    preview = purge_trail(ctx, dry_run=True)
    ctx.expect("changes after the dry run", len(ctx.changes()), equals=6)
    done = purge_trail(ctx, batch_size=2)
    ctx.expect("changes counted", preview.deleted_changes, equals=done.deleted_changes)
    ctx.expect("transactions counted", preview.deleted_transactions, equals=done.deleted_transactions)
    ctx.expect("actions counted", preview.deleted_actions, equals=done.deleted_actions)
    ctx.expect("deleted", (done.deleted_changes, done.deleted_transactions, done.deleted_actions), equals=(5, 5, 5))
    ctx.expect("marked as a dry run", (preview.dry_run, preview.batches), equals=(True, 0))


@breaks(dry_run, at="transactions counted")
def dry_run_counts_only_empty_transactions(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_purge_preview", ("c.transaction_id = t.id AND c.captured_at >= cutoff", "c.transaction_id = t.id")
    )


@check(
    "retention.disabled",
    claim="a disabled policy is refused with that reason, and nothing is deleted",
    section=_HERE,
    severity=P0,
    item="4.1",
    area="retention policy",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def disabled(ctx: CheckContext) -> None:
    write(ctx, "old", days_old=2 * DAYS)
    try:
        purge_trail(ctx, policy_of(ctx, enabled=False))
    except RetentionError as error:
        outcome = str(error)
    else:
        outcome = "purged"
    ctx.expect("outcome", outcome.partition(",")[0], equals="retention: the policy is disabled")
    ctx.expect("changes left", slugs_left(ctx), equals=["old"])


@breaks(disabled, at="outcome")
def disabled_but_enabled_by_the_operator(ctx: CheckContext) -> None:
    ctx.application.policy = {"enabled": True}


@check(
    "retention.side-by-side",
    claim="two concurrent purges next to a writer delete each expired change once, and no newer one",
    section=_HERE,
    severity=P0,
    item="4.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def side_by_side(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug) SELECT 'old-' || n FROM generate_series(1, 400) n")
    ctx.admin.run(ctx.target.statements.age.replace("%(age)s", "'90 days'"))
    owners = [ctx.owner, ctx.another_owner()]
    written = [f"new-{n}" for n in range(40)]

    def write() -> None:
        for slug in written:
            ctx.write(client, ADA, slug)

    with ThreadPoolExecutor(3) as pool:
        writing = pool.submit(write)
        futures = [pool.submit(purge, owner, policy_of(ctx), batch_size=20, to=Telemetry()) for owner in owners]
        purges = [future.result() for future in futures]
        writing.result()
    purges.append(purge_trail(ctx))
    ctx.expect("changes deleted by all purges", sum(purged.deleted_changes for purged in purges), equals=400)
    ctx.expect("transactions deleted by all purges", sum(purged.deleted_transactions for purged in purges), equals=1)
    ctx.expect("new changes left", slugs_left(ctx), equals=sorted(written))


@breaks(side_by_side, at="new changes left")
def side_by_side_deletes_new_changes(ctx: CheckContext) -> None:
    ctx.rewrite_function(*ANY_AGE)
