"""A path that fails during its write, and a path without its audit trigger.

Both failures are caused on the servers, from outside, so that a host is judged by its behaviour and needs no test
hooks. Neither is safe in an environment that others use; there a declared variant that fails of its own accord runs
instead.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.checks.record import CheckRecord, NotExercisedError
from harness.database import quote_name
from harness.errors import TimedOutError
from harness.host.job_table import ENDED as ENDED_JOB
from harness.host.job_table import ObanJobs
from harness.host.site import Values
from harness.suites.paths.expectations import KEPT, first_caller, path_run, require_exercised, table_rows
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.database import Client
    from harness.host.declarations import FailingVariant, PathDeclaration
    from harness.host.path_runner import Attempt, PathRun

#: names of expectations that controls break
TERMINATED = "server connections terminated during the write"
WITHOUT_TRIGGER = "without the audit trigger"

_CLOSED, _OPEN = "fails closed", "fails open"
_BLOCKED_S = 10.0
#: states of a job that was attempted at least once
_ATTEMPTED = (*ENDED_JOB, "retryable")


def failure(path: PathDeclaration, ctx: CheckRecord) -> None:
    """Make the path fail after its write has begun, and expect all of its rows or none."""
    values = Values(first_caller(path, ctx))
    connect, variant = ctx.site.admin, path.fails
    if connect is None and variant is None:
        raise NotExercisedError(
            "terminating a server connection is not safe in an environment that others use, and the path declares "
            "no failing variant"
        )
    with path_run(path, ctx) as run:
        prepared = require_exercised(run.prepare(values))
        if not prepared.succeeded:
            raise NotExercisedError("the path's preparation was not answered as declared")
        if connect is None:
            if variant:
                _run_failing_variant(variant, ctx, run, values)
            return
        with connect() as admin:
            attempt, terminated = _terminate_during_write(ctx, run, values, admin)
            ctx.expect(TERMINATED, terminated, equals=1)
            _expect_all_or_nothing(ctx, run, values, attempt)


def _run_failing_variant(variant: FailingVariant, ctx: CheckRecord, run: PathRun, values: Values) -> None:
    attempt = require_exercised(run.act(values, variant=variant))
    ctx.fact("made to fail by", variant.why)
    if variant.steps:
        statuses = ", ".join(str(step.status) for step in variant.steps)
        ctx.expect("answers", ", ".join(map(str, attempt.answers)), equals=statuses)
    if attempt.job is not None:
        with contextlib.suppress(TimedOutError):
            run.job_ended(attempt)
        state = run.job_state(attempt)
        if state is None or not state.attempt:
            raise NotExercisedError(f"no worker attempted the failing job: {state or 'it no longer exists'}")
        ctx.expect("the job completed", state.state == "completed", equals=False)
    ctx.expect("rows in the trail", len(run.rows.look(values, wanted=1, deadline_s=1.0).changes), equals=0)
    ctx.fact("the write had begun", "declared, not observed")
    expected = run.expected
    # an update that is identified by its key alone leaves a row in either case
    if expected.operation != "update" or expected.where or expected.row:
        undone = expected.rows if expected.operation == "delete" else 0
        ctx.expect(KEPT, table_rows(run, values).count, equals=undone)


def _terminate_during_write(ctx: CheckRecord, run: PathRun, values: Values, admin: Client) -> tuple[Attempt, int]:
    """Lock the audit tables until the write waits for them, then terminate its server connection.

    Returns the outcome of the path and the number of terminated server connections.
    """
    if ctx.site.admin is None:
        raise NotExercisedError("only servers that the harness started are broken on purpose")
    with ctx.site.admin() as holder, ThreadPoolExecutor(1) as pool:
        with holder.transaction():
            holder.run(f"LOCK TABLE {', '.join(run.site.target.tables)} IN ACCESS EXCLUSIVE MODE")
            running = pool.submit(run.act, values)
            pid = _blocked_by(admin, holder.server_pid())
            terminated = 0
            if not ctx.sabotaged:
                terminated = int(bool(admin.value("SELECT pg_terminate_backend(%s)", [pid])))
                ctx.probed("the write waited in the first session, blocked by the second", pid, holder.server_pid())
                _wait_until(lambda: admin.value("SELECT pid FROM pg_stat_activity WHERE pid = %s", [pid]) is None)
        return running.result(), terminated


def _blocked_by(admin: Client, holder: int) -> int:
    """Wait for a session that the holder's locks block, and return its pid.

    :raises NotExercisedError: when no session is blocked in time.
    """

    def probe() -> int:
        pid = admin.value(
            "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid)) "
            "AND datname = current_database() LIMIT 1",
            [holder],
        )
        if pid is None:
            raise NotYet("no session waits")
        return int(pid)

    try:
        return poll(probe, what="the write to reach the audit tables", deadline_s=_BLOCKED_S)
    except TimedOutError as error:
        raise NotExercisedError(f"{error.what}: the write never began, so it could not be interrupted") from None


def _wait_until(condition: Callable[[], bool]) -> None:
    def probe() -> None:
        if not condition():
            raise NotYet("it still runs")

    poll(probe, what="the server connection to end", deadline_s=_BLOCKED_S)


def _expect_all_or_nothing(ctx: CheckRecord, run: PathRun, values: Values, attempt: Attempt) -> None:
    if attempt.job is not None:
        state = _retry_until(run, attempt, ENDED_JOB)
        ctx.fact("the job", state)
    expected = run.expected.rows
    is_job = run.declared.kind == "job"
    seen = run.rows.look(values, wanted=expected, deadline_s=None if is_job else 0.5)
    rows, kept = len(seen.changes), table_rows(run, values).count if run.expected.where else 0
    answer = "success" if attempt.succeeded else "failure"
    result = f"{rows} rows in the trail, {kept} in the table, and the caller was answered with {answer}"
    ctx.fact("result of the failure", result)
    # a failed job is retried, so it must not end with nothing
    nothing = rows == 0 and kept == 0 and not attempt.succeeded and not is_job
    everything = rows == expected and len(seen.transactions) == 1 and attempt.succeeded
    outcome = "all or nothing" if nothing or everything else result
    ctx.expect("result of the failure", outcome, equals="all or nothing")


def _retry_until(run: PathRun, attempt: Attempt, states: tuple[str, ...]) -> str:
    """Wait until the job is in one of the states, with every retry due at once; return its state, or the timeout."""
    jobs, identity = run.inserted_job(attempt)

    def probe() -> str:
        jobs.hurry(identity)
        state = jobs.state(identity)
        if state is None or state.state not in states:
            raise NotYet(str(state))
        return str(state)

    try:
        return poll(probe, what="the job to end", deadline_s=run.declared.deadline_s, interval_s=0.05)
    except TimedOutError as error:
        return error.what


def no_trigger(path: PathDeclaration, ctx: CheckRecord) -> None:
    """Disable the capture trigger of the table, run the path, and compare the host's behaviour with the declaration."""
    if ctx.site.admin is None:
        raise NotExercisedError("disabling the audit trigger is not safe in an environment that others use")
    if path.expect and not path.expect.where:
        raise NotExercisedError("the path declares no `where`, so its row in the table cannot be identified")
    values = Values(first_caller(path, ctx))
    with path_run(path, ctx) as run, ctx.site.admin() as admin:
        prepared = require_exercised(run.prepare(values))
        if not prepared.succeeded:
            raise NotExercisedError("the path's preparation was not answered as declared")
        with contextlib.nullcontext() if ctx.sabotaged else _without_capture(admin, run.expected.table):
            attempt = require_exercised(run.act(values))
            state = _retry_until(run, attempt, _ATTEMPTED) if attempt.job else ""
            if attempt.job and not state.startswith(_ATTEMPTED):
                raise NotExercisedError(f"the job was not attempted while the trigger was missing: {state}")
            if path.kind == "job" and not attempt.job:
                state = wait_until_attempted(run, values, admin)
            kept = table_rows(run, values).count
            audited = len(run.rows.seen(values).changes)
        done = attempt.succeeded and (not state or state.startswith("completed"))
        if kept and audited < run.expected.rows:
            result = _OPEN
        elif not kept and not audited and not done:
            result = _CLOSED
        else:
            result = f"{kept} rows in the table, {audited} in the trail, answers {', '.join(map(str, attempt.answers))}"
        ctx.expect(WITHOUT_TRIGGER, result, equals=path.without_trigger)
        answers = ", ".join(map(str, attempt.answers)) or "none"
        ctx.fact(WITHOUT_TRIGGER, f"{result}: answers {answers}, {state or 'no job'}")
        if result == _OPEN:
            ctx.documented_limit(f"{path.title} writes unaudited when the audit trigger is missing", "harness.toml")
        if attempt.job and result == _CLOSED and not ctx.sabotaged:
            state = _retry_until(run, attempt, ENDED_JOB)
            ctx.expect("the job, once the trigger is enabled again", state.partition(" ")[0], equals="completed")
            ctx.expect("rows of the job then", len(run.rows.look(values, wanted=1).changes), equals=run.expected.rows)


def wait_until_attempted(run: PathRun, values: Values, admin: Client) -> str:
    """Wait until the job that a request enqueued was attempted at least once; before that it has refused nothing.

    Returns the job's state.

    :raises NotExercisedError: when the answer named no job, or the job was not attempted in time.
    """
    if not values.has("job_id"):
        raise NotExercisedError("the request that enqueues keeps no `job_id`, so the job cannot be followed")
    jobs, identity = ObanJobs(lambda: admin, "public"), int(values.text("{job_id}"))
    try:
        return str(jobs.when(identity, _ATTEMPTED, run.declared.deadline_s))
    except TimedOutError as error:
        raise NotExercisedError(error.what) from None


@contextlib.contextmanager
def _without_capture(admin: Client, table: str) -> Iterator[None]:
    admin.run(f"SET lock_timeout = '5s'; ALTER TABLE {quote_name(table)} DISABLE TRIGGER USER")
    try:
        yield
    finally:
        admin.run(f"ALTER TABLE {quote_name(table)} ENABLE TRIGGER USER")
