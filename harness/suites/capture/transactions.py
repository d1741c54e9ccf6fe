"""Capture: committed changes are in the trail, in the right transaction, and uncommitted ones are not."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from typing import TYPE_CHECKING

from harness.audit.target_file import Recorded, TrailFeature
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import SqlError
from harness.model import Section
from harness.suites.actors import ADA, BOB
from harness.suites.capture.renumbering import differing, repeat_number

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client

_HERE = Section.CAPTURE
#: what a check of single inserts looks at
_RECORDED = (Recorded.INSERTS, Recorded.IMAGE)
#: hexadecimal digits of an id that may be a hash
_HASHED = 16


@check(
    "capture.one-transaction",
    claim="the changes of one transaction share one record, and those of two transactions do not",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    records=(*_RECORDED, Recorded.TRANSACTION_ID),
)
def one_transaction(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        ctx.insert_post(client, "a")
        with client.transaction():
            ctx.insert_post(client, "b")
        client.run("UPDATE public.posts SET views = 1")
    ctx.write(client, ADA, "c")
    of_first = {change.transaction_id for change in ctx.changes("posts") if change.text("slug") in {"a", "b"}}
    of_second = {change.transaction_id for change in ctx.changes("posts") if change.text("slug") == "c"}
    ctx.expect("records of the first transaction", len(of_first), equals=1)
    ctx.expect("records of both transactions", len(of_first | of_second), equals=2)
    ctx.expect("audit transactions", ctx.target.count_transactions(ctx.admin), equals=2)
    if ctx.target.is_reference:
        changes = ctx.changes("posts")
        ctx.expect("transaction ids known", [change.txid is not None for change in changes], equals=[True] * 5)


@breaks(one_transaction, at="records of the first transaction")
def one_transaction_torn_apart(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.transaction_id := gen_random_uuid()")


@check(
    "capture.rollback",
    claim="a rolled back transaction leaves nothing in the trail",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    records=_RECORDED,
)
def rollback(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.application.begin_audited(client, ADA)
    ctx.insert_post(client, "undone")
    client.run(ctx.application.undo)
    ctx.write(client, ADA, "kept")
    ctx.expect("changes", [change.text("slug") for change in ctx.changes()], equals=["kept"])
    if ctx.records(Recorded.TRANSACTION_ID):
        ctx.expect("audit transactions", ctx.target.count_transactions(ctx.admin), equals=1)


@breaks(rollback, at="changes")
def rollback_that_commits(ctx: CheckContext) -> None:
    ctx.application.undo = "COMMIT"


@check(
    "capture.savepoint",
    claim="writes rolled back to a savepoint leave nothing in the trail, and the surrounding writes stay",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    records=_RECORDED,
)
def savepoint(ctx: CheckContext) -> None:
    client = ctx.client()
    with ctx.audited(client, ADA):
        client.run("SAVEPOINT s")
        ctx.insert_post(client, "undone")
        client.run(ctx.application.undo_to.format("s"))
        ctx.insert_post(client, "kept")
    with ctx.audited(client, ADA):
        client.run("SAVEPOINT s")
        ctx.insert_post(client, "undone too")
        client.run(ctx.application.undo_to.format("s"))
    ctx.expect("changes", [change.text("slug") for change in ctx.changes()], equals=["kept"])
    if ctx.records(Recorded.ACTOR):
        ctx.expect("actor", [change.actor for change in ctx.changes()], equals=[ADA.reference])
    if ctx.records(Recorded.TRANSACTION_ID):
        ctx.expect("audit transactions", ctx.target.count_transactions(ctx.admin), equals=1)


@breaks(savepoint, at="changes")
def savepoint_that_is_released(ctx: CheckContext) -> None:
    ctx.application.undo_to = "RELEASE SAVEPOINT {}"


@check(
    "capture.two-phase",
    claim="a prepared transaction is in the trail once it commits, complete, and not before",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    records=_RECORDED,
)
def two_phase(ctx: CheckContext) -> None:
    preparer, committer = ctx.clients(2)
    name = ctx.database
    _require_prepared_transactions(ctx, name)
    ctx.application.begin_audited(preparer, ADA)
    ctx.insert_post(preparer, "two-phase")
    prepared = ctx.attempt(partial(preparer.run, f"PREPARE TRANSACTION '{name}'"))
    if not ctx.expect("preparing the transaction", prepared, equals="done"):
        preparer.run("ROLLBACK")
        return
    try:
        ctx.expect("changes while prepared", len(ctx.changes()), equals=0)
        committer.run(f"COMMIT PREPARED '{name}'")
    except SqlError:
        ctx.admin.run(f"ROLLBACK PREPARED '{name}'")  # a database with a prepared transaction cannot be dropped
        raise
    ctx.expect("changes after the commit", [change.text("slug") for change in ctx.changes()], equals=["two-phase"])
    if ctx.records(Recorded.ACTOR):
        ctx.expect("actor", [change.actor for change in ctx.changes()], equals=[ADA.reference])


def _require_prepared_transactions(ctx: CheckContext, name: str) -> None:
    """Require that the server prepares a transaction that writes to a table without capture.

    :raises NotExercisedError: when it does not.
    """
    ctx.admin.run("BEGIN; INSERT INTO public.drafts (body) VALUES ('a draft')")
    outcome = ctx.attempt(partial(ctx.admin.run, f"PREPARE TRANSACTION '{name}'"))
    ctx.admin.run(f"ROLLBACK PREPARED '{name}'" if outcome == "done" else "ROLLBACK")
    if outcome != "done":
        raise NotExercisedError(f"the server prepares no transaction: {outcome}")


@breaks(two_phase, at="actor")
def two_phase_without_an_actor(ctx: CheckContext) -> None:
    ctx.application.declare = ctx.application.declare_nothing


@breaks(two_phase, at="preparing the transaction")
def two_phase_with_a_temporary_table(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "CREATE TEMPORARY TABLE cached (n int) ON COMMIT DROP")


@check(
    "capture.killed-connection",
    claim="a server connection killed within a transaction leaves neither the row nor a change",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    records=(Recorded.INSERTS,),
)
def killed_connection(ctx: CheckContext) -> None:
    client = ctx.client()
    ctx.application.begin_audited(client, ADA)
    ctx.insert_post(client, "lost")
    pid = client.server_pid()
    ctx.admin.value("SELECT pg_terminate_backend(%s, 5000)", [pid])
    outcome = ctx.attempt(lambda: client.run("COMMIT"))
    ctx.fact("the client's outcome", outcome)
    ctx.fact("server connection killed", pid)
    ctx.expect("the client's COMMIT fails", outcome != "done", equals=True)
    ctx.expect("rows", ctx.admin.value("SELECT count(*) FROM public.posts"), equals=0)
    ctx.expect("changes", len(ctx.changes()), equals=0)
    ctx.write(ctx.client(), ADA, "next")
    ctx.expect("changes of the next transaction", len(ctx.changes()), equals=1)


@breaks(killed_connection, at="rows")
def killed_connection_without_a_transaction(ctx: CheckContext) -> None:
    ctx.application.begin = ctx.application.begin_nothing


@check(
    "capture.reused-txid",
    claim="a record of another cluster with the same transaction number is not confused with this transaction, and stays",
    section=_HERE,
    severity=P0,
    item="1.1",
    area="transaction record",
    needs=(TRANSACTION_BLOCKS,),
    judges=(TrailFeature.CONTRACT_TABLES,),
    records=(*_RECORDED, Recorded.TRANSACTION_ID),
)
def reused_txid(ctx: CheckContext) -> None:
    """A dump that is restored into a new cluster brings records whose numbers the cluster assigns once more."""
    client = ctx.client()
    numbers = [_numbered_write(ctx, client, slug) for slug in ("older", "another")]
    before = ctx.changes("posts")
    convention = ctx.target.actor
    if not convention.is_local:
        ctx.application.declare(client, ADA)
    with ctx.application.transaction(client):
        txid = client.value("SELECT txid_current()")
        if ctx.claims(TrailFeature.CONTRACT_TABLES):
            ctx.admin.run(
                "INSERT INTO public.audit_transactions (id, txid, occurred_at, actor_ref) VALUES "
                '(gen_random_uuid(), %s, \'2020-02-02\', \'{"type": "user", "id": "somebody else"}\')',
                [txid],
            )
        repeated = repeat_number(ctx, numbers, txid)
        if convention.is_local:
            ctx.application.declare(client, ADA)
        ctx.insert_post(client, "mine")
    known = {change.id for change in before}
    changes = [change for change in ctx.changes("posts") if change.id not in known]
    if not ctx.expect("rows captured", len(changes), equals=1):
        return
    if ctx.target.is_reference:
        ctx.expect("transaction id", changes[0].txid, equals=txid)
    if ctx.records(Recorded.ACTOR):
        ctx.expect("actor", changes[0].actor, equals=ADA.reference)
    ctx.fact("records of an earlier transaction that got this number", repeated)
    if repeated:
        ctx.expect("earlier changes that differ since then", differing(before, ctx.changes("posts")), equals=[])
    more = "more than the server's number"
    bare = any(stands_for(changes[0].transaction_id or "", number) for number in (txid, txid % 2**32))
    made_of = "the number alone, which a restored database assigns again" if bare else more
    ctx.expect("what the id of a transaction is made of", made_of, equals=more)


def _numbered_write(ctx: CheckContext, client: Client, slug: str) -> int:
    """Insert a post as another actor, and return the number of the transaction."""
    with ctx.audited(client, BOB):
        ctx.insert_post(client, slug)
        return int(client.value("SELECT txid_current()"))


def stands_for(identity: str, number: int) -> bool:
    """Return whether an id is a number and nothing else: decimal, hexadecimal with zeros around it, or hashed."""
    digits = identity.replace("-", "")
    if re.fullmatch("[0-9]+", identity) and int(identity) == number:
        return True
    if not re.fullmatch("[0-9a-f]+", digits):
        return False
    hashed = (hashlib.new(name, str(number).encode()).hexdigest() for name in ("md5", "sha1", "sha256", "sha512"))
    is_number = digits.strip("0") == f"{number:x}".strip("0")
    return is_number or (len(digits) >= _HASHED and any(found.startswith(digits) for found in hashed))


@breaks(reused_txid, at="actor")
def reused_txid_is_looked_up(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "uuid := public.threadline_transaction_id()",
            "uuid := coalesce((SELECT id FROM public.audit_transactions WHERE txid = txid_current() "
            "LIMIT 1), public.threadline_transaction_id())",
        )
    )


@breaks(reused_txid, at="earlier changes that differ since then")
def reused_txid_takes_the_earlier_record(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "UPDATE public.audit_transactions SET actor_ref = NULL WHERE txid = NEW.txid")


@breaks(reused_txid, at="what the id of a transaction is made of")
def reused_txid_as_the_whole_id(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        (
            "uuid := public.threadline_transaction_id()",
            "uuid := lpad(to_hex(txid_current()), 32, '0')::uuid",
        )
    )
