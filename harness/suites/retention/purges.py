"""The purge of the reference layer: its policy, its batches, and its dry run."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.retention import RetentionError, cutoff_of
from harness.audit.target_file import TrailFeature
from harness.audit.work import Action, record_action
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.retention.purging import DAYS, age, policy_of, purge_trail, slugs_left, write

if TYPE_CHECKING:
    from harness.audit.retention import Policy
    from harness.checks.context import CheckContext

_HERE = Section.RETENTION
_AREA = "purge"


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
    age(ctx, 3 * DAYS)
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
    "retention.policy",
    claim="a disabled policy and a cutoff that is newer than the policy's are refused, and empty transactions are kept on request",
    section=_HERE,
    severity=P0,
    item="4.1",
    area="retention policy",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def policy(ctx: CheckContext) -> None:
    write(ctx, "old", days_old=2 * DAYS)
    ctx.expect(
        "a disabled policy", _outcome(ctx, policy_of(ctx, enabled=False)), equals="retention: the policy is disabled"
    )
    clock = partial(ctx.admin.value, f"SELECT clock_timestamp() - interval '{DAYS} days'")
    early = clock()
    latest = cutoff_of(ctx.owner, policy_of(ctx))
    ctx.expect("the policy's cutoff is the database's time minus the window", early <= latest <= clock(), equals=True)
    for name, cutoff in {
        "a cutoff after the policy's": latest + timedelta(hours=1),
        "a cutoff without a time zone": latest.replace(tzinfo=None),
    }.items():
        ctx.expect(name, _outcome(ctx, policy_of(ctx), cutoff=cutoff) == "purged", equals=False)
    ctx.expect("changes left by what was refused", slugs_left(ctx), equals=["old"])
    done = purge_trail(ctx, policy_of(ctx, delete_empty_transactions=False))
    ctx.expect("changes left", slugs_left(ctx), equals=[])
    ctx.expect("transactions deleted", done.deleted_transactions, equals=0)
    ctx.expect("transactions left", ctx.target.count_transactions(ctx.admin), equals=1)


def _outcome(ctx: CheckContext, policy: Policy, **more: Any) -> str:
    """Return the first part of the error of a purge; "purged" without one."""
    try:
        purge_trail(ctx, policy, **more)
    except RetentionError as error:
        return str(error).partition(",")[0]
    return "purged"


@breaks(policy, at="a disabled policy")
def policy_that_the_operator_enabled(ctx: CheckContext) -> None:
    ctx.application.policy = {"enabled": True}


@breaks(policy, at="transactions left")
def policy_is_ignored(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("IF empty_transactions THEN", "IF true THEN"))


@check(
    "retention.batches",
    claim="a purge that stops at its batch limit reports itself incomplete, and empty or unlinked records go once they expire",
    section=_HERE,
    severity=P1,
    item="4.3",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def batches(ctx: CheckContext) -> None:
    write(ctx, *(f"old-{n}" for n in range(5)), days_old=2 * DAYS)
    first = purge_trail(ctx, batch_size=1, max_batches=2)
    ctx.expect("first: changes and batches", (first.deleted_changes, first.batches), equals=(2, 2))
    ctx.expect("first: complete", first.complete, equals=False)
    second = purge_trail(ctx, batch_size=3, max_batches=1)
    ctx.expect("second: complete at exactly the limit", (second.deleted_changes, second.complete), equals=(3, True))
    ctx.expect("changes left", slugs_left(ctx), equals=[])
    again = purge_trail(ctx)
    deleted = (again.deleted_changes, again.deleted_transactions, again.batches)
    ctx.expect("deleted by a third purge", deleted, equals=(0, 0, 0))
    ctx.admin.run(
        "INSERT INTO public.audit_transactions (id, txid, occurred_at) SELECT gen_random_uuid(), n, "
        "now() - n * interval '20 days' FROM generate_series(1, 5) n;"
        "INSERT INTO public.audit_actions (name, actor_ref, status, inserted_at) SELECT n::text, "
        "'{\"type\": \"anonymous\"}', 'ok', now() - n * interval '20 days' FROM generate_series(1, 5) n"
    )
    done = purge_trail(ctx, batch_size=2)
    ctx.expect(
        "empty transactions and unlinked actions", (done.deleted_transactions, done.deleted_actions), equals=(4, 4)
    )
    left = [row[0] for row in ctx.admin.rows("SELECT txid FROM public.audit_transactions")]
    ctx.expect("transactions left", left, equals=[1])
    left = [row[0] for row in ctx.admin.rows("SELECT name FROM public.audit_actions")]
    ctx.expect("actions left", left, equals=["1"])


@breaks(batches, at="first: complete")
def batches_reported_as_complete(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_purge_preview", ("c.captured_at < cutoff)", "false)"), ("t.occurred_at < cutoff", "false")
    )


@breaks(batches, at="transactions left")
def batches_of_transactions_of_any_age(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_transactions", ("p.occurred_at < cutoff", "true"))


@breaks(batches, at="actions left")
def batches_of_actions_of_any_age(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_actions", ("a.inserted_at < cutoff", "true"))
