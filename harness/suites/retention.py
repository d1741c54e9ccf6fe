"""Retention: what is too old goes, all of it and nothing else, in batches that disturb nobody."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.audit.retention import Policy, Purged, RetentionError, cutoff_of, purge
from harness.audit.target_file import Feature
from harness.audit.telemetry import Telemetry
from harness.audit.work import Action, record_action
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, breaks, check
from harness.model import Section
from harness.suites.habits import ADA

if TYPE_CHECKING:
    from harness.checks.context import Bench

_HERE = Section.RETENTION
_AREA = "purge"
_DAYS = 30


def _policy(bench: Bench, **more: Any) -> Policy:
    return Policy(**({"enabled": True, "keep_days": _DAYS} | more | bench.application.policy))


def _purge(bench: Bench, policy: Policy | None = None, **more: Any) -> Purged:
    """Purge as the trail's owner, on the direct connection."""
    return purge(bench.owner, policy or _policy(bench), to=Telemetry(), **more)


def _write(bench: Bench, *slugs: str, days_old: int = 0) -> None:
    """Commit one audited insert for each slug, then make the whole trail older."""
    client = bench.client()
    for slug in slugs:
        bench.write(client, ADA, slug)
    if days_old:
        _age(bench, days_old)


def _age(bench: Bench, days: int) -> None:
    bench.admin.execute(bench.target.statements.age, {"age": f"{days} days"})


def _left(bench: Bench) -> list[str]:
    return sorted(each.data_after["slug"] for each in bench.changes("posts"))


#: what makes a purge take changes of any age
_ANY_AGE = ("threadline_purge_changes", ("c.captured_at < cutoff", "true"))


