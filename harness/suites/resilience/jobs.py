"""Resilience of jobs: queued, delayed, retrying, paused and interrupted jobs survive the end of their runner.

The reference host runs worker and scheduler in one process. It is ended twice for each case: killed, and asked to stop.
The database is not disturbed: the other checks of the suite do that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.audit.target_file import TrailFeature
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.host.job_table import ENDED
from harness.lab.host import QUEUE
from harness.model import Section
from harness.suites.resilience.job_runner import (
    STATES,
    Runner,
    failing,
    runner_of,
    survives,
    wait_until_available,
    wait_until_blocked,
)

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

#: names of expectations that controls break
EARLY, PAUSED, WHO = (
    "jobs that ran before they were due",
    "jobs that ran while the queue was paused",
    "who paused the queue",
)
_JOBS = 3
#: seconds
_DELAY_S, _SOON_S = 4.0, 0.1
#: longer than `rescue_after_s` and `rescue_interval_s` of the host's settings together
_RESCUED_S = 75.0


_job_check = partial(
    check,
    section=Section.RESILIENCE,
    severity=P0,
    area="host application",
    needs=(TRANSACTION_BLOCKS,),
    requires_features=(TrailFeature.LIBRARY,),
    own_servers=True,
    on_demand=True,
)


@_job_check(
    "resilience.jobs-queued",
    claim="jobs that are queued while worker and scheduler are down run after the restart: once, with their actor",
)
def jobs_queued(ctx: CheckContext) -> None:
    def case(runner: Runner) -> None:
        runner.end()
        for _ in range(_JOBS):
            runner.insert()
        runner.start()
        runner.wait_for(ENDED)
        runner.expect_done()

    survives(ctx, case)


@_job_check(
    "resilience.jobs-delayed",
    claim="jobs with a delay survive the end of worker and scheduler, and run when they are due: once, with their actor",
)
def jobs_delayed(ctx: CheckContext) -> None:
    def case(runner: Runner) -> None:
        for _ in range(_JOBS):
            runner.insert(delay_s=_DELAY_S)
        runner.end()
        runner.start()
        runner.wait_for(ENDED)
        early = runner.admin.value(
            "SELECT count(*) FROM public.oban_jobs WHERE id = ANY(%s) AND attempted_at < scheduled_at",
            [list(runner.titles)],
        )
        ctx.expect(f"{EARLY}, runner {runner.how}", early, equals=0)
        runner.expect_done()

    survives(ctx, case)


@_job_check(
    "resilience.jobs-retrying",
    claim="jobs that wait for their second attempt survive the end of worker and scheduler, and complete in it: once, "
    "with their actor",
)
def jobs_retrying(ctx: CheckContext) -> None:
    def case(runner: Runner) -> None:
        with failing(runner.admin):
            for _ in range(_JOBS):
                runner.insert()
            runner.wait_for(("retryable",))
            runner.end()
        waiting = [runner.state(identity) for identity in runner.titles]
        if any(state is None or (state.state, state.attempt) != ("retryable", 1) for state in waiting):
            raise NotExercisedError(f"the runner ended when jobs were {', '.join(sorted(set(map(str, waiting))))}")
        runner.start()
        runner.wait_for(ENDED)
        runner.expect_done(attempts=2)

    survives(ctx, case)


@_job_check(
    "resilience.jobs-paused",
    claim="a paused queue stays paused when worker and scheduler end, and its jobs run after it is resumed: once, with "
    "their actor",
)
def jobs_paused(ctx: CheckContext) -> None:
    def case(runner: Runner) -> None:
        runner.request("/api/jobs/pause")
        for _ in range(_JOBS):
            runner.insert()
        runner.end()
        runner.start()
        for _ in range(2):  # the scheduler makes each of them available: it looks at the queue, after the jobs came
            wait_until_available(runner, runner.insert(delay_s=_SOON_S))
        kept = runner.admin.rows("SELECT actor FROM public.hostapp_pauses WHERE queue = %s", [QUEUE])
        ctx.expect(f"{WHO}, runner {runner.how}", [actor for (actor,) in kept], equals=[dict(runner.actor)])
        states = [runner.state(identity) for identity in runner.titles]
        ran = sum(state is None or (state.state, state.attempt) != ("available", 0) for state in states)
        ctx.expect(f"{PAUSED}, runner {runner.how}", ran, equals=0)
        runner.request("/api/jobs/resume")
        runner.wait_for(ENDED)
        runner.expect_done()

    survives(ctx, case)


@_job_check(
    "resilience.jobs-interrupted",
    claim="a job that runs when worker and scheduler are killed is run again, and changes its row once, with its actor",
    longest_s=2 * _RESCUED_S,
)
def jobs_interrupted(ctx: CheckContext) -> None:
    ctx.fact("host", ctx.site.about)
    ctx.progress(0, 1, "runner killed")
    connect = ctx.site.admin
    with runner_of(ctx, "killed") as runner, connect() as holder:  # type: ignore[misc]  # runner_of requires it
        post = runner.insert_post()
        with holder.transaction():
            holder.run("LOCK TABLE public.posts IN SHARE MODE")  # the write of the job waits
            identity = runner.insert(post)
            wait_until_blocked(runner.admin, holder.server_pid())
            runner.end()
        state = runner.state(identity)
        if state is None or (state.state, state.attempt) != ("executing", 1):
            raise NotExercisedError(f"the runner ended when the job was {state}")
        runner.start()
        runner.wait_for(ENDED, _RESCUED_S)
        runner.expect_done(attempts=2)


# --- controls --------------------------------------------------------------------------------------------------

_EMPTY_AT_START = """
CREATE FUNCTION public.empty_the_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
$t$ BEGIN DELETE FROM public.oban_jobs WHERE state::text <> 'completed'; RETURN NULL; END $t$;
CREATE TRIGGER empty_the_queue AFTER INSERT ON public.oban_producers
    FOR EACH ROW EXECUTE FUNCTION public.empty_the_queue()
