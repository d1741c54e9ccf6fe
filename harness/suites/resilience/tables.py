"""The two captured tables of the writers, and the final state that is read from them, the trail and the server's log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from harness.audit.target_file import Recorded
from harness.checks.judges.acknowledged import FinalState, OperationChange, OperationRow, WriteChange, WriteRow
from harness.checks.record import NotExercisedError
from harness.database import SqlError, describe
from harness.errors import ServiceFailedError, TimedOutError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.database import Client

WRITES, OPERATIONS = "public.writes", "public.operations"
#: how long the server may take to answer directly after the last fault, seconds
_ANSWERS_S = 30.0
#: how long connections may take to end once they are terminated, seconds
_ENDS_S = 10.0

_TABLES = """
CREATE TABLE public.writes (id bigint PRIMARY KEY, client integer NOT NULL, value text NOT NULL);
CREATE TABLE public.operations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, client integer NOT NULL, seq integer NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON public.writes, public.operations TO harness_app"""
#: a mark in the server's log: later lines belong to the check, whose database has a name that no other has
_MARK = "pooler-harness: the writers begin in {}"


def prepare_tables(ctx: CheckContext) -> None:
    """Create the tables and capture them, and mark the server's log; a second call does nothing.

    A control that breaks the capture of these tables calls it first.
    """
    if ctx.admin.value("SELECT to_regclass('public.writes') IS NOT NULL"):
        return
    ctx.owner.run(_TABLES)
    for table in (WRITES, OPERATIONS):
        ctx.target.attach(ctx.owner, table)
    ctx.admin.run(f"DO $$ BEGIN RAISE LOG '{_MARK.format(ctx.database)}'; END $$")


def read_final_state(ctx: CheckContext) -> FinalState:
    """Read the tables, the trail and the server's log, once no transaction of the writers can commit any more.

    :raises NotExercisedError: when the server does not answer.
    """
    admin = direct(ctx)
    _end_transactions(admin)
    numbers: dict[str | None, int] = {None: 0}
    names_transactions = ctx.records(Recorded.TRANSACTION_ID)
    writes: list[WriteChange] = []
    operations: list[OperationChange] = []
    for change in ctx.target.changes(admin):
        if change.table_schema != "public" or change.table_name not in {"writes", "operations"}:
            continue
        number = numbers.setdefault(change.transaction_id if names_transactions else None, len(numbers))
        if change.table_name == "writes":
            value = change.text("value") if change.data_after is not None else ""
            writes.append(WriteChange(change.op, _key(change), value, spelled(change.actor), number))
        else:
            client, seq = (_whole(change, column) for column in ("client", "seq"))
            operations.append(OperationChange(change.op, client, seq, spelled(change.actor), number))
    return FinalState(
        writes=tuple(WriteRow(*row) for row in _rows(admin, WRITES, "id::text, client, value")),
        operations=tuple(OperationRow(*row) for row in _rows(admin, OPERATIONS, "client, seq")),
        write_changes=tuple(writes),
        operation_changes=tuple(operations),
        panics=_panics(ctx),
        names_actors=ctx.records(Recorded.ACTOR),
    )


def spelled(actor: Any) -> str:
    """Return an actor as the history spells it, such as `user:writer-1`; other values as JSON."""
    match actor:
        case None:
            return "none"
        case {"type": str() as kind, "id": str() as identity} if len(actor) == len(("type", "id")):
            return f"{kind}:{identity}"
    return msgspec.json.encode(actor, order="deterministic").decode()


def direct(ctx: CheckContext) -> Client:
    """Return a new connection to the server itself. The earlier one may have ended with the server."""

    def answering() -> Client:
        ctx.require_undisturbed()
        ctx.forget_connections()
        try:
            ctx.admin.value("SELECT 1")
        except (SqlError, ServiceFailedError) as error:
            raise NotYet(describe(error)) from None
        return ctx.admin

    try:
        return poll(answering, what="an answer of the server", deadline_s=_ANSWERS_S, interval_s=0.05)
    except TimedOutError as error:
        raise NotExercisedError(error.what) from None


def _end_transactions(admin: Client) -> None:
    """End all other connections to this database: what a pooler or a link still holds back cannot commit any more.

    :raises NotExercisedError: when one does not end.
    """
    others = (
        "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    pids = [pid for pid, _ in admin.rows(f"SELECT pid, pg_terminate_backend(pid) {others}")]

    def gone() -> None:
        if left := admin.rows(f"SELECT pid {others} AND pid = ANY(%s)", [pids]):
            raise NotYet(f"{len(left)} of {len(pids)} are open")

    try:
        poll(gone, what="the end of the connections of the writers", deadline_s=_ENDS_S)
    except TimedOutError as error:
        raise NotExercisedError(f"{error.what}: the state is not final") from None


def _rows(admin: Client, table: str, columns: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table; none if the table itself is lost."""
    if admin.value("SELECT to_regclass(%s) IS NULL", [table]):
        return []
    return admin.rows(f"SELECT {columns} FROM {table} ORDER BY id")


def _key(change: Change) -> str:
    """Return the key of a changed row: a deletion has no row after the change."""
    for image in (change.table_pk, change.data_after, change.changed_from):
        if isinstance(image, dict) and image.get("id") is not None:
            return str(image["id"])
    return ""


def _whole(change: Change, column: str) -> int:
    value = change.value(column)
    return value if isinstance(value, int) else -1


def _panics(ctx: CheckContext) -> tuple[str, ...] | None:
    """Return the lines with PANIC since the mark of this check; None when the log does not have the mark."""
    _, mark, log = ctx.lab.postgres.logs().partition(_MARK.format(ctx.database))
    return tuple(line for line in log.splitlines() if " PANIC:  " in line) if mark else None
