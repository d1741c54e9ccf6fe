"""A write that is either audited or rolled back.

The transaction sets the actor before its first write and records the action. Before the commit it reads the trail back,
because a missing or disabled trigger raises no error.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from msgspec import Struct
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

    from .settings import Actor

#: SQLSTATEs of a server that is down, shutting down or out of connections: the write itself is valid
_UNREACHABLE = {"53300", "57P01", "57P02", "57P03", "57P05"}

_SET = "SELECT set_config('threadline.actor_ref', %s, true), set_config('statement_timeout', %s, true)"

_RECORD_ACTION = """
SELECT public.threadline_record_action(%(name)s, correlation_id => %(correlation_id)s, request_id => %(request_id)s,
                                       job_id => %(job_id)s)
"""

#: the number of all changes of the table in this transaction, and the number of those that match the write
_READ_BACK = """
SELECT t.id::text, t.actor_ref = %(actor)s, t.action_id IS NOT DISTINCT FROM %(action)s,
       count(c.id), count(c.id) FILTER (WHERE c.op = %(op)s AND c.table_pk = %(key)s)
FROM public.audit_transactions t
LEFT JOIN public.audit_changes c ON c.transaction_id = t.id AND c.table_schema = 'public' AND c.table_name = 'posts'
WHERE t.id = public.threadline_transaction_id()
GROUP BY t.id
"""


class NotAuditedError(Exception):
    """The audit trail does not match the write, which is rolled back."""


class Action(Struct, frozen=True, kw_only=True):
    """The purpose of a write, for the audit trail."""

    name: str
    correlation_id: str | None
    request_id: str | None = None
    job_id: str | None = None


@asynccontextmanager
async def audited_transaction(
    pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]], actor: Actor, *, statement_timeout_s: float
) -> AsyncIterator[AsyncConnection[tuple[Any, ...]]]:
    """Open a transaction with an actor, and commit it at the end.

    Actor and statement timeout end with the transaction, so that a pooler passes neither to the next client.

    :param statement_timeout_s: seconds.
    :raises psycopg.Error: the write is rolled back, unless the connection broke during the commit.
    """
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(_SET, [actor.as_json(), f"{statement_timeout_s * 1000:.0f}ms"])
        yield connection


async def attest(
    connection: AsyncConnection[tuple[Any, ...]],
    actor: Actor,
    action: Action,
    *,
    op: Literal["insert", "update"],
    post_id: int,
) -> str:
    """Record the action of the transaction, and require that the trail holds its single write.

    :param op: the operation of the write.
    :param post_id: the key of the written post.
    :returns: the id of the audit transaction.
    :raises NotAuditedError: when the trail lacks the write, or attributes it to another actor or action.
    :raises psycopg.Error: when the trail cannot be written or read.
    """
    recorded = await connection.execute(
        _RECORD_ACTION,
        {
            "name": action.name,
            "correlation_id": action.correlation_id,
            "request_id": action.request_id,
            "job_id": action.job_id,
        },
    )
    row = await recorded.fetchone()
    trail = await connection.execute(
        _READ_BACK,
        {
            "actor": Jsonb({"type": actor.type} | ({"id": actor.id} if actor.id else {})),
            "action": row[0] if row else None,
            "op": op,
            "key": Jsonb({"id": post_id}),
        },
    )
    found = await trail.fetchone()
    if found is None:
        raise NotAuditedError("the audit trail has no record of this transaction")
    transaction, has_actor, has_action, changes, matching = found
    if (changes, matching) != (1, 1):
        raise NotAuditedError(
            f"found {changes} changes of public.posts in the audit trail of this transaction, {matching} of which "
            f"match the {op}; expected exactly one; check that the capture trigger is attached and enabled"
        )
    if not (has_actor and has_action):
        raise NotAuditedError("the audit trail attributes this transaction to another actor or action")
    return str(transaction)


def is_unreachable(error: psycopg.Error) -> bool:
    """Return whether the database was unreachable, rather than rejecting the statement."""
    state = error.sqlstate
    if state is None:  # errors of the pool and of libpq have no SQLSTATE
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state.startswith("08") or state in _UNREACHABLE
