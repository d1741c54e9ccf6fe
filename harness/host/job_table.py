"""Jobs of a host's own worker, inserted into Oban's table and watched there with plain SQL.

Only columns that Oban for Elixir and Oban for Python share are used. Every inserted job is removed again.
"""

from __future__ import annotations

import contextlib
from threading import Lock
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from harness.database import SqlError, describe, fetch, quote_name
from harness.errors import DatabaseError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harness.database import Client
    from harness.host.declarations import ObanJob
    from harness.host.site import Values

#: final states: the runner does not run the job again
ENDED = ("completed", "cancelled", "discarded")


class JobState(Struct, frozen=True, kw_only=True):
    """The progress of a job."""

    state: str
    attempt: int
    max_attempts: int

    def __str__(self) -> str:
        return f"{self.state} after {self.attempt} of {self.max_attempts} attempts"


class ObanJobs:
    """The jobs that one path inserted into Oban's table. A lost connection is opened again on next use."""

    def __init__(self, connect: Callable[[], Client], prefix: str) -> None:
        """Prepare to use a table; connect on first use.

        :param connect: connects as a role that may insert, update and delete jobs.
        :param prefix: the schema of Oban's tables.
        """
        self._connect = connect
        self._connected: Client | None = None
        self._lock = Lock()
        #: callers share the connection, and their transactions must not overlap
        self._in_transaction = Lock()
        self._table = f"{quote_name(prefix)}.oban_jobs"
        self._inserted: list[int] = []

    @property
    def _client(self) -> Client:
        with self._lock:
            if self._connected is None or self._connected.closed:
                self._connected = self._connect()
            return self._connected

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Client]:
        """Begin and commit a transaction. A pooler may leave the transaction of an autocommitted statement open."""
        client = self._client
        with self._in_transaction, client.transaction():
            yield client

    def insert(self, job: ObanJob, values: Values, *, delay_s: float = 0.0) -> int:
        """Insert a job and return its id. The runner finds it when it next looks for jobs that are due.

        :param delay_s: seconds until it is due.
        :raises DatabaseError: when the table is missing, or the role may not insert.
        """
        columns = [
            job.worker,
            job.queue,
            msgspec.json.encode(values.fill(job.args)).decode(),
            msgspec.json.encode(values.fill(job.meta)).decode(),
            job.max_attempts,
        ]
        due, state = "", "'available'"
        if delay_s:  # in one statement: the runner would take a job that is due for a moment
            due, state = ", scheduled_at", "'scheduled', timezone('UTC', now()) + make_interval(secs => %s)"
        try:
            with self._transaction() as client:
                [(identity,)] = fetch(
                    client,
                    f"INSERT INTO {self._table} (worker, queue, args, meta, max_attempts, state{due}) "
                    f"VALUES (%s, %s, %s::jsonb, %s::jsonb, %s, {state}) RETURNING id",
                    [*columns, *([delay_s] if delay_s else [])],
                )
        except SqlError as error:
            raise DatabaseError(
                f"the job cannot be inserted into {self._table}: {describe(error)}",
                hint="check that the role may write to Oban's tables, and that `prefix` names their schema",
            ) from None
        self._inserted.append(identity)
        return int(identity)

    def adopt(self, identities: Iterable[int]) -> None:
        """Take over jobs that an ended process inserted, so that :meth:`remove_all` removes them."""
        self._inserted += identities

    @property
    def inserted(self) -> tuple[int, ...]:
        """The ids of the jobs that are still to be removed."""
        return tuple(self._inserted)

    def state(self, identity: int) -> JobState | None:
        """Return the progress of a job; None when the table no longer holds it."""
        rows = fetch(
            self._client,
            f"SELECT state::text, attempt, max_attempts FROM {self._table} WHERE id = %s",
            [identity],
        )
        return next((JobState(state=state, attempt=attempt, max_attempts=most) for state, attempt, most in rows), None)

    def when(self, identity: int, states: tuple[str, ...], deadline_s: float) -> JobState:
        """Wait until a job is in one of these states.

        :raises TimedOutError: with the last known progress.
        """

        def probe() -> JobState:
            seen = self.state(identity)
            if seen is None:
                raise NotYet("the job is no longer in the table")
            if seen.state not in states:
                raise NotYet(str(seen))
            return seen

        return poll(probe, what=f"job {identity} to be {' or '.join(states)}", deadline_s=deadline_s, interval_s=0.03)

    def hurry(self, identity: int) -> None:
        """Make a job that waits for its next attempt due now."""
        with self._transaction() as client:
            fetch(
                client,
                f"UPDATE {self._table} SET scheduled_at = timezone('UTC', now()) "
                "WHERE id = %s AND state::text = 'retryable'",
                [identity],
            )

    def remove_all(self) -> list[str]:
        """Remove the inserted jobs and close the connection. Return one sentence for each job that remains.

        Each job is cancelled first, so that it is not retried even where the role may not delete.
        """
        remaining = []
        with contextlib.suppress(SqlError):  # finds out whether the connection was cut; then a new one is opened
            self._client.value("SELECT 1")
        for identity in self._inserted:
            try:
                with self._client.transaction():
                    self._client.run("SET LOCAL lock_timeout = '5s'")
                    self._client.run(
                        f"UPDATE {self._table} SET state = 'cancelled', cancelled_at = timezone('UTC', now()) "
                        "WHERE id = %s AND state::text NOT IN ('completed', 'cancelled', 'discarded')",
                        [identity],
                    )
                with self._client.transaction():
                    self._client.run("SET LOCAL lock_timeout = '5s'")
                    self._client.run(f"DELETE FROM {self._table} WHERE id = %s", [identity])
            except SqlError as error:
                remaining.append(f"job {identity} could not be removed: {describe(error)}")
        self._inserted.clear()
        with contextlib.suppress(SqlError):
            if self._connected:
                self._connected.close()
        return remaining
