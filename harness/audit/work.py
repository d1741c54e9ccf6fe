"""One audited unit of work: a transaction with its actor and, optionally, the action that it performs."""

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
    """A semantic event of the application. Ids are stored without surrounding blanks, in 1 to 256 bytes."""

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
    """The running unit of work."""

    #: the id of the transaction's record in the trail; known also when the transaction changes no row
    transaction_id: str
    action_ids: list[str]
    #: the number of changed tables, if the application sets it
    table_count: int | None = None


class NestedWorkError(RuntimeError):
    """An audited unit of work was opened within a transaction, whose first write may have decided the actor."""


class WorkUndoneError(RuntimeError):
    """The transaction of a unit of work ended or failed before its block did."""


@contextmanager
def audited(
    connection: AnyConnection, actor: Actor, *, action: Action | None = None, to: Telemetry = telemetry.default
) -> Iterator[Work]:
    """Run the block as one transaction, attributed to `actor`, and record `action` linked to it.

    The actor is set in the transaction and before its first write: every pool mode with transaction blocks isolates
    such a setting. The action is recorded last; if that fails, nothing is written. Events are emitted after the
    commit, so that rolled back work is not counted.

    :param to: receives the events `threadline.transaction.committed` and `threadline.action.recorded`.
    :raises NestedWorkError: within a transaction.
    :raises WorkUndoneError: when the block ended the transaction or suppressed an SQL error; no event is emitted.
    :raises SqlError: of the server, with advice as a note where the trail is the cause.
    """
    if not is_idle(connection):
        raise NestedWorkError(
            "this connection has an open transaction, whose first write decides the actor; commit it first"
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
                    "the block ended its transaction or suppressed an error in it; "
                    "later writes do not belong to this unit of work"
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
    """Record an action linked to the running transaction, with the transaction's actor, and return its id.

    :raises SqlError: 22023 for a missing actor, or a blank or too long id; 23514 for an unknown status.
    """
    parameters = {name: value for name, value in asdict(action).items() if value is not None}
    arguments = ", ".join(f"{name} => %({name})s" for name in parameters)
    [(identity,)] = fetch(connection, f"SELECT public.threadline_record_action({arguments})::text", parameters)
    return str(identity)


def advice(error: SqlError) -> str:
    """Return advice on an error that the trail raised; empty for any other error."""
    if "threadline_" not in (error.diag.context or "") + (error.diag.message_primary or ""):
        return ""
    if error.diag.message_hint:
        return error.diag.message_hint
    return _ADVICE.get(
        error.sqlstate or "", "the write was refused because it could not be audited; nothing was written"
    )


_ADVICE = {
    "42P01": "the audit trail is missing: install it again; until then audited writes are refused",
    "42883": "the audit trail is incomplete: install it again; until then audited writes are refused",
    "42501": "the role lacks a right: run threadline_grant for it",
    "55P03": "the audit tables are locked, perhaps by CREATE INDEX without CONCURRENTLY: wait for its end, then retry",
    "57014": "the write waited too long, perhaps for a lock on the audit tables: see pg_locks, then retry",
    "22P05": "JSON cannot represent a value, such as an escaped NUL: keep it out of audited tables",
    "54000": "a value is too large for JSON: keep it out of audited tables",
    "22P02": "the setting threadline.actor_ref is not JSON: set it with set_config(…, true) in the transaction",
}