@check(
    "retention.old-gone",
    claim="a purge deletes what was captured before the cutoff, and keeps what was captured after it",
    section=_HERE,
    severity=P0,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.RETENTION,),
)
def old_gone(bench: Bench) -> None:
    client = bench.client()
    _write(bench, "old-1", "old-2")
    with bench.audited(client, ADA):
        client.run("UPDATE public.posts SET title = 'old-3' WHERE slug = 'old-1'")
        client.run("DELETE FROM public.posts WHERE slug = 'old-2'")
    _age(bench, 2 * _DAYS)
    _write(bench, "new-1", "new-2")
    cutoff = bench.admin.value(f"SELECT clock_timestamp() - interval '{_DAYS} days'")
    bench.owner.execute(bench.target.statements.purge, {"cutoff": cutoff})
    bench.expect("changes left", _left(bench), equals=["new-1", "new-2"])
    for table in bench.target.tables:
        held = bench.admin.value(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%old-%'")
        bench.expect(f"old values left in {table}", held, equals=0)


@breaks(old_gone, at="changes left")
def old_gone_with_the_new(bench: Bench) -> None:
    bench.rewrite_function(*_ANY_AGE)


@check(
    "retention.purge",
    claim="a purge deletes all that is too old, batch by batch, with its transactions; a second one finds nothing",
    section=_HERE,
    severity=P0,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def purge_in_batches(bench: Bench) -> None:
    _write(bench, *(f"old-{n}" for n in range(6)), days_old=2 * _DAYS)
    _write(bench, "new-1", "new-2")
    first = _purge(bench, batch_size=2)
    bench.expect("changes deleted", first.deleted_changes, equals=6)
    bench.expect("transactions deleted", first.deleted_transactions, equals=6)
    bench.expect("batches", first.batches, equals=3)
    bench.expect("complete", first.complete, equals=True)
    bench.expect("changes left", _left(bench), equals=["new-1", "new-2"])
    bench.expect("transactions left", bench.target.count_transactions(bench.admin), equals=2)
    again = _purge(bench)
    bench.expect(
        "deleted by a second one", (again.deleted_changes, again.deleted_transactions, again.batches), equals=(0, 0, 0)
    )


@breaks(purge_in_batches, at="changes deleted")
def purge_that_finds_nothing(bench: Bench) -> None:
    bench.rewrite_function("threadline_purge_changes", ("c.captured_at < cutoff", "false"))


@breaks(purge_in_batches, at="transactions deleted")
def purge_that_leaves_transactions(bench: Bench) -> None:
    bench.rewrite_function("threadline_purge_changes", ("IF empty_transactions THEN", "IF false THEN"))
    bench.rewrite_function("threadline_purge_transactions", ("p.occurred_at < cutoff", "false"))


@check(
    "retention.boundary",
    claim="the cutoff is exclusive, told by the database's clock, and no caller can move it closer",
    section=_HERE,
    severity=P0,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def boundary(bench: Bench) -> None:
    _write(bench, "before", "at", "after")
    clock = partial(bench.admin.value, f"SELECT clock_timestamp() - interval '{_DAYS} days'")
    early = clock()
    told = cutoff_of(bench.owner, _policy(bench))
    bench.expect("the policy's cutoff is the database's time less the window", early <= told <= clock(), equals=True)
    cutoff = told - timedelta(days=1)
    for slug, microseconds in {"before": -1, "at": 0, "after": 1}.items():
        at = cutoff + timedelta(microseconds=microseconds)
        bench.admin.run(
            "WITH c AS (UPDATE public.audit_changes SET captured_at = %s WHERE data_after ->> 'slug' = %s RETURNING transaction_id) "
            "UPDATE public.audit_transactions t SET occurred_at = %s FROM c WHERE t.id = c.transaction_id",
            [at, slug, at],
        )
    bench.expect("a cutoff after the policy's", _refused(bench, told + timedelta(hours=1)), equals="refused")
    bench.expect("a cutoff without a time zone", _refused(bench, told.replace(tzinfo=None)), equals="refused")
    done = _purge(bench, cutoff=cutoff)
    bench.expect("cutoff used", done.cutoff, equals=cutoff)
    bench.expect("changes left", _left(bench), equals=["after", "at"])


def _refused(bench: Bench, cutoff: datetime) -> str:
    try:
        _purge(bench, cutoff=cutoff)
    except RetentionError:
        return "refused"
    return "purged"


@breaks(boundary, at="changes left")
def boundary_included(bench: Bench) -> None:
    bench.rewrite_function("threadline_purge_changes", ("c.captured_at < cutoff", "c.captured_at <= cutoff"))


@check(
    "retention.mixed-age",
    claim="a transaction with old and new changes loses the old ones and keeps its record",
    section=_HERE,
    severity=P0,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def mixed_age(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        bench.insert_post(client, "old")
        bench.insert_post(client, "new")
    bench.admin.run(
        "UPDATE public.audit_changes SET captured_at = captured_at - interval '90 days' WHERE data_after ->> 'slug' = 'old';"
        "UPDATE public.audit_transactions SET occurred_at = occurred_at - interval '90 days'"
    )
    done = _purge(bench)
    bench.expect("deleted", (done.deleted_changes, done.deleted_transactions), equals=(1, 0))
    bench.expect("changes left", _left(bench), equals=["new"])
    bench.expect("actor of what is left", [each.actor for each in bench.changes()], equals=[ADA.reference])


@breaks(mixed_age, at="changes left")
def mixed_age_goes_whole(bench: Bench) -> None:
    bench.rewrite_function(
        "threadline_purge_changes",
        ("NOT EXISTS (SELECT FROM public.audit_changes c WHERE c.transaction_id = t.id)", "true"),
    )


@check(
    "retention.keep-transactions",
    claim="a policy that keeps empty transactions keeps them",
    section=_HERE,
    severity=P1,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def keep_transactions(bench: Bench) -> None:
    _write(bench, "old", days_old=2 * _DAYS)
    done = _purge(bench, _policy(bench, delete_empty_transactions=False))
    bench.expect("changes left", _left(bench), equals=[])
    bench.expect("transactions deleted", done.deleted_transactions, equals=0)
    bench.expect("transactions left", bench.target.count_transactions(bench.admin), equals=1)


@breaks(keep_transactions, at="transactions left")
def keep_transactions_is_not_heard(bench: Bench) -> None:
    bench.rewrite_function("threadline_purge_changes", ("IF empty_transactions THEN", "IF true THEN"))


@check(
    "retention.empty-transactions",
    claim="transactions without a change go when they are too old, and not before",
    section=_HERE,
    severity=P1,
    area=_AREA,
    claims=(Feature.LIBRARY,),
)
def empty_transactions(bench: Bench) -> None:
    bench.admin.run(
        "INSERT INTO public.audit_transactions (id, txid, occurred_at) SELECT gen_random_uuid(), n, "
        "now() - n * interval '20 days' FROM generate_series(1, 5) n"
    )
    done = _purge(bench, batch_size=2)
    bench.expect("transactions deleted", done.deleted_transactions, equals=4)
    left = [row[0] for row in bench.admin.rows("SELECT txid FROM public.audit_transactions")]
    bench.expect("transactions left", left, equals=[1])


@breaks(empty_transactions, at="transactions left")
def empty_transactions_of_any_age(bench: Bench) -> None:
    bench.rewrite_function("threadline_purge_transactions", ("p.occurred_at < cutoff", "true"))


@check(
    "retention.actions",
    claim="an action that no transaction is linked to goes when it is too old; a linked or a recent one stays",
    section=_HERE,
    severity=P1,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def actions(bench: Bench) -> None:
    client = bench.client()
    for name in ("old", "mixed", "recent"):
        with bench.audited(client, ADA):
            bench.insert_post(client, name)
            record_action(client, Action(name=name, comment="free text"))
    bench.admin.run(
        "UPDATE public.audit_actions SET inserted_at = inserted_at - interval '90 days' WHERE name <> 'recent';"
        "UPDATE public.audit_changes SET captured_at = captured_at - interval '90 days' WHERE data_after ->> 'slug' = 'old';"
        "UPDATE public.audit_transactions t SET occurred_at = occurred_at - interval '90 days' FROM public.audit_actions a "
        "WHERE a.id = t.action_id AND a.name = 'old';"
        "INSERT INTO public.audit_actions (name, actor_ref, status) VALUES ('recent, unlinked', '{\"type\": \"anonymous\"}', 'ok')"
    )
    done = _purge(bench)
    bench.expect("actions deleted", done.deleted_actions, equals=1)
    left = [row[0] for row in bench.admin.rows("SELECT name FROM public.audit_actions ORDER BY name")]
    bench.expect("actions left", left, equals=["mixed", "recent", "recent, unlinked"])


@breaks(actions, at="actions left")
def actions_of_any_age(bench: Bench) -> None:
    bench.rewrite_function("threadline_purge_actions", ("a.inserted_at < cutoff", "true"))


@check(
    "retention.stops-early",
    claim="a purge that its limit ended says so, and the next one goes on",
    section=_HERE,
    severity=P1,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def stops_early(bench: Bench) -> None:
    _write(bench, *(f"old-{n}" for n in range(5)), days_old=2 * _DAYS)
    first = _purge(bench, batch_size=1, max_batches=2)
    bench.expect("first: changes and batches", (first.deleted_changes, first.batches), equals=(2, 2))
    bench.expect("first: complete", first.complete, equals=False)
    second = _purge(bench, batch_size=3, max_batches=1)
    bench.expect("second: just enough is complete", (second.deleted_changes, second.complete), equals=(3, True))
    bench.expect("changes left", _left(bench), equals=[])


@breaks(stops_early, at="first: complete")
def stops_early_and_is_silent(bench: Bench) -> None:
    bench.rewrite_function(
        "threadline_purge_preview", ("c.captured_at < cutoff)", "false)"), ("t.occurred_at < cutoff", "false")
    )


@check(
    "retention.dry-run",
    claim="a dry run deletes nothing and counts exactly what a run deletes",
    section=_HERE,
    severity=P1,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def dry_run(bench: Bench) -> None:
    client = bench.client()
    for n in range(5):
        with bench.audited(client, ADA):
            bench.insert_post(client, f"old-{n}")
            record_action(client, Action(name=f"posted-{n}"))
    bench.admin.run(
        bench.target.statements.age.replace("%(age)s", "'90 days'")
        + ";UPDATE public.audit_actions SET inserted_at = inserted_at - interval '90 days'"
    )
    _write(bench, "new")
    told = _purge(bench, dry_run=True)
    bench.expect("changes after the dry run", len(bench.changes()), equals=6)
    done = _purge(bench, batch_size=2)
    bench.expect("changes counted", told.deleted_changes, equals=done.deleted_changes)
    bench.expect("transactions counted", told.deleted_transactions, equals=done.deleted_transactions)
    bench.expect("actions counted", told.deleted_actions, equals=done.deleted_actions)
    bench.expect("deleted", (done.deleted_changes, done.deleted_transactions, done.deleted_actions), equals=(5, 5, 5))
    bench.expect("marked as a dry run", (told.dry_run, told.batches), equals=(True, 0))


@breaks(dry_run, at="transactions counted")
def dry_run_counts_only_what_is_empty_already(bench: Bench) -> None:
    bench.rewrite_function(
        "threadline_purge_preview", ("c.transaction_id = t.id AND c.captured_at >= cutoff", "c.transaction_id = t.id")
    )


@check(
    "retention.disabled",
    claim="a policy that is not enabled deletes nothing and says so",
    section=_HERE,
    severity=P0,
    area="retention policy",
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def disabled(bench: Bench) -> None:
    _write(bench, "old", days_old=2 * _DAYS)
    try:
        _purge(bench, _policy(bench, enabled=False))
    except RetentionError as error:
        outcome = str(error)
    else:
        outcome = "purged"
    bench.expect("outcome", outcome.partition(",")[0], equals="retention: the policy is disabled")
    bench.expect("changes left", _left(bench), equals=["old"])


@breaks(disabled, at="outcome")
def disabled_but_for_the_operator(bench: Bench) -> None:
    bench.application.policy = {"enabled": True}


@check(
    "retention.side-by-side",
    claim="two purges beside writers delete each old change once, and no new one",
    section=_HERE,
    severity=P0,
    area=_AREA,
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.LIBRARY,),
)
def side_by_side(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("INSERT INTO public.posts (slug) SELECT 'old-' || n FROM generate_series(1, 400) n")
    bench.admin.run(bench.target.statements.age.replace("%(age)s", "'90 days'"))
    owners = [bench.owner, bench.another_owner()]
    written = [f"new-{n}" for n in range(40)]

    def write() -> None:
        for slug in written:
            bench.write(client, ADA, slug)

    with ThreadPoolExecutor(3) as pool:
        writing = pool.submit(write)
        done = [
            each.result()
            for each in [pool.submit(purge, owner, _policy(bench), batch_size=20, to=Telemetry()) for owner in owners]
        ]
        writing.result()
    rest = _purge(bench)
    bench.expect("changes deleted by both", sum(each.deleted_changes for each in [*done, rest]), equals=400)
    bench.expect("transactions deleted by both", sum(each.deleted_transactions for each in [*done, rest]), equals=1)
    bench.expect("new changes left", _left(bench), equals=sorted(written))


@breaks(side_by_side, at="new changes left")
def side_by_side_takes_the_new_along(bench: Bench) -> None:
    bench.rewrite_function(*_ANY_AGE)
