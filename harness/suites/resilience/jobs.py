"""Resilience of jobs: queued, delayed, retrying, paused and interrupted jobs survive the end of their runner.

The reference host runs worker and scheduler in one process. It is ended twice for each case: killed, and asked to stop.
The database is not disturbed: the other checks of the suite do that.
"""

from __future__ import annotations

import contextlib
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.audit.target_file import TrailFeature
from harness.checks.record import NotExercisedError
from harness.checks.registry import P0, TRANSACTION_BLOCKS, breaks, check
from harness.database import fetch
from harness.errors import TimedOutError
from harness.host.declarations import ObanJob, Step
from harness.host.job_table import ENDED, JobState, ObanJobs
from harness.host.site import Values
from harness.lab.host import QUEUE, WORKER
from harness.model import Section
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.database import Client

#: names of expectations that controls break
STATES, CHANGES, EARLY = "jobs that completed", "changes of each job in the trail", "jobs that ran before they were due"
PAUSED, WHO = "jobs that ran while the queue was paused", "who paused the queue"
_JOBS, _MOST_ATTEMPTS = 3, 5
#: seconds
_REQUEST_S, _ENDS_S, _DELAY_S, _SOON_S = 10.0, 30.0, 4.0, 0.1
#: longer than `rescue_after_s` and `rescue_interval_s` of the host's settings together
_RESCUED_S = 75.0
_ENDINGS = ("killed", "stopped")


class Runner:
    """The reference host of a check, with jobs that it shall run."""

    def __init__(self, ctx: CheckContext, admin: Client, how: str) -> None:
        self.ctx = ctx
        self.admin = admin
        self.how = how
        self._service = ctx.host_service
        self._caller = ctx.site.callers[0]
        self._jobs = ObanJobs(ctx.site.application, "public")
        self.actor = self._caller.actor
        #: the new title of each job
        self.titles: dict[int, str] = {}

    def request(self, path: str, body: Any = None, status: int = 200) -> dict[str, Any]:
        """Send a request of the first caller.

        :raises NotExercisedError: when it is not answered as expected.
        """
        from harness.host.http_client import HttpClient  # noqa: PLC0415 -- few processes send requests

        site = replace(self.ctx.site, base_url=self._service.base_url)
        with HttpClient(site) as client:
            response = client.send(Step(path=path, json=body, status=status), Values(self._caller), _REQUEST_S)
        if response.status != status or not isinstance(response.data, dict):
            raise NotExercisedError(f"{path} was answered with {response.status} {response.failure}".rstrip())
        return response.data

    def insert(self, post: int = 0, *, delay_s: float = 0.0) -> int:
        """Insert a job that changes the title of a post, as another process of the application does.

        :param post: its id; by default, a new one.
        :param delay_s: seconds until it is due.
        """
        post = post or self.insert_post()
        title = f"by a job {secrets.token_hex(6)}"
        job = ObanJob(
            worker=WORKER,
            queue=QUEUE,
            max_attempts=_MOST_ATTEMPTS,
            args={"post_id": post, "title": title, "actor_ref": dict(self._caller.actor)},
        )
        identity = self._jobs.insert(job, Values(self._caller), delay_s=delay_s)
        self.titles[identity] = title
        return identity

    def insert_post(self) -> int:
        """Insert a post, and return its id."""
        with self.admin.transaction():
            [(post,)] = fetch(
                self.admin,
                "INSERT INTO public.posts (title, slug) VALUES ('to be changed', %s) RETURNING id",
                [f"resilience-{secrets.token_hex(8)}"],
            )
        return int(post)

    def state(self, identity: int) -> JobState | None:
        """Return the progress of a job; None when the table no longer holds it."""
        return self._jobs.state(identity)

    def end(self) -> None:
        """End the process that holds worker and scheduler."""
        if self.how == "killed":
            self._service.service.kill()
        else:
            self._service.service.stop()

    def start(self) -> None:
        """Start the process again, and wait until it is ready."""
        self._service.service.restart()
        self._service.when_ready()

    def wait_for(self, states: tuple[str, ...], deadline_s: float = _ENDS_S) -> None:
        """Wait until all jobs are in one of these states, or one is no longer in the table.

        :raises NotExercisedError: when the deadline passes: the host may be slow.
        """
        for identity in self.titles:

            def seen(identity: int = identity) -> None:
                state = self._jobs.state(identity)
                if state and state.state not in states:
                    raise NotYet(str(state))

            try:
                poll(seen, what=f"a job to be {' or '.join(states)}", deadline_s=deadline_s, interval_s=0.05)
            except TimedOutError as error:
                raise NotExercisedError(error.what) from None

    def changes(self) -> dict[int, list[Change]]:
        """Return the captured changes of each job, found by the title that only it sets."""
        found = self.ctx.target.changes(self.admin, "posts")
        return {
            identity: [change for change in found if (change.data_after or {}).get("title") == title]
            for identity, title in self.titles.items()
        }

    def expect_done(self, attempts: int | None = 1) -> None:
        """Expect every job to have completed, and to be in table and trail once, with its actor.

        :param attempts: of each job; None for any number.
        """
        ctx, how = self.ctx, self.how
        ended = {identity: self._jobs.state(identity) for identity in self.titles}
        done = sum(state is not None and state.state == "completed" for state in ended.values())
        ctx.expect(f"{STATES}, runner {how}", done, equals=len(self.titles))
        if attempts:
            seen = sorted({state.attempt for state in ended.values() if state})
            ctx.expect(f"attempts, runner {how}", seen, equals=[attempts])
        changes = self.changes()
        ctx.expect(f"{CHANGES}, runner {how}", sorted({len(of) for of in changes.values()}), equals=[1])
        others = sum(change.actor != self.actor for of in changes.values() for change in of)
        ctx.expect(f"changes with another actor, runner {how}", others, equals=0)
        titles = {title for (title,) in self.admin.rows("SELECT title FROM public.posts")}
        missing = sum(title not in titles for title in self.titles.values())
        ctx.expect(f"titles missing in the table, runner {how}", missing, equals=0)

    def clean_up(self) -> None:
        """Remove the jobs, and let the host run again whatever happened."""
        for sentence in self._jobs.remove_all():
            self.ctx.left_behind(sentence)
        with contextlib.suppress(NotExercisedError):  # the running process has paused as well
            self.request("/api/jobs/resume")
        self.admin.run("DELETE FROM public.hostapp_pauses")


