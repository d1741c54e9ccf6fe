"""What a purge deletes: what is expired, and nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from harness.audit.retention import RetentionError, cutoff_of
from harness.audit.target_file import TrailFeature
from harness.audit.work import Action, record_action
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA
from harness.suites.retention.purging import ANY_AGE, DAYS, age, policy_of, purge_trail, slugs_left, write

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.RETENTION
_AREA = "purge"


@check(
    "retention.old-gone",
    claim="a purge deletes changes captured before the cutoff and keeps later ones",
    section=_HERE,
    severity=P0,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.RETENTION,),
)
def old_gone(ctx: CheckContext) -> None:
    client = ctx.client()
    write(ctx, "old-1", "old-2")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET title = 'old-3' WHERE slug = 'old-1'")
        client.run("DELETE FROM public.posts WHERE slug = 'old-2'")
    age(ctx, 2 * DAYS)
    write(ctx, "new-1", "new-2")
    cutoff = ctx.admin.value(f"SELECT clock_timestamp() - interval '{DAYS} days'")
    ctx.owner.execute(ctx.target.statements.purge, {"cutoff": cutoff})
    ctx.expect("changes left", slugs_left(ctx), equals=["new-1", "new-2"])
    for table in ctx.target.tables:
        held = ctx.admin.value(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%old-%'")
        ctx.expect(f"old values left in {table}", held, equals=0)


@breaks(old_gone, at="changes left")
def old_gone_with_the_new(ctx: CheckContext) -> None:
    ctx.rewrite_function(*ANY_AGE)


@check(
    "retention.boundary",
    claim="the cutoff is exclusive and uses the database's clock, and a caller cannot move it closer",
    section=_HERE,
    severity=P0,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def boundary(ctx: CheckContext) -> None:
    write(ctx, "before", "at", "after")
    clock = partial(ctx.admin.value, f"SELECT clock_timestamp() - interval '{DAYS} days'")
    early = clock()
    latest = cutoff_of(ctx.owner, policy_of(ctx))
    ctx.expect("the policy's cutoff is the database's time minus the window", early <= latest <= clock(), equals=True)
    cutoff = latest - timedelta(days=1)
    for slug, microseconds in {"before": -1, "at": 0, "after": 1}.items():
        at = cutoff + timedelta(microseconds=microseconds)
        ctx.admin.run(
            "WITH c AS (UPDATE public.audit_changes SET captured_at = %s WHERE data_after ->> 'slug' = %s RETURNING transaction_id) "
            "UPDATE public.audit_transactions t SET occurred_at = %s FROM c WHERE t.id = c.transaction_id",
            [at, slug, at],
        )
    ctx.expect("a cutoff after the policy's", _outcome(ctx, latest + timedelta(hours=1)), equals="refused")
    ctx.expect("a cutoff without a time zone", _outcome(ctx, latest.replace(tzinfo=None)), equals="refused")
    done = purge_trail(ctx, cutoff=cutoff)
    ctx.expect("cutoff used", done.cutoff, equals=cutoff)
    ctx.expect("changes left", slugs_left(ctx), equals=["after", "at"])


def _outcome(ctx: CheckContext, cutoff: datetime) -> str:
    try:
        purge_trail(ctx, cutoff=cutoff)
    except RetentionError:
        return "refused"
    return "purged"


@breaks(boundary, at="changes left")
def boundary_included(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("c.captured_at < cutoff", "c.captured_at <= cutoff"))


@check(
    "retention.mixed-age",
    claim="a purge deletes the old changes of a transaction, and keeps its newer changes and its record",
    section=_HERE,
    severity=P0,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def mixed_age(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        ctx.insert_post(client, "old")
        ctx.insert_post(client, "new")
    ctx.admin.run(
        "UPDATE public.audit_changes SET captured_at = captured_at - interval '90 days' WHERE data_after ->> 'slug' = 'old';"
        "UPDATE public.audit_transactions SET occurred_at = occurred_at - interval '90 days'"
    )
    done = purge_trail(ctx)
    ctx.expect("deleted", (done.deleted_changes, done.deleted_transactions), equals=(1, 0))
    ctx.expect("changes left", slugs_left(ctx), equals=["new"])
    ctx.expect("actor of the change left", [change.actor for change in ctx.changes()], equals=[ADA.reference])


@breaks(mixed_age, at="changes left")
def mixed_age_deletes_the_transaction(ctx: CheckContext) -> None:
    ctx.rewrite_function(
        "threadline_purge_changes",
        ("NOT EXISTS (SELECT FROM public.audit_changes c WHERE c.transaction_id = t.id)", "true"),
    )


@check(
    "retention.keep-transactions",
    claim="a policy that keeps empty transactions keeps them",
    section=_HERE,
    severity=P1,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def keep_transactions(ctx: CheckContext) -> None:
    write(ctx, "old", days_old=2 * DAYS)
    done = purge_trail(ctx, policy_of(ctx, delete_empty_transactions=False))
    ctx.expect("changes left", slugs_left(ctx), equals=[])
    ctx.expect("transactions deleted", done.deleted_transactions, equals=0)
    ctx.expect("transactions left", ctx.target.count_transactions(ctx.admin), equals=1)


@breaks(keep_transactions, at="transactions left")
def keep_transactions_is_ignored(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("IF empty_transactions THEN", "IF true THEN"))


@check(
    "retention.empty-transactions",
    claim="transactions without a change are deleted once they are expired, and not before",
    section=_HERE,
    severity=P1,
    item="4.1",
    area=_AREA,
    requires_features=(TrailFeature.LIBRARY,),
)
def empty_transactions(ctx: CheckContext) -> None:
    ctx.admin.run(
        "INSERT INTO public.audit_transactions (id, txid, occurred_at) SELECT gen_random_uuid(), n, "
        "now() - n * interval '20 days' FROM generate_series(1, 5) n"
    )
    done = purge_trail(ctx, batch_size=2)
    ctx.expect("transactions deleted", done.deleted_transactions, equals=4)
    left = [row[0] for row in ctx.admin.rows("SELECT txid FROM public.audit_transactions")]
    ctx.expect("transactions left", left, equals=[1])


@breaks(empty_transactions, at="transactions left")
def empty_transactions_of_any_age(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_transactions", ("p.occurred_at < cutoff", "true"))


@check(
    "retention.actions",
    claim="an expired action without a linked transaction is deleted; a linked or recent action stays",
    section=_HERE,
    severity=P1,
    item="4.1",
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
)
def actions(ctx: CheckContext) -> None:
    client = ctx.client()
    for name in ("old", "mixed", "recent"):
        with ctx.audited(client, ADA):
            ctx.insert_post(client, name)
            record_action(client, Action(name=name, comment="free text"))
    ctx.admin.run(
        "UPDATE public.audit_actions SET inserted_at = inserted_at - interval '90 days' WHERE name <> 'recent';"
        "UPDATE public.audit_changes SET captured_at = captured_at - interval '90 days' WHERE data_after ->> 'slug' = 'old';"
        "UPDATE public.audit_transactions t SET occurred_at = occurred_at - interval '90 days' FROM public.audit_actions a "
        "WHERE a.id = t.action_id AND a.name = 'old';"
        "INSERT INTO public.audit_actions (name, actor_ref, status) VALUES ('recent, unlinked', '{\"type\": \"anonymous\"}', 'ok')"
    )
    done = purge_trail(ctx)
    ctx.expect("actions deleted", done.deleted_actions, equals=1)
    left = [row[0] for row in ctx.admin.rows("SELECT name FROM public.audit_actions ORDER BY name")]
    ctx.expect("actions left", left, equals=["mixed", "recent", "recent, unlinked"])


@breaks(actions, at="actions left")
def actions_of_any_age(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_actions", ("a.inserted_at < cutoff", "true"))
