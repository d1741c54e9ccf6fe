"""Decides whether the application is ready: the database answers, and jobs complete."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import psycopg
from msgspec import Struct

from .jobs import QUEUE
from .log_lines import described

if TYPE_CHECKING:
    from datetime import datetime

    from .jobs import Tools
    from .runner import Runner

_LOG = logging.getLogger("hostapp.database")

#: when the last job succeeded; whether the newest finished job was discarded within the window; whether a due job has
#: waited longer than the bound, unless the queue is paused
_QUERY = """
WITH ended AS (
    SELECT max(completed_at) FILTER (WHERE state = 'completed') AS succeeded,
           max(discarded_at) FILTER (WHERE state = 'discarded') AS failed
    FROM public.oban_jobs WHERE queue = %(queue)s AND state IN ('completed', 'discarded')
), due AS (
    SELECT min(scheduled_at) AS since FROM public.oban_jobs WHERE queue = %(queue)s AND state = 'available'
      AND NOT EXISTS (SELECT FROM public.hostapp_pauses p WHERE p.queue = %(queue)s)
), bound AS (
    SELECT timezone('UTC', now()) - make_interval(secs => %(failure_window_s)s) AS failure,
           timezone('UTC', now()) - make_interval(secs => %(waiting_bound_s)s) AS waiting
)
SELECT e.succeeded AT TIME ZONE 'UTC',
       coalesce(e.failed > greatest(b.failure, e.succeeded), false),
       coalesce(greatest(d.since, e.succeeded) < b.waiting AND d.since IS NOT NULL, false)
FROM ended e CROSS JOIN due d CROSS JOIN bound b
"""


class Readiness(Struct, frozen=True, kw_only=True):
    """The body of /ready."""

    database: bool
    job_runner: bool
    #: ISO 8601 with a time zone; the last known value when the database does not answer
    last_successful_job_at: str | None

    @property
    def ready(self) -> bool:
        return self.database and self.job_runner


class ReadinessProbe:
    """Queries the database, one query at a time, so that a frozen database does not exhaust the pool."""

    def __init__(self, tools: Tools, runner: Runner) -> None:
        self._tools = tools
        self._runner = runner
        self._query: asyncio.Task[tuple[datetime | None, bool, bool]] | None = None
        self._last_success: datetime | None = None
        self._was_ready: bool | None = None

    async def look(self) -> Readiness:
        """Return the state, within the time limit `ready_bound_s`.

        A query that takes longer is not cancelled, because cancelling waits for the database, too. Its result is used
        when it arrives, and the next query starts after it.
        """
        if self._query is None or self._query.done():
            self._query = asyncio.create_task(self._run_query(), name="hostapp-readiness")
        done, _ = await asyncio.wait({self._query}, timeout=self._tools.settings.ready_bound_s)
        database = running = False
        why = "the database does not answer"
        if done:
            try:
                success, failed, waiting = self._query.result()
            except (psycopg.Error, OSError) as error:
                why = described(error)
            else:
                self._last_success = success
                database, running = True, self._runner.started and not (failed or waiting)
                why = "the newest job was discarded" if failed else "jobs are waiting" if waiting else ""
                why = why if self._runner.started else "the job runner has not started"
        known = self._last_success if database else self._runner.last_success or self._last_success
        state = Readiness(
            database=database, job_runner=running, last_successful_job_at=known.isoformat() if known else None
        )
        self._log_change(state, why)
        return state

    def _log_change(self, state: Readiness, why: str) -> None:
        if state.ready is not self._was_ready:
            self._was_ready = state.ready
            level = logging.INFO if state.ready else logging.WARNING
            fields = {"database": state.database, "job_runner": state.job_runner, "reason": why}
            _LOG.log(level, "ready" if state.ready else "not ready", extra={"fields": fields})

    async def _run_query(self) -> tuple[datetime | None, bool, bool]:
        jobs = self._tools.settings.jobs
        values: dict[str, Any] = {
            "queue": QUEUE,
            "failure_window_s": jobs.failure_window_s,
            "waiting_bound_s": jobs.waiting_bound_s,
        }
        async with self._tools.pool.connection() as connection:
            row = await (await connection.execute(_QUERY, values)).fetchone()
        return row or (None, False, False)
