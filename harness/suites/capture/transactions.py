"""Capture: what commits is in the trail, in the right transaction, and what does not commit is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.target_file import Feature
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError
from harness.model import Section
from harness.suites.habits import ADA

if TYPE_CHECKING:
    from harness.checks.context import Bench

_HERE = Section.CAPTURE


# --- transactions ----------------------------------------------------------------------------------------


@check(
    "capture.one-transaction",
    claim="the changes of one transaction share one record, those of two do not",
    section=_HERE,
    severity=P0,
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
)
def one_transaction(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        bench.insert_post(client, "a")
        with client.transaction():
            bench.insert_post(client, "b")
        client.run("UPDATE public.posts SET views = 1")
    bench.write(client, ADA, "c")
    changes = bench.changes("posts")
    bench.expect("records of the first transaction", len({each.transaction_id for each in changes[:4]}), equals=1)
    bench.expect("records in all", len({each.transaction_id for each in changes}), equals=2)
    bench.expect("records without a change", bench.target.count_transactions(bench.admin), equals=2)
    if bench.target.is_reference:
        bench.expect("transaction ids known", [each.txid is not None for each in changes], equals=[True] * 5)


@breaks(one_transaction, at="records of the first transaction")
def one_transaction_torn_apart(bench: Bench) -> None:
    bench.tamper("audit_changes", "NEW.transaction_id := gen_random_uuid()")


@check(
    "capture.rollback",
    claim="what a transaction rolls back leaves nothing in the trail",
    section=_HERE,
    severity=P0,
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
)
def rollback(bench: Bench) -> None:
    client = bench.client()
    bench.application.begin(client)
    bench.application.declare(client, ADA)
    bench.insert_post(client, "undone")
    client.run(bench.application.undo)
    bench.write(client, ADA, "kept")
    bench.expect("changes", [each.data_after["slug"] for each in bench.changes()], equals=["kept"])
    bench.expect("audit transactions", bench.target.count_transactions(bench.admin), equals=1)


@breaks(rollback, at="changes")
def rollback_that_commits(bench: Bench) -> None:
    bench.application.undo = "COMMIT"


@check(
    "capture.savepoint",
    claim="what a savepoint rolls back leaves nothing, and what surrounds it stays",
    section=_HERE,
    severity=P0,
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
)
def savepoint(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        client.run("SAVEPOINT s")
        bench.insert_post(client, "undone")
        client.run(bench.application.undo_to.format("s"))
        bench.insert_post(client, "kept")
    with bench.audited(client, ADA):
        client.run("SAVEPOINT s")
        bench.insert_post(client, "undone too")
        client.run(bench.application.undo_to.format("s"))
    bench.expect("changes", [each.data_after["slug"] for each in bench.changes()], equals=["kept"])
    bench.expect("actor", [each.actor for each in bench.changes()], equals=[ADA.reference])
    bench.expect("audit transactions", bench.target.count_transactions(bench.admin), equals=1)


@breaks(savepoint, at="changes")
def savepoint_that_is_released(bench: Bench) -> None:
    bench.application.undo_to = "RELEASE SAVEPOINT {}"


@check(
    "capture.two-phase",
    claim="a prepared transaction is in the trail when it commits, complete, and not before",
    section=_HERE,
    severity=P0,
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
)
def two_phase(bench: Bench) -> None:
    one, other = bench.clients(2)
    name = bench.database
    one.run("BEGIN")
    bench.application.declare(one, ADA)
    bench.insert_post(one, "two-phase")
    one.run(f"PREPARE TRANSACTION '{name}'")
    try:
        bench.expect("changes while prepared", len(bench.changes()), equals=0)
        other.run(f"COMMIT PREPARED '{name}'")
    except SqlError:
        bench.admin.run(f"ROLLBACK PREPARED '{name}'")  # or the database could not be dropped
        raise
    bench.expect(
        "changes after the commit", [each.data_after["slug"] for each in bench.changes()], equals=["two-phase"]
    )
    bench.expect("actor", [each.actor for each in bench.changes()], equals=[ADA.reference])


@breaks(two_phase, at="actor")
def two_phase_without_an_actor(bench: Bench) -> None:
    bench.application.declare = bench.application.declare_nothing


@check(
    "capture.killed-connection",
    claim="a server connection killed in a transaction leaves neither the row nor a change",
    section=_HERE,
    severity=P0,
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
)
def killed_connection(bench: Bench) -> None:
    client = bench.client()
    bench.application.begin(client)
    bench.application.declare(client, ADA)
    bench.insert_post(client, "lost")
    pid = client.server_pid()
    bench.admin.value("SELECT pg_terminate_backend(%s, 5000)", [pid])
    outcome = bench.attempt(lambda: client.run("COMMIT"))
    bench.fact("what the client was told", outcome)
    bench.fact("server connection killed", pid)
    bench.expect("the client was told", outcome != "done", equals=True)
    bench.expect("rows", bench.admin.value("SELECT count(*) FROM public.posts"), equals=0)
    bench.expect("changes", len(bench.changes()), equals=0)
    bench.write(bench.client(), ADA, "next")
    bench.expect("changes of the next transaction", len(bench.changes()), equals=1)


@breaks(killed_connection, at="rows")
def killed_connection_without_a_transaction(bench: Bench) -> None:
    bench.application.begin = bench.application.begin_nothing


@check(
    "capture.reused-txid",
    claim="a record left by another cluster with this transaction's id is not taken for its own",
    section=_HERE,
    severity=P0,
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    claims=(Feature.CONTRACT_TABLES,),
)
def reused_txid(bench: Bench) -> None:
    client = bench.client()
    with bench.audited(client, ADA):
        txid = client.value("SELECT txid_current()")
        # what a dump taken elsewhere brings along: ids of a cluster that counted differently
        bench.admin.run(
            "INSERT INTO public.audit_transactions (id, txid, occurred_at, actor_ref) VALUES "
            '(gen_random_uuid(), %s, \'2020-02-02\', \'{"type": "user", "id": "somebody else"}\')',
            [txid],
        )
        bench.insert_post(client, "mine")
    changes = bench.changes("posts")
    if bench.expect("rows captured", len(changes), equals=1):
        if bench.target.is_reference:
            bench.expect("transaction id", changes[0].txid, equals=txid)
        bench.expect("actor", changes[0].actor, equals=ADA.reference)


@breaks(reused_txid, at="actor")
def reused_txid_is_looked_up(bench: Bench) -> None:
    bench.rewrite_capture(
        (
            "uuid := public.threadline_transaction_id()",
            "uuid := coalesce((SELECT id FROM public.audit_transactions WHERE txid = txid_current() "
            "LIMIT 1), public.threadline_transaction_id())",
        )
    )
