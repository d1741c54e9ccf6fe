"""Audited transactions: actor, action and correlation are set before the first write, and end with the transaction.

A database without the audit layer has no action to record. Its setting of the actor is then read by nobody.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ..settings import Actor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from psycopg import AsyncConnection, Connection

#: the actor of everything that happens without a request
WORKER = Actor(type="job", id="ingest-worker")

#: a statement that waits for longer has lost its database, or waits for a lock of another transaction. A transaction
#: that idles for longer belongs to a process that is frozen, and holds the locks that others wait for, or skip
_BEGIN = """
SELECT set_config('threadline.actor_ref', %(actor)s, true), set_config('statement_timeout', '5s', true),
       set_config('idle_in_transaction_session_timeout', '5s', true),
       to_regproc('public.threadline_record_action') IS NOT NULL
"""
_RECORD = """
SELECT public.threadline_record_action(%(name)s, correlation_id => %(correlation)s, job_id => %(job)s)
"""


class Action(Struct, frozen=True, kw_only=True):
    """The purpose of a transaction, for the audit trail."""

    name: str
    actor: Actor
    correlation: str
    #: the upload that a worker works on
    job: str | None = None

    @property
    def _values(self) -> dict[str, Any]:
        return {"name": self.name, "actor": self.actor.as_json(), "correlation": self.correlation, "job": self.job}

    @contextmanager
    def transaction(self, connection: Connection[tuple[Any, ...]]) -> Iterator[None]:
        """Open an audited transaction, and commit it at the end.

        :raises psycopg.Error: nothing is written, unless the connection broke during the commit.
        """
        with connection.transaction():
            row = connection.execute(_BEGIN, self._values).fetchone()
            if row and row[-1]:
                connection.execute(_RECORD, self._values)
            yield

    @asynccontextmanager
    async def async_transaction(self, connection: AsyncConnection[tuple[Any, ...]]) -> AsyncIterator[None]:
        """Open the same transaction on an asynchronous connection.

        :raises psycopg.Error: nothing is written, unless the connection broke during the commit.
        """
        async with connection.transaction():
            row = await (await connection.execute(_BEGIN, self._values)).fetchone()
            if row and row[-1]:
                await connection.execute(_RECORD, self._values)
            yield
