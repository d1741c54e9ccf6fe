"""Whether the application can do its work: the database answers, and jobs come to an end."""

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

#: the last success; whether the newest job to end for good failed within the window; how long a job that is due waits
_ASKED = """
WITH ended AS (
    SELECT max(completed_at) FILTER (WHERE state = 'completed') AS succeeded,
           max(discarded_at) FILTER (WHERE state = 'discarded') AS failed
    FROM public.oban_jobs WHERE queue = %(queue)s AND state IN ('completed', 'discarded')
), due AS (
    SELECT min(scheduled_at) AS since FROM public.oban_jobs WHERE queue = %(queue)s AND state = 'available'
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
    """What /ready answers."""

    database: bool
    job_runner: bool
    #: ISO 8601 with a zone; the last one known where the database does not answer
    last_successful_job_at: str | None

    @property
    def ready(self) -> bool:
        return self.database and self.job_runner


class ReadinessProbe:
    """Asks the database, one question at a time: a frozen one must not use up the pool."""

    def __init__(self, tools: Tools, runner: Runner) -> None:
        self._tools = tools
        self._runner = runner
        self._asking: asyncio.Task[tuple[datetime | None, bool, bool]] | None = None
        self._last_success: datetime | None = None
        self._was_ready: bool | None = None

    async def look(self) -> Readiness:
        """Return the state within the bound of the settings.

        A question without an answer in time is not cancelled, for that would wait for the database, too; its answer
        is taken when it comes, and the next question is asked after it.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="hostapp-readiness")
        done, _ = await asyncio.wait({self._asking}, timeout=self._tools.settings.ready_bound_s)
        database = running = False
        why = "no answer"
        if done:
            try:
                success, failed, waiting = self._asking.result()
            except (psycopg.Error, OSError) as error:
                why = described(error)
            else:
                self._last_success = success
                database, running = True, self._runner.started and not (failed or waiting)
                why = "the newest job failed for good" if failed else "jobs wait" if waiting else ""
                why = why if self._runner.started else "the job runner has not started"
        known = self._last_success if database else self._runner.last_success or self._last_success
        seen = Readiness(
            database=database, job_runner=running, last_successful_job_at=known.isoformat() if known else None
        )
        self._tell(seen, why)
        return seen

    def _tell(self, seen: Readiness, why: str) -> None:
        if seen.ready is not self._was_ready:
            self._was_ready = seen.ready
            level = logging.INFO if seen.ready else logging.WARNING
            fields = {"database": seen.database, "job_runner": seen.job_runner, "reason": why}
            _LOG.log(level, "ready" if seen.ready else "not ready", extra={"fields": fields})

    async def _ask(self) -> tuple[datetime | None, bool, bool]:
        jobs = self._tools.settings.jobs
        values: dict[str, Any] = {
            "queue": QUEUE,
            "failure_window_s": jobs.failure_window_s,
            "waiting_bound_s": jobs.waiting_bound_s,
        }
        async with self._tools.pool.connection() as connection:
            row = await (await connection.execute(_ASKED, values)).fetchone()
        return row or (None, False, False)