"""
_FORGET_PAUSES = """
CREATE FUNCTION public.forget_pauses() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN RETURN NULL; END $t$;
CREATE TRIGGER forget_pauses BEFORE INSERT ON public.hostapp_pauses
    FOR EACH ROW EXECUTE FUNCTION public.forget_pauses()
"""


def _until_the_end(ctx: CheckContext, statements: str, undo: str) -> None:
    """Break the database of the host until the check ends: others use it as well."""
    connect = ctx.site.admin
    if connect is None:
        raise NotExercisedError("only a host that the harness started is broken on purpose")
    with connect() as admin:
        admin.run(statements)

    def mend() -> None:
        with connect() as admin:
            admin.run(undo)

    ctx.when_ended(mend)


def _empty_the_queue(ctx: CheckContext) -> None:
    _until_the_end(ctx, _EMPTY_AT_START, "DROP FUNCTION public.empty_the_queue() CASCADE")


@breaks(jobs_queued, at=f"{STATES}, runner killed")
def queued_jobs_forgotten(ctx: CheckContext) -> None:
    _empty_the_queue(ctx)


@breaks(jobs_delayed, at=f"{STATES}, runner killed")
def delayed_jobs_forgotten(ctx: CheckContext) -> None:
    _empty_the_queue(ctx)


@breaks(jobs_retrying, at=f"{STATES}, runner killed")
def retrying_jobs_forgotten(ctx: CheckContext) -> None:
    _empty_the_queue(ctx)


@breaks(jobs_interrupted, at=f"{STATES}, runner killed")
def interrupted_job_forgotten(ctx: CheckContext) -> None:
    _empty_the_queue(ctx)


@breaks(jobs_paused, at=f"{PAUSED}, runner killed")
def pause_kept_in_memory(ctx: CheckContext) -> None:
    _until_the_end(ctx, _FORGET_PAUSES, "DROP FUNCTION public.forget_pauses() CASCADE")
