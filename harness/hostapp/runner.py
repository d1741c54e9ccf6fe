"""The job runner: starts Oban once the database is available, and supervises it across database restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from oban import Job, Oban
from oban.telemetry import core as telemetry

from . import correlation, notifiers
from .jobs import MAX_ATTEMPTS, QUEUE, WORKER, ChangePostTitle, TitleChange, Tools
from .log_lines import described

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from .settings import Actor

_LOG = logging.getLogger("hostapp.job")
_NAME = "hostapp"
_IS_PAUSED = "SELECT EXISTS (SELECT FROM public.hostapp_pauses WHERE queue = %s)"
_PAUSE = "INSERT INTO public.hostapp_pauses (queue, actor) VALUES (%s, %s) ON CONFLICT (queue) DO NOTHING"
_RESUME = "DELETE FROM public.hostapp_pauses WHERE queue = %s"
_PAUSE_S = 0.5
_GRACE_S = 0.8
_EVENTS = ["oban.job.start", "oban.job.stop", "oban.job.exception", "oban.producer.ack.exception"]


class Runner:
    """One Oban instance that processes a queue, and its supervision."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._stopping = asyncio.Event()
        self._ack_failed = False
        self._paused = False
        self.started = False
        #: time of the last successful job in this process
        self.last_success: datetime | None = None
        ChangePostTitle.tools = tools
        notifiers.choose_notifier(tools.settings)
        telemetry.attach("hostapp", _EVENTS, self._on_event)
        # the same after a restart, so that a restarted process takes over its own leadership immediately
        self._node = f"{socket.gethostname()}:{tools.settings.port}"
        self._oban = self._built()

    def _built(self) -> Any:
        jobs = self._tools.settings.jobs
        return Oban(
            pool=self._tools.pool,
            name=_NAME,
            node=self._node,
            queues={QUEUE: {"limit": jobs.concurrency, "paused": self._paused}},
            stager={"interval": jobs.stage_interval_s},
            lifeline={"interval": jobs.rescue_interval_s, "rescue_after": jobs.rescue_after_s},
            shutdown_grace_period=_GRACE_S,
        )

    async def enqueue(self, change: TitleChange, connection: AsyncConnection[tuple[Any, ...]]) -> int:
        """Insert a job in the connection's transaction and return its id. The job exists once that commits."""
        job = Job(WORKER, queue=QUEUE, max_attempts=MAX_ATTEMPTS, args=change.as_args())
        job = await self._oban.enqueue(job, conn=connection)
        return int(job.id)

    async def pause(self, actor: Actor) -> None:
        """Run no further job until somebody resumes the queue, also after a restart. Running jobs end."""
        async with self._tools.pool.connection() as connection:
            await connection.execute(_PAUSE, [QUEUE, actor.as_json()])
        self._paused = True
        await self._oban.pause_queue(QUEUE, node=self._node)

    async def resume(self) -> None:
        """Run the jobs of the queue again."""
        async with self._tools.pool.connection() as connection:
            await connection.execute(_RESUME, [QUEUE])
        self._paused = False
        await self._oban.resume_queue(QUEUE, node=self._node)

    async def supervise(self) -> None:
        """Start the runner, retry until it is up, and supervise it until it is stopped."""
        while not self._stopping.is_set():
            if not self.started:
                await self._try_to_start()
            elif self._ack_failed:
                await self._wake()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _PAUSE_S)

    async def _try_to_start(self) -> None:
        try:
            async with self._tools.pool.connection() as connection:
                found = await (await connection.execute(_IS_PAUSED, [QUEUE])).fetchone()
            if found and found[0] is not self._paused:
                self._paused = found[0]
                self._oban = self._built()
            await self._oban.start()
        except Exception as error:  # noqa: BLE001 -- Oban raises RuntimeError where its tables are missing
            _LOG.warning("the job runner failed to start, retrying: %s", described(error))
            self._discard()
        else:
            self.started = True
            _LOG.info("the job runner processes the queue %s", QUEUE, extra={"fields": self._facts()})

    def _discard(self) -> None:
        """Cancel the tasks of a failed start, and create a new instance for the next attempt."""
        for task in asyncio.all_tasks():
            if task.get_name().startswith("oban-"):
                task.cancel()
        self._oban = self._built()

    def _facts(self) -> dict[str, Any]:
        settings = self._tools.settings
        return {"notifier": settings.notifier, "stage_interval_s": settings.jobs.stage_interval_s}

    async def _wake(self) -> None:
        """Make Oban record the results of jobs that ended while the database was away.

        Without this, Oban records them only when the next job runs.
        """
        self._ack_failed = False
        if self._paused:  # the end of the pause does it
            return
        try:
            await self._oban.resume_queue(QUEUE, node=self._node)
        except Exception as error:  # noqa: BLE001 -- any error is retried
            self._ack_failed = True
            _LOG.warning("results of jobs cannot be recorded, retrying: %s", described(error))

    async def stop(self) -> None:
        """Stop the runner, with a short grace period for running jobs."""
        self._stopping.set()
        if self.started:
            await self._oban.stop()

    def _on_event(self, name: str, facts: dict[str, Any]) -> None:
        """Log and count job events. Oban's own logger is not used, because it prints the arguments of jobs."""
        if name == "oban.producer.ack.exception":
            self._ack_failed = True
            return
        job = facts["job"]
        line: dict[str, Any] = {
            "job_id": job.id,
            "queue": job.queue,
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
        }
        if correlation.is_acceptable(correlation_id := job.args.get("correlation_id")):
            line["correlation_id"] = correlation_id
        if name == "oban.job.start":
            _LOG.info("job started", extra={"fields": line})
            return
        outcome = str(facts["state"])
        self._tools.counters.count_job(outcome)
        if outcome == "completed":
            self.last_success = datetime.now(UTC)
        line |= {"outcome": outcome, "duration_ms": round(facts["duration"] / 1e6, 1)}
        if name == "oban.job.exception":
            line["error_type"] = facts["error_type"]
        _LOG.log(logging.INFO if outcome == "completed" else logging.WARNING, "job ended", extra={"fields": line})
