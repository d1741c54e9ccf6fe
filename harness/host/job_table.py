"""Jobs of a host's own worker, driven through Oban's table with nothing but SQL.

The columns used are those that Oban for Elixir and Oban for Python have in common; a job is put in, watched, and
never left behind for somebody to wonder about.
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
    from collections.abc import Callable

    from harness.database import Client
    from harness.host.declarations import ObanJob
    from harness.host.site import Values

#: nothing more comes of a job in one of these
ENDED = ("completed", "cancelled", "discarded")


class JobState(Struct, frozen=True, kw_only=True):
    """How far a job got."""

    state: str
    attempt: int
    max_attempts: int

    def __str__(self) -> str:
        return f"{self.state} after {self.attempt} of {self.max_attempts} attempts"


class ObanJobs:
    """The jobs that one path put into Oban's table, on one connection that is made anew where it was lost."""

    def __init__(self, connect: Callable[[], Client], prefix: str) -> None:
        self._connect = connect
        self._connected: Client | None = None
        self._lock = Lock()
        self._table = f"{quote_name(prefix)}.oban_jobs"
        self._put_in: list[int] = []

    @property
    def _client(self) -> Client:
        with self._lock:
            if self._connected is None or self._connected.closed:
                self._connected = self._connect()
            return self._connected

    def put_in(self, job: ObanJob, values: Values) -> int:
        """Insert a job, to be found by the runner when it looks for jobs that are due, and return its id.

        :raises DatabaseError: when the table is not there, or the role may not insert.
        """
        try:
            [(identity,)] = fetch(
                self._client,
                f"INSERT INTO {self._table} (worker, queue, args, meta, max_attempts, state) "
                "VALUES (%s, %s, %s::jsonb, %s::jsonb, %s, 'available') RETURNING id",
                [
                    job.worker,
                    job.queue,
                    msgspec.json.encode(values.fill(job.args)).decode(),
                    msgspec.json.encode(values.fill(job.meta)).decode(),
                    job.max_attempts,
                ],
            )
        except SqlError as error:
            raise DatabaseError(
                f"the job cannot be put into {self._table}: {describe(error)}",
                hint="does the connection's role own Oban's tables, and is `prefix` the schema they are in?",
            ) from None
        self._put_in.append(identity)
        return int(identity)

    def state(self, identity: int) -> JobState | None:
        """Return how far a job got; None when it is gone."""
        found = fetch(
            self._client,
            f"SELECT state::text, attempt, max_attempts FROM {self._table} WHERE id = %s",
            [identity],
        )
        return next((JobState(state=state, attempt=attempt, max_attempts=most) for state, attempt, most in found), None)

    def when(self, identity: int, states: tuple[str, ...], deadline_s: float) -> JobState:
        """Wait until a job is in one of some states.

        :raises TimedOutError: saying how far it got.
        """

        def probe() -> JobState:
            seen = self.state(identity)
            if seen is None:
                raise NotYet("it is gone from the table")
            if seen.state not in states:
                raise NotYet(str(seen))
            return seen

        return poll(probe, what=f"job {identity} to be {' or '.join(states)}", deadline_s=deadline_s, interval_s=0.03)

    def hurry(self, identity: int) -> None:
        """Let a job that waits to be tried again be tried now."""
        fetch(
            self._client,
            f"UPDATE {self._table} SET scheduled_at = timezone('UTC', now()) "
            "WHERE id = %s AND state::text = 'retryable'",
            [identity],
        )

    def take_back(self) -> list[str]:
        """Remove the jobs that were put in, and say what could not be removed.

        Each is cancelled first, so that it is not tried again even where the role may not delete.
        """
        trouble = []
        with contextlib.suppress(SqlError):  # it may have been cut
            self._client.value("SELECT 1")
        for identity in self._put_in:
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
                trouble.append(f"job {identity} could not be removed: {describe(error)}")
        self._put_in.clear()
        with contextlib.suppress(SqlError):
            if self._connected:
                self._connected.close()
        return trouble
