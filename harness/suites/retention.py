"""Retention: a purge deletes all expired changes and nothing else, in batches that do not block writers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.retention import Policy, Purged, RetentionError, cutoff_of, purge
from harness.audit.target_file import TrailFeature
from harness.audit.telemetry import Telemetry
from harness.audit.work import Action, record_action
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.actors import ADA

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

_HERE = Section.RETENTION
_AREA = "purge"
_DAYS = 30


def _policy(ctx: CheckContext, **more: Any) -> Policy:
    return Policy(**({"enabled": True, "keep_days": _DAYS} | more | ctx.application.policy))


def _purge(ctx: CheckContext, policy: Policy | None = None, **more: Any) -> Purged:
    """Purge as the trail's owner, on the direct connection."""
    return purge(ctx.owner, policy or _policy(ctx), to=Telemetry(), **more)


def _write(ctx: CheckContext, *slugs: str, days_old: int = 0) -> None:
    """Commit one audited insert for each slug, then make the whole trail older."""
    client = ctx.client()
    for slug in slugs:
        ctx.write(client, ADA, slug)
    if days_old:
        _age(ctx, days_old)


def _age(ctx: CheckContext, days: int) -> None:
    ctx.admin.execute(ctx.target.statements.age, {"age": f"{days} days"})


def _left(ctx: CheckContext) -> list[str]:
    """Return the slugs of posts whose changes are still in the trail."""
    return sorted(change.text("slug") for change in ctx.changes("posts"))


#: a sabotage: the purge deletes changes of any age
_ANY_AGE = ("threadline_purge_changes", ("c.captured_at < cutoff", "true"))


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
    _write(ctx, "old-1", "old-2")
    with ctx.audited(client, ADA):
        client.run("UPDATE public.posts SET title = 'old-3' WHERE slug = 'old-1'")
        client.run("DELETE FROM public.posts WHERE slug = 'old-2'")
    _age(ctx, 2 * _DAYS)
    _write(ctx, "new-1", "new-2")
    cutoff = ctx.admin.value(f"SELECT clock_timestamp() - interval '{_DAYS} days'")
    ctx.owner.execute(ctx.target.statements.purge, {"cutoff": cutoff})
    ctx.expect("changes left", _left(ctx), equals=["new-1", "new-2"])
    for table in ctx.target.tables:
        held = ctx.admin.value(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%old-%'")
        ctx.expect(f"old values left in {table}", held, equals=0)


@breaks(old_gone, at="changes left")
def old_gone_with_the_new(ctx: CheckContext) -> None:
    ctx.rewrite_function(*_ANY_AGE)


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
    _write(ctx, *(f"old-{n}" for n in range(6)), days_old=2 * _DAYS)
    _write(ctx, "new-1", "new-2")
    first = _purge(ctx, batch_size=2)
    ctx.expect("changes deleted", first.deleted_changes, equals=6)
    ctx.expect("transactions deleted", first.deleted_transactions, equals=6)
    ctx.expect("batches", first.batches, equals=3)
    ctx.expect("complete", first.complete, equals=True)
    ctx.expect("changes left", _left(ctx), equals=["new-1", "new-2"])
    ctx.expect("transactions left", ctx.target.count_transactions(ctx.admin), equals=2)
    again = _purge(ctx)
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
    _write(ctx, "before", "at", "after")
    clock = partial(ctx.admin.value, f"SELECT clock_timestamp() - interval '{_DAYS} days'")
    early = clock()
    latest = cutoff_of(ctx.owner, _policy(ctx))
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
    done = _purge(ctx, cutoff=cutoff)
    ctx.expect("cutoff used", done.cutoff, equals=cutoff)
    ctx.expect("changes left", _left(ctx), equals=["after", "at"])


def _outcome(ctx: CheckContext, cutoff: datetime) -> str:
    try:
        _purge(ctx, cutoff=cutoff)
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
    done = _purge(ctx)
    ctx.expect("deleted", (done.deleted_changes, done.deleted_transactions), equals=(1, 0))
    ctx.expect("changes left", _left(ctx), equals=["new"])
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
    _write(ctx, "old", days_old=2 * _DAYS)
    done = _purge(ctx, _policy(ctx, delete_empty_transactions=False))
    ctx.expect("changes left", _left(ctx), equals=[])
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
    done = _purge(ctx, batch_size=2)
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
    done = _purge(ctx)
    ctx.expect("actions deleted", done.deleted_actions, equals=1)
    left = [row[0] for row in ctx.admin.rows("SELECT name FROM public.audit_actions ORDER BY name")]
    ctx.expect("actions left", left, equals=["mixed", "recent", "recent, unlinked"])


@breaks(actions, at="actions left")
def actions_of_any_age(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_actions", ("a.inserted_at < cutoff", "true"))


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
    _write(ctx, *(f"old-{n}" for n in range(5)), days_old=2 * _DAYS)
    first = _purge(ctx, batch_size=1, max_batches=2)
    ctx.expect("first: changes and batches", (first.deleted_changes, first.batches), equals=(2, 2))
    ctx.expect("first: complete", first.complete, equals=False)
    second = _purge(ctx, batch_size=3, max_batches=1)
    ctx.expect("second: complete at exactly the limit", (second.deleted_changes, second.complete), equals=(3, True))
    ctx.expect("changes left", _left(ctx), equals=[])


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
    _write(ctx, "new")
    preview = _purge(ctx, dry_run=True)
    ctx.expect("changes after the dry run", len(ctx.changes()), equals=6)
    done = _purge(ctx, batch_size=2)
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
    _write(ctx, "old", days_old=2 * _DAYS)
    try:
        _purge(ctx, _policy(ctx, enabled=False))
    except RetentionError as error:
        outcome = str(error)
    else:
        outcome = "purged"
    ctx.expect("outcome", outcome.partition(",")[0], equals="retention: the policy is disabled")
    ctx.expect("changes left", _left(ctx), equals=["old"])


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
        futures = [pool.submit(purge, owner, _policy(ctx), batch_size=20, to=Telemetry()) for owner in owners]
        purges = [future.result() for future in futures]
        writing.result()
    purges.append(_purge(ctx))
    ctx.expect("changes deleted by all purges", sum(purged.deleted_changes for purged in purges), equals=400)
    ctx.expect("transactions deleted by all purges", sum(purged.deleted_transactions for purged in purges), equals=1)
    ctx.expect("new changes left", _left(ctx), equals=sorted(written))


@breaks(side_by_side, at="new changes left")
def side_by_side_deletes_new_changes(ctx: CheckContext) -> None:
    ctx.rewrite_function(*_ANY_AGE)
