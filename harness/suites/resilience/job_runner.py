"""The job runner of the reference host in one check: it is ended, and jobs have to survive that."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.checks.record import NotExercisedError
from harness.database import fetch
from harness.errors import TimedOutError
from harness.host.declarations import ObanJob, Step
from harness.host.job_table import JobState, ObanJobs
from harness.host.site import Values
from harness.lab.host import QUEUE, WORKER
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.target import Change
    from harness.checks.context import CheckContext
    from harness.database import Client

#: names of expectations that controls break
STATES, CHANGES = "jobs that completed", "changes of each job in the trail"
_MOST_ATTEMPTS = 5
#: seconds
_REQUEST_S, _ENDS_S = 10.0, 30.0
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

            _wait_for(seen, f"a job to be {' or '.join(states)}", deadline_s)

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
def runner_of(ctx: CheckContext, how: str) -> Iterator[Runner]:
    """Return the runner of the host, which runs again at the end, without the jobs of the check.

    :param how: it ends: killed, or stopped.
    """
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


def survives(ctx: CheckContext, case: Callable[[Runner], None]) -> None:
    """Run a case with a runner that is killed, then with one that is stopped."""
    if ctx.site.about:
        ctx.fact("host", ctx.site.about)
    for number, how in enumerate(_ENDINGS):
        ctx.progress(number, len(_ENDINGS), f"runner {how}")
        with runner_of(ctx, how) as runner:
            case(runner)


@contextlib.contextmanager
def failing(admin: Client) -> Iterator[None]:
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


def wait_until_available(runner: Runner, identity: int) -> None:
    """Wait until the scheduler has found a delayed job.

    :raises NotExercisedError: when it does not in time.
    """

    def staged() -> None:
        if (state := runner.state(identity)) and state.state == "scheduled":
            raise NotYet(str(state))

    _wait_for(staged, "the scheduler to find a delayed job")


def wait_until_blocked(admin: Client, holder: int) -> None:
    """Wait until a session waits for a lock of another one.

    :raises NotExercisedError: when none does in time.
    """

    def blocked() -> None:
        if not admin.value("SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))", [holder]):
            raise NotYet("no session waits")

    _wait_for(blocked, "the job to reach its write")


def _wait_for(seen: Callable[[], None], what: str, deadline_s: float = _ENDS_S) -> None:
    try:
        poll(seen, what=what, deadline_s=deadline_s, interval_s=0.02)
    except TimedOutError as error:
        raise NotExercisedError(error.what) from None