@contextlib.contextmanager
def _runner(ctx: CheckContext, how: str) -> Iterator[Runner]:
    connect = ctx.site.admin
    if connect is None:
        raise NotExercisedError("only a host that the harness started is killed")
    with connect() as admin:
        runner = Runner(ctx, admin, how)
        try:
            yield runner
        finally:
            try:
                if not ctx.host_service.service.state().running:
                    runner.start()
            finally:
                runner.clean_up()


def _survives(ctx: CheckContext, case: Callable[[Runner], None]) -> None:
    if ctx.site.about:
        ctx.fact("host", ctx.site.about)
    for number, how in enumerate(_ENDINGS):
        ctx.progress(number, len(_ENDINGS), f"runner {how}")
        with _runner(ctx, how) as runner:
            case(runner)


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

    _survives(ctx, case)


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

    _survives(ctx, case)


@_job_check(
    "resilience.jobs-retrying",
    claim="jobs that wait for their second attempt survive the end of worker and scheduler, and complete in it: once, "
    "with their actor",
)
def jobs_retrying(ctx: CheckContext) -> None:
    def case(runner: Runner) -> None:
        with _failing(runner.admin):
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

    _survives(ctx, case)


@contextlib.contextmanager
def _failing(admin: Client) -> Iterator[None]:
    """Let every update of a post fail."""
    admin.run(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$t$ BEGIN RAISE EXCEPTION 'refused by the check'; END $t$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON public.posts FOR EACH ROW EXECUTE FUNCTION public.refuse()"
    )
    try:
        yield
    finally:
        admin.run("DROP FUNCTION public.refuse() CASCADE")


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
            _wait_until_available(runner, runner.insert(delay_s=_SOON_S))
        kept = runner.admin.rows("SELECT actor FROM public.hostapp_pauses WHERE queue = %s", [QUEUE])
        ctx.expect(f"{WHO}, runner {runner.how}", [actor for (actor,) in kept], equals=[dict(runner.actor)])
        states = [runner.state(identity) for identity in runner.titles]
        ran = sum(state is None or (state.state, state.attempt) != ("available", 0) for state in states)
        ctx.expect(f"{PAUSED}, runner {runner.how}", ran, equals=0)
        runner.request("/api/jobs/resume")
        runner.wait_for(ENDED)
        runner.expect_done()

    _survives(ctx, case)


def _wait_until_available(runner: Runner, identity: int) -> None:
    """Wait until the scheduler has found a delayed job.

    :raises NotExercisedError: when it does not in time.
    """

    def staged() -> None:
        if (state := runner.state(identity)) and state.state == "scheduled":
            raise NotYet(str(state))

    try:
        poll(staged, what="the scheduler to find a delayed job", deadline_s=_ENDS_S, interval_s=0.05)
    except TimedOutError as error:
        raise NotExercisedError(error.what) from None


@_job_check(
    "resilience.jobs-interrupted",
    claim="a job that runs when worker and scheduler are killed is run again, and changes its row once, with its actor",
    longest_s=2 * _RESCUED_S,
)
def jobs_interrupted(ctx: CheckContext) -> None:
    ctx.fact("host", ctx.site.about)
    ctx.progress(0, 1, "runner killed")
    connect = ctx.site.admin
    with _runner(ctx, "killed") as runner, connect() as holder:  # type: ignore[misc]  # _runner requires it
        post = runner.insert_post()
        with holder.transaction():
            holder.run("LOCK TABLE public.posts IN SHARE MODE")  # the write of the job waits
            identity = runner.insert(post)
            _wait_until_blocked(runner.admin, holder.server_pid())
            runner.end()
        state = runner.state(identity)
        if state is None or (state.state, state.attempt) != ("executing", 1):
            raise NotExercisedError(f"the runner ended when the job was {state}")
        runner.start()
        runner.wait_for(ENDED, _RESCUED_S)
        runner.expect_done(attempts=2)


def _wait_until_blocked(admin: Client, holder: int) -> None:
    """Wait until a session waits for a lock of another one.

    :raises NotExercisedError: when none does in time.
    """

    def blocked() -> None:
        if not admin.value("SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))", [holder]):
            raise NotYet("no session waits")

    try:
        poll(blocked, what="the job to reach its write", deadline_s=_ENDS_S, interval_s=0.02)
    except TimedOutError as error:
        raise NotExercisedError(error.what) from None


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
