"""One audited unit of work: a transaction with its actor, and the action it stands for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import asdict

from harness.audit import telemetry
from harness.database import SqlError, fetch, is_idle, is_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.audit.actor import Actor
    from harness.audit.telemetry import Telemetry
    from harness.database import AnyConnection

ACTOR_SETTING = "threadline.actor_ref"


class Action(Struct, frozen=True, kw_only=True):
    """What the application meant to do. Ids are stored without blanks around them, in 1 to 256 bytes."""

    name: str
    status: str = "ok"
    verb: str | None = None
    category: str | None = None
    reason: str | None = None
    comment: str | None = None
    correlation_id: str | None = None
    request_id: str | None = None
    job_id: str | None = None


class Work(Struct):
    """The unit of work that is going on."""

    #: identity of its record in the trail, whether or not it changes a row
    transaction_id: str
    action_ids: list[str]
    #: how many tables it changed, where the application knows
    table_count: int | None = None


class NestedWorkError(RuntimeError):
    """An audited unit of work was opened within a transaction: its actor would not be its own."""


class WorkUndoneError(RuntimeError):
    """The transaction of a unit of work had ended, or failed, before the block did."""


@contextmanager
def audited(
    connection: AnyConnection, actor: Actor, *, action: Action | None = None, to: Telemetry = telemetry.default
) -> Iterator[Work]:
    """Run the block as one transaction, attributed to `actor`, and record `action` linked to it.

    The actor is set in the transaction and before its first write, which is what every pool mode with transaction
    blocks keeps apart. The action is recorded last; when that fails, nothing is written. Events are emitted after the
    commit, so that work that was rolled back is not counted.

    :raises NestedWorkError: within a transaction.
    :raises WorkUndoneError: when the block ended the transaction, or kept an SQL error to itself; nothing is counted.
    :raises SqlError: as the server says it, with a note on what to do where the trail is the cause.
    """
    if not is_idle(connection):
        raise NestedWorkError(
            "there is a transaction open on this connection, and its first write has decided the actor; commit it first"
        )
    recording = done = False
    try:
        with connection.transaction():
            fetch(connection, "SELECT set_config(%s, %s, true)", [ACTOR_SETTING, actor.setting])
            [(identity,)] = fetch(connection, "SELECT public.threadline_transaction_id()::text")
            work = Work(transaction_id=identity, action_ids=[])
            yield work
            if not is_open(connection):
                raise WorkUndoneError(
                    "the transaction was ended within the block, or an error in it was not let through; "
                    "what was written since is not this unit of work's"
                )
            if action:
                recording = True
                work.action_ids.append(record_action(connection, action))
                recording = False
            done = True
    except SqlError as error:
        if hint := advice(error):
            error.add_note(hint)
        if recording:
            to.emit("threadline.action.recorded", status="error")
        raise
    if not done:
        return  # rolled back on purpose
    tables = {} if work.table_count is None else {"table_count": work.table_count}
    to.emit("threadline.transaction.committed", actions=len(work.action_ids), **tables)
    if action:
        to.emit("threadline.action.recorded", status=action.status)


def record_action(connection: AnyConnection, action: Action) -> str:
    """Record an action in the running transaction, linked to it, and return its id. The actor is the transaction's.

    :raises SqlError: 22023 for a missing actor or an id that is blank or too long, 23514 for an unknown status.
    """
    given = {name: value for name, value in asdict(action).items() if value is not None}
    arguments = ", ".join(f"{name} => %({name})s" for name in given)
    [(identity,)] = fetch(connection, f"SELECT public.threadline_record_action({arguments})::text", given)
    return str(identity)


def advice(error: SqlError) -> str:
    """Return what to do about an error that the trail raised; empty when it has nothing to do with the trail."""
    if "threadline_" not in (error.diag.context or "") + (error.diag.message_primary or ""):
        return ""
    if error.diag.message_hint:
        return error.diag.message_hint
    return _ADVICE.get(
        error.sqlstate or "", "the write was refused because it could not be audited; nothing was written"
    )


_ADVICE = {
    "42P01": "the audit trail is not there, or was dropped: install it again; until then audited writes are refused",
    "42883": "the audit trail is not whole: install it again; until then audited writes are refused",
    "42501": "the role lacks a right: run threadline_grant for it",
    "55P03": "the audit tables are locked, perhaps by CREATE INDEX without CONCURRENTLY: let it end, then retry",
    "57014": "the write waited too long, perhaps for a lock on the audit tables: see pg_locks, then retry",
    "22P05": "a value cannot be kept as JSON, such as an escaped NUL: keep it out of audited tables",
    "54000": "a value is too large to be kept as JSON: keep it out of audited tables",
    "22P02": "the setting threadline.actor_ref is not JSON: set it with set_config(…, true) in the transaction",
}
