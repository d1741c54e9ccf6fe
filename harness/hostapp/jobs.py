"""The job that changes the title of a post. Oban runs it; its arguments hold everything that it needs."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import msgspec
from msgspec import Struct
from oban import Cancel, Job, worker
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from . import backoff, correlation
from .audited import Action, attest, audited_transaction
from .counters import Counters
from .log_lines import described
from .settings import Actor, Settings
from .validation import InvalidError, title_from

QUEUE = "threadline_audit"
#: the worker's name in Oban's table
WORKER = f"{__name__}.ChangePostTitle"
ACTION = "post_title_changed_by_job"
MAX_ATTEMPTS = 5

_LOG = logging.getLogger("hostapp.job")
_LARGEST_ID = 2**63 - 1
_LONGEST_RUN_S = 30.0

#: finds the action of the job by its correlation id, which is indexed, if it has one
_DONE = """
SELECT FROM public.audit_actions
WHERE name = %(name)s AND job_id = %(job_id)s
  AND (correlation_id = %(correlation_id)s OR %(correlation_id)s::text IS NULL AND correlation_id IS NULL)
"""


class Tools(Struct, frozen=True, kw_only=True):
    """Shared objects of the jobs. Oban creates a worker without arguments, so they are stored on its class."""

    pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]
    settings: Settings
    counters: Counters


class TitleChange(Struct, frozen=True, kw_only=True):
    """The arguments of a job: the actor, the post and its new title."""

    actor: Actor
    correlation_id: str | None
    post_id: int
    title: str

    def as_args(self) -> dict[str, Any]:
        return {
            "actor_ref": msgspec.to_builtins(self.actor),
            "correlation_id": self.correlation_id,
            "post_id": self.post_id,
            "title": self.title,
        }


class BadArgumentsError(Exception):
    """The arguments of a job are invalid, so a retry cannot help. The message quotes no value."""


def title_change_from(args: dict[str, Any]) -> TitleChange:
    """Validate the arguments of a job; `correlation_id` is optional.

    :raises BadArgumentsError: naming the argument.
    """
    if missing := [name for name in ("actor_ref", "post_id", "title") if args.get(name) is None]:
        raise BadArgumentsError(f"missing arguments: {', '.join(missing)}")
    try:
        actor = msgspec.convert(args["actor_ref"], Actor)
    except msgspec.ValidationError:
        raise BadArgumentsError("invalid actor_ref, expected a type and, unless anonymous, an id") from None
    post_id, correlation_id = args["post_id"], args.get("correlation_id")
    if not isinstance(post_id, int) or isinstance(post_id, bool) or not 0 < post_id <= _LARGEST_ID:
        raise BadArgumentsError("invalid post_id, expected a positive integer")
    if correlation_id is not None and not correlation.is_acceptable(correlation_id):
        raise BadArgumentsError("invalid correlation_id, expected 1 to 256 printable ASCII characters")
    try:
        title = title_from(args)
    except InvalidError as error:
        raise BadArgumentsError(f"title {error.errors['title'][0]}") from None
    return TitleChange(actor=actor, correlation_id=correlation_id, post_id=post_id, title=title)


@worker(queue=QUEUE, max_attempts=MAX_ATTEMPTS)
class ChangePostTitle:
    """Changes a title once, with the requesting actor, however often the job runs.

    A run that finds the job's own action in the trail does nothing: an earlier run committed the change, and another
    job may have changed the title since. A title that already has the requested value is not written, and no action is
    recorded.
    """

    tools: ClassVar[Tools]

    async def process(self, job: Job) -> Cancel | None:
        """Run the job. Oban retries after an exception; a `Cancel` is final."""
        correlation.job_id.set(job.id)
        try:
            change = title_change_from(job.args)
        except BadArgumentsError as error:
            _LOG.error("the job was cancelled, its arguments are invalid: %s", error)
            return Cancel(str(error))
        correlation.correlation_id.set(change.correlation_id)
        try:
            return await self._change(job, change)
        except Exception as error:
            _LOG.warning("attempt %s of %s failed: %s", job.attempt, job.max_attempts, described(error))
            raise

    async def _change(self, job: Job, change: TitleChange) -> Cancel | None:
        tools = self.tools
        action = Action(name=ACTION, correlation_id=change.correlation_id, job_id=str(job.id))
        async with audited_transaction(
            tools.pool, change.actor, statement_timeout_s=tools.settings.statement_timeout_s
        ) as connection:
            # locked before reading: when a job runs twice, the second run sees the commit of the first
            found = await connection.execute(
                "SELECT title FROM public.posts WHERE id = %s FOR UPDATE", [change.post_id]
            )
            post = await found.fetchone()
            if post is None:
                _LOG.error("the job was cancelled, post %s does not exist", change.post_id)
                return Cancel(f"post {change.post_id} does not exist")
            done = await connection.execute(
                _DONE, {"name": ACTION, "job_id": action.job_id, "correlation_id": change.correlation_id}
            )
            if done.rowcount or post[0] == change.title:
                _LOG.info("post %s needs no change", change.post_id)
                return None
            await connection.execute(
                "UPDATE public.posts SET title = %s, updated_at = now() WHERE id = %s", [change.title, change.post_id]
            )
            record = await attest(connection, change.actor, action, op="update", post_id=change.post_id)
        tools.counters.count_write("job")
        _LOG.info("changed the title of post %s", change.post_id, extra={"fields": {"audit_transaction_id": record}})
        return None

    def backoff(self, job: Job) -> int:
        """Return the delay before the next attempt, in seconds."""
        jobs = self.tools.settings.jobs
        return backoff.delay(job.attempt, base_s=jobs.backoff_base_s, cap_s=jobs.backoff_cap_s)

    def timeout(self, _job: Job) -> float:
        """Return the timeout of an attempt, in seconds."""
        return _LONGEST_RUN_S
