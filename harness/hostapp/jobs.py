"""The job that changes a post's title, run by Oban with everything it needs in its arguments."""

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
#: as Oban stores it; whoever puts a job into its table names it
WORKER = f"{__name__}.ChangePostTitle"
ACTION = "post_title_changed_by_job"
MAX_ATTEMPTS = 5

_LOG = logging.getLogger("hostapp.job")
_LARGEST_ID = 2**63 - 1
_LONGEST_RUN_S = 30.0

#: by its correlation, which is indexed, where it has one
_DONE = """
SELECT FROM public.audit_actions
WHERE name = %(name)s AND job_id = %(job_id)s
  AND (correlation_id = %(correlation_id)s OR %(correlation_id)s::text IS NULL AND correlation_id IS NULL)
"""


class Tools(Struct, frozen=True, kw_only=True):
    """What jobs work with; Oban makes a worker without arguments, so it is kept on the class."""

    pool: AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]
    settings: Settings
    counters: Counters


class TitleChange(Struct, frozen=True, kw_only=True):
    """A job's arguments: who wants which title for which post."""

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
    """A job's arguments will not get better by trying again; the message quotes none of them."""


def title_change_from(args: dict[str, Any]) -> TitleChange:
    """Read a job's arguments; `correlation_id` may be left out.

    :raises BadArgumentsError: naming the argument.
    """
    if missing := [name for name in ("actor_ref", "post_id", "title") if args.get(name) is None]:
        raise BadArgumentsError(f"the job lacks {', '.join(missing)}")
    try:
        actor = msgspec.convert(args["actor_ref"], Actor)
    except msgspec.ValidationError:
        raise BadArgumentsError("actor_ref is no actor: needed a type and, unless anonymous, an id") from None
    post_id, correlation_id = args["post_id"], args.get("correlation_id")
    if not isinstance(post_id, int) or isinstance(post_id, bool) or not 0 < post_id <= _LARGEST_ID:
        raise BadArgumentsError("post_id is no key of a post")
    if correlation_id is not None and not correlation.is_acceptable(correlation_id):
        raise BadArgumentsError("correlation_id is not 1 to 256 printable characters")
    try:
        title = title_from(args)
    except InvalidError as error:
        raise BadArgumentsError(f"title {error.errors['title'][0]}") from None
    return TitleChange(actor=actor, correlation_id=correlation_id, post_id=post_id, title=title)


@worker(queue=QUEUE, max_attempts=MAX_ATTEMPTS)
class ChangePostTitle:
    """Changes a title under the actor who asked for it, once, however often the job is run.

    A run that finds the job's own action in the trail does nothing: the change was committed before, and a later job
    may have changed the title since. A title that is already the one asked for is left alone, and no action claims
    otherwise.
    """

    tools: ClassVar[Tools]

    async def process(self, job: Job) -> Cancel | None:
        """Do the job; an error is Oban's to retry, a `Cancel` ends it for good."""
        correlation.job_id.set(job.id)
        try:
            change = title_change_from(job.args)
        except BadArgumentsError as error:
            _LOG.error("the job can never be done: %s", error)
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
            # locked first: of two runs of one job, the second sees what the first committed
            found = await connection.execute(
                "SELECT title FROM public.posts WHERE id = %s FOR UPDATE", [change.post_id]
            )
            post = await found.fetchone()
            if post is None:
                _LOG.error("there is no post %s any more", change.post_id)
                return Cancel(f"there is no post {change.post_id}")
            done = await connection.execute(
                _DONE, {"name": ACTION, "job_id": action.job_id, "correlation_id": change.correlation_id}
            )
            if done.rowcount or post[0] == change.title:
                _LOG.info("nothing is left to do for post %s", change.post_id)
                return None
            await connection.execute(
                "UPDATE public.posts SET title = %s, updated_at = now() WHERE id = %s", [change.title, change.post_id]
            )
            record = await attest(connection, change.actor, action, op="update", post_id=change.post_id)
        tools.counters.count_write("job")
        _LOG.info("post %s has its new title", change.post_id, extra={"fields": {"audit_transaction_id": record}})
        return None

    def backoff(self, job: Job) -> int:
        """Return the seconds until the next attempt."""
        jobs = self.tools.settings.jobs
        return backoff.delay(job.attempt, base_s=jobs.backoff_base_s, cap_s=jobs.backoff_cap_s)

    def timeout(self, _job: Job) -> float:
        """Return the seconds after which an attempt has failed."""
        return _LONGEST_RUN_S
