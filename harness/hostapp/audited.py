"""A write that is audited, or does not happen.

The actor is set for the transaction before its first write, the intention is recorded, and before the commit the record
is looked at: a trigger that is missing or switched off says nothing by itself.
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

#: SQLSTATEs of a server that is not there, is going or has no room: nothing is wrong with the write
_UNREACHABLE = {"53300", "57P01", "57P02", "57P03", "57P05"}

_SET = "SELECT set_config('threadline.actor_ref', %s, true), set_config('statement_timeout', %s, true)"

_RECORD = """
SELECT public.threadline_record_action(%(name)s, correlation_id => %(correlation_id)s, request_id => %(request_id)s,
                                       job_id => %(job_id)s)
"""

#: the one change there must be, beside all changes of the table in this transaction
_SEEN = """
SELECT t.id::text, t.actor_ref = %(actor)s, t.action_id IS NOT DISTINCT FROM %(action)s,
       count(c.id), count(c.id) FILTER (WHERE c.op = %(op)s AND c.table_pk = %(key)s)
FROM public.audit_transactions t
LEFT JOIN public.audit_changes c ON c.transaction_id = t.id AND c.table_schema = 'public' AND c.table_name = 'posts'
WHERE t.id = public.threadline_transaction_id()
GROUP BY t.id
"""


class NotAuditedError(Exception):
    """The audit trail does not hold the write as it was made; it is rolled back."""


class Action(Struct, frozen=True, kw_only=True):
    """What a write means, for the audit trail."""

    name: str
    correlation_id: str | None
    request_id: str | None = None
    job_id: str | None = None


@asynccontextmanager
async def audited_transaction(
    pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]], actor: Actor, *, statement_timeout_s: float
) -> AsyncIterator[AsyncConnection[tuple[Any, ...]]]:
    """Open a transaction that is the actor's, and commit it at the end.

    Both settings end with the transaction, so that a pooler hands neither to the next client.

    :raises psycopg.Error: and then nothing is written, unless the connection broke while it committed.
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
    """Record what the transaction means, make sure that its one write is in the trail, and return the record's id.

    :raises NotAuditedError: when it is not, or under another actor or action.
    :raises psycopg.Error: when the trail cannot be written or read.
    """
    recorded = await connection.execute(
        _RECORD,
        {
            "name": action.name,
            "correlation_id": action.correlation_id,
            "request_id": action.request_id,
            "job_id": action.job_id,
        },
    )
    row = await recorded.fetchone()
    seen = await connection.execute(
        _SEEN,
        {
            "actor": Jsonb({"type": actor.type} | ({"id": actor.id} if actor.id else {})),
            "action": row[0] if row else None,
            "op": op,
            "key": Jsonb({"id": post_id}),
        },
    )
    found = await seen.fetchone()
    if found is None:
        raise NotAuditedError("the audit trail has no record of this transaction")
    transaction, is_actors, is_actions, changes, wanted = found
    if (changes, wanted) != (1, 1):
        raise NotAuditedError(
            f"the audit trail has {changes} changes of public.posts in this transaction, {wanted} of them the {op} "
            "that was made; needed was exactly that one: is capture on the table, and enabled?"
        )
    if not (is_actors and is_actions):
        raise NotAuditedError("the audit trail has this transaction under another actor or action")
    return str(transaction)


def is_unreachable(error: psycopg.Error) -> bool:
    """Say whether the database did not answer, rather than refuse."""
    state = error.sqlstate
    if state is None:  # the pool's own errors, and libpq's
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state.startswith("08") or state in _UNREACHABLE
