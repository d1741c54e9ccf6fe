"""A path that fails in the middle, and one whose audit trigger is missing.

Both are brought about on the servers, from outside, so that any host is judged by what it does and not by what it
was taught to do for a test. On an environment that others use neither is safe; there a declared variant that fails
by itself is taken instead.
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
from harness.suites.paths.expectations import KEPT, first_caller, require_exercised, rows_there, the_path
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.database import Client
    from harness.host.declarations import FailingVariant, PathDeclaration
    from harness.host.path_runner import Attempt, PathRun

#: names of expectations that controls turn
ENDED = "server connections ended in the middle of the write"
WITHOUT = "without the audit trigger"

_CLOSED, _OPEN = "fails closed", "fails open"
_BLOCKED_S = 10.0
#: a job in one of these was tried, and it is known what came of it
_TRIED = (*ENDED_JOB, "retryable")


def failure(declared: PathDeclaration, ctx: CheckRecord) -> None:
    """Make the path fail after it has begun to write: all of it is there afterwards, or nothing."""
    values = Values(first_caller(declared, ctx))
    connect, variant = ctx.site.admin, declared.fails
    if connect is None and variant is None:
        raise NotExercisedError(
            "ending a server connection is not safe in an environment that others use, and no variant is declared "
            "that fails by itself"
        )
    with the_path(declared, ctx) as path:
        prepared = require_exercised(path.prepare(values))
        if not prepared.succeeded:
            raise NotExercisedError("what prepares the path was not answered as declared")
        if connect is None:
            if variant:
                _failing_variant(variant, ctx, path, values)
            return
        with connect() as admin:
            taken, ended = _cut_in_the_middle(ctx, path, values, admin)
            ctx.expect(ENDED, ended, equals=1)
            _expect_whole_or_nothing(ctx, path, values, taken)


def _failing_variant(variant: FailingVariant, ctx: CheckRecord, path: PathRun, values: Values) -> None:
    taken = require_exercised(path.act(values, variant=variant))
    ctx.fact("made to fail by", variant.why)
    if variant.steps:
        statuses = ", ".join(str(each.status) for each in variant.steps)
        ctx.expect("answers", ", ".join(map(str, taken.answers)), equals=statuses)
    if taken.job is not None:
        with contextlib.suppress(TimedOutError):
            path.job_ended(taken)
        state = path.job_state(taken)
        if state is None or not state.attempt:
            raise NotExercisedError(f"no worker tried the job that fails: {state or 'it is gone'}")
        ctx.expect("the job completed", state.state == "completed", equals=False)
    ctx.expect("rows in the trail", len(path.look(values, wanted=1, deadline_s=1.0).changes), equals=0)
    ctx.fact("that it had begun to write", "is declared, and was not seen from here")
    expected = path.expected
    if expected.operation != "update" or expected.where or expected.row:  # by its key alone a row is there either way
        undone = expected.rows if expected.operation == "delete" else 0
        ctx.expect(KEPT, rows_there(path, values).count, equals=undone)


def _cut_in_the_middle(ctx: CheckRecord, path: PathRun, values: Values, admin: Client) -> tuple[Attempt, int]:
    """Keep the audit tables locked until the write waits for them, then end its server connection."""
    if ctx.site.admin is None:
        raise NotExercisedError("only what the harness stood up itself is broken on purpose")
    with ctx.site.admin() as holder, ThreadPoolExecutor(1) as pool:
        with holder.transaction():
            holder.run(f"LOCK TABLE {', '.join(path.site.target.tables)} IN ACCESS EXCLUSIVE MODE")
            running = pool.submit(path.act, values)
            pid = _waiting_for(admin, holder.server_pid())
            ended = 0
            if not ctx.sabotaged:
                ended = int(bool(admin.value("SELECT pg_terminate_backend(%s)", [pid])))
                ctx.probed("the write waited in the first, and the second let it wait", pid, holder.server_pid())
                _until(lambda: admin.value("SELECT pid FROM pg_stat_activity WHERE pid = %s", [pid]) is None)
        return running.result(), ended


def _waiting_for(admin: Client, holder: int) -> int:
    def probe() -> int:
        found = admin.value(
            "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid)) "
            "AND datname = current_database() LIMIT 1",
            [holder],
        )
        if found is None:
            raise NotYet("nobody waits")
        return int(found)

    try:
        return poll(probe, what="the write to reach the audit tables", deadline_s=_BLOCKED_S)
    except TimedOutError as error:
        raise NotExercisedError(
            f"{error.what}: it never began to write, so it could not be stopped in the middle"
        ) from None


def _until(condition: Callable[[], bool]) -> None:
    def probe() -> None:
        if not condition():
            raise NotYet("it is still there")

    poll(probe, what="the server connection to end", deadline_s=_BLOCKED_S)


def _expect_whole_or_nothing(ctx: CheckRecord, path: PathRun, values: Values, taken: Attempt) -> None:
    if taken.job is not None:
        state = _tried_again(path, taken, ENDED_JOB)
        ctx.fact("the job", state)
    wanted = path.expected.rows
    patient = path.declared.kind == "job"
    seen = path.look(values, wanted=wanted, deadline_s=None if patient else 0.5)
    rows, kept = len(seen.changes), rows_there(path, values).count if path.expected.where else 0
    told = "the caller is told that it failed" if not taken.succeeded else "the caller is told that it was done"
    found = f"{rows} rows in the trail, {kept} in the table, and {told}"
    ctx.fact("what came of it", found)
    # a job that failed is there to be tried again
    nothing = rows == 0 and kept == 0 and not taken.succeeded and not patient
    whole = rows == wanted and len(seen.transactions) == 1 and taken.succeeded
    ctx.expect("what came of it", "all or nothing" if nothing or whole else found, equals="all or nothing")


def _tried_again(path: PathRun, taken: Attempt, states: tuple[str, ...]) -> str:
    """Wait for a job to end; what waits to be tried again is tried at once."""
    jobs, identity = path.inserted_job(taken)

    def probe() -> str:
        jobs.hurry(identity)
        state = jobs.state(identity)
        if state is None or state.state not in states:
            raise NotYet(str(state))
        return str(state)

    try:
        return poll(probe, what="the job to end", deadline_s=path.declared.deadline_s, interval_s=0.05)
    except TimedOutError as error:
        return error.what


def no_trigger(declared: PathDeclaration, ctx: CheckRecord) -> None:
    """Take the capture trigger off the table, take the path, and say what the host does."""
    if ctx.site.admin is None:
        raise NotExercisedError("taking the audit trigger away is not safe in an environment that others use")
    if declared.expect and not declared.expect.where:
        raise NotExercisedError("what it writes leaves no row in the table that could be told from others")
    values = Values(first_caller(declared, ctx))
    with the_path(declared, ctx) as path, ctx.site.admin() as admin:
        prepared = require_exercised(path.prepare(values))
        if not prepared.succeeded:
            raise NotExercisedError("what prepares the path was not answered as declared")
        with contextlib.nullcontext() if ctx.sabotaged else _capture_off(admin, path.expected.table):
            taken = require_exercised(path.act(values))
            state = _tried_again(path, taken, _TRIED) if taken.job else ""
            if taken.job and not state.startswith(_TRIED):
                raise NotExercisedError(f"the job was not tried while the trigger was missing: {state}")
            if declared.kind == "job" and not taken.job:
                state = when_tried(path, values, admin)
            kept = rows_there(path, values).count
            audited = len(path.seen(values).changes)
        done = taken.succeeded and (not state or state.startswith("completed"))
        if kept and audited < path.expected.rows:
            found = _OPEN
        elif not kept and not audited and not done:
            found = _CLOSED
        else:
            found = f"{kept} rows in the table, {audited} in the trail, answers {', '.join(map(str, taken.answers))}"
        ctx.expect(WITHOUT, found, equals=declared.without_trigger)
        ctx.fact(WITHOUT, f"{found}: answers {', '.join(map(str, taken.answers)) or 'none'}, {state or 'no job'}")
        if found == _OPEN:
            ctx.documented_limit(
                f"{declared.title} writes unaudited when the audit trigger is missing", "harness.toml"
            )
        if taken.job and found == _CLOSED and not ctx.sabotaged:
            state = _tried_again(path, taken, ENDED_JOB)
            ctx.expect("the job, once the trigger is back", state.partition(" ")[0], equals="completed")
            ctx.expect("its rows then", len(path.look(values, wanted=1).changes), equals=path.expected.rows)


def when_tried(path: PathRun, values: Values, admin: Client) -> str:
    """Wait until a job that a request enqueued was tried at least once: before that it has refused nothing.

    :raises NotExercisedError: when the answer named no job, or it was not tried.
    """
    if not values.has("job_id"):
        raise NotExercisedError(
            "the request that enqueues keeps no `job_id`, so nobody can tell when the job was tried"
        )
    jobs, identity = ObanJobs(lambda: admin, "public"), int(values.text("{job_id}"))
    try:
        return str(jobs.when(identity, _TRIED, path.declared.deadline_s))
    except TimedOutError as error:
        raise NotExercisedError(error.what) from None


@contextlib.contextmanager
def _capture_off(admin: Client, table: str) -> Iterator[None]:
    admin.run(f"SET lock_timeout = '5s'; ALTER TABLE {quote_name(table)} DISABLE TRIGGER USER")
    try:
        yield
    finally:
        admin.run(f"ALTER TABLE {quote_name(table)} ENABLE TRIGGER USER")
