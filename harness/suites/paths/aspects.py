"""Audited paths of a host application (STG-02): run each declared path, alone and under failures, and read its trail.

The same checks judge the reference host behind every topology and the host of an environment that an operator named.
Behind a topology, `prove` breaks the reference host and its trail with the controls of this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from harness.audit.target_file import TrailFeature
from harness.checks.record import CheckRecord, NotApplicableError, NotExercisedError
from harness.checks.registry import P0, P1, TRANSACTION_BLOCKS, Check, Control, Safety, breaks, check
from harness.database import quote_name
from harness.errors import TimedOutError
from harness.host.site import Values
from harness.model import PathLabel, Section, Severity
from harness.suites.paths import failures
from harness.suites.paths.concurrency import IN_TABLE, OTHERS, two_callers
from harness.suites.paths.expectations import (
    ACTOR,
    ANSWERS,
    CORRELATION,
    JOB,
    KEPT,
    ROWS,
    expect_done,
    expect_rows,
    expect_table_rows,
    expected_actor,
    first_caller,
    path_run,
    record_limits,
    require_exercised,
    same_actor,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.context import CheckContext
    from harness.checks.registry import CheckFunction
    from harness.host.declarations import PathDeclaration
    from harness.host.path_rows import Seen
    from harness.host.path_runner import Attempt, PathRun

#: the permitted results of running a path a second time
_REPEATS = ("refused", "again", "once")
#: states of a job before the end of its first attempt
_UNFINISHED = ("scheduled", "available", "executing")
#: the serial group of paths: they share one host application and one database; a check that breaks something in them
#: gets a group of its own
SERIAL_GROUP = "paths"


class _Aspect(Struct, frozen=True, kw_only=True):
    """One way to run a path, and the check that judges it."""

    name: str
    claim: str
    severity: Severity
    function: Any
    #: it breaks something that the other paths need meanwhile
    alone: bool = False


def path_checks(declared: Iterable[PathDeclaration], *, reference: bool = False) -> tuple[Check | Control, ...]:
    """Return a check for each aspect of each declared path.

    :param reference: the paths are the reference host's: return the controls of the checks as well.
    """
    checks: list[Check | Control] = []
    for path in declared:
        for aspect in _ASPECTS:
            aspect_check = _aspect_check(path, aspect, reference=reference)
            checks += [aspect_check, *(_controls(aspect_check, path, aspect) if reference else ())]
    return tuple(checks)


def _aspect_check(path: PathDeclaration, aspect: _Aspect, *, reference: bool) -> Check:
    name = f"path.{path.name}" + (f"-{aspect.name}" if aspect.name else "")
    declare = check(
        name,
        claim=f"{path.title}: {aspect.claim}",
        section=Section.PATHS,
        severity=aspect.severity,
        area=f"audited path, {path.kind}",
        needs=(TRANSACTION_BLOCKS,),
        requires_features=(TrailFeature.LIBRARY,) if reference else (),
        serial_group=f"{SERIAL_GROUP} {name}" if aspect.alone else SERIAL_GROUP,
        path=PathLabel(name=path.name, title=path.title, kind=path.kind, aspect=aspect.name),
        environment_safety=Safety.PATH,
    )
    # a deadline for each request, and one for its rows
    return replace(declare(_bound(path, aspect.function)), longest_s=max(90.0, 30.0 + 6 * path.deadline_s))


def _bound(path: PathDeclaration, function: Any) -> CheckFunction:
    def judge(ctx: CheckRecord) -> None:
        if path.not_applicable:
            raise NotApplicableError(path.not_applicable)
        function(path, ctx)

    return judge


def once(path: PathDeclaration, ctx: CheckRecord) -> None:
    """Run the path once, and compare its answers and rows with the declaration."""
    caller = first_caller(path, ctx)
    values = Values(caller)
    with path_run(path, ctx) as run:
        ctx.fact("identified by", values.unique)
        if ctx.site.about:
            ctx.fact("host", ctx.site.about)
        attempt = require_exercised(run.execute(values))
        late = path.kind == "HTTP" and attempt.succeeded and run.rows.count(values) < run.expected.rows
        if expect_done(ctx, run, attempt):
            seen = run.rows.look(values, wanted=run.expected.rows)
            expect_rows(ctx, run, values, seen)
            record_limits(ctx, run, expect_table_rows(ctx, run, values, seen), late=late)


def repeated(path: PathDeclaration, ctx: CheckRecord) -> None:
    """Send the same request, or enqueue the same job, twice."""
    values = Values(first_caller(path, ctx))
    with path_run(path, ctx) as run:
        first = require_exercised(run.execute(values))
        if not expect_done(ctx, run, first):
            return
        run.rows.look(values, wanted=run.expected.rows)
        if ctx.sabotaged:
            _remove_conflict(ctx, run, values)
        again = require_exercised(run.act(values))
        job_state = _job_state(run, again)
        deferred = path.kind == "job" and again.job is None and again.succeeded
        enqueues = deferred and not path.command
        if enqueues and ctx.site.admin is not None:
            with ctx.site.admin() as admin:
                job_state = failures.wait_until_attempted(run, values, admin)
        # the rows of a job that has ended are committed, so there is nothing to wait for
        seen = run.rows.look(
            values, wanted=2 * run.expected.rows, deadline_s=None if deferred and not job_state else 1.0
        )
        result = _second_result(run, again, seen, job_state)
        if result == "once" and enqueues and not job_state:
            raise NotExercisedError("the second run left no rows, and it is unknown whether its job ran")
        ctx.fact("the second time", result)
        if job_state:
            ctx.fact("the second job", job_state)
        undeclared = result if result in _REPEATS else " or ".join(_REPEATS)
        ctx.expect("the second time", result, equals=path.repeated or undeclared)
        actor = expected_actor(run, values)
        wrong = sum(not same_actor(change.actor, actor) for change in seen.changes)
        ctx.expect("rows that name another actor", wrong, equals=0)
        expect_table_rows(ctx, run, values, seen)


def _second_result(run: PathRun, again: Attempt, seen: Seen, job_state: str) -> str:
    """Return one of `_REPEATS`, or a description of the rows, answers and job."""
    rows_per_run, rows, transactions = run.expected.rows, len(seen.changes), len(seen.transactions)
    done = again.succeeded and (not job_state or job_state.startswith("completed"))
    if rows == rows_per_run and again.is_refused:
        return "refused"
    if rows == rows_per_run and done:
        return "once"
    if rows == 2 * rows_per_run and transactions == 2 and done:
        return "again"
    answers = ", ".join(map(str, again.answers)) or "none"
    exited = "" if again.exit_code is None else f"; exit code {again.exit_code}"
    return f"{rows} rows in {transactions} transactions; answers: {answers}; job: {job_state or 'none'}{exited}"


def _job_state(run: PathRun, attempt: Attempt) -> str:
    """Wait for the job to end, and return its state; empty without a job.

    :raises NotExercisedError: when its first attempt has not ended, as on a slow machine: what it does is unknown.
    """
    try:
        state = run.job_ended(attempt)
    except TimedOutError as error:
        state = run.job_state(attempt)
        if state and state.attempt <= 1 and state.state in _UNFINISHED:
            raise NotExercisedError(error.what) from None
        return error.what
    return str(state) if state else ""


def _remove_conflict(ctx: CheckRecord, run: PathRun, values: Values) -> None:
    """Rename the values of the first run, so that the host has no reason to refuse the second: a control."""
    if ctx.site.admin is None:
        raise NotExercisedError("a control breaks only servers that the harness started")
    with ctx.site.admin() as admin:
        for name in run.expected.where:
            table, column = quote_name(run.expected.table), quote_name(name)
            admin.run(
                f"UPDATE {table} SET {column} = {column} || '-of-the-first-time' WHERE {column} = %s",
                [values.unique],
            )
    ctx.fact("columns renamed before the second time", list(run.expected.where))


_ASPECTS = (
    _Aspect(
        name="",
        claim="leaves exactly the declared rows, in one transaction, with the caller as actor",
        severity=P0,
        function=once,
    ),
    _Aspect(
        name="two-callers",
        claim="the rows of two concurrent callers each name their own caller",
        severity=P0,
        function=two_callers,
    ),
    _Aspect(
        name="repeated",
        claim="a repetition is refused, done again completely, or done only once",
        severity=P1,
        function=repeated,
    ),
    _Aspect(
        name="failure",
        claim="a failure during the write leaves all rows or none",
        severity=P0,
        function=failures.failure,
        alone=True,
    ),
    _Aspect(
        name="no-trigger",
        claim="the write without an audit trigger fails closed or open, as declared",
        severity=P0,
        function=failures.no_trigger,
        alone=True,
    ),
)


# --- controls of the reference host --------------------------------------------------------------------------


def _controls(aspect_check: Check, path: PathDeclaration, aspect: _Aspect) -> Iterable[Control]:
    lost, gone = (update_lost, updated_row_gone) if path.kind == "job" else (insert_lost, inserted_row_gone)
    at = {
        "": ((ACTOR, another_actor), (CORRELATION, another_correlation), (ROWS, lost), (KEPT, gone)),
        "two-callers": ((OTHERS, another_actor), (IN_TABLE, gone)),
        "repeated": (("the second time", something_else_happens), (KEPT, gone)),
        "failure": ((failures.TERMINATED, something_else_happens),),
        "no-trigger": ((failures.WITHOUT_TRIGGER, something_else_happens),),
    }[aspect.name]
    for expectation, function in at:
        yield breaks(aspect_check, at=expectation)(function)
    if not aspect.name and path.kind == "HTTP":
        yield breaks(aspect_check, at=ANSWERS)(insert_refused_by_the_host)
    if not aspect.name and path.job:
        yield breaks(aspect_check, at=JOB)(update_refused_by_the_host)


def another_actor(ctx: CheckContext) -> None:
    ctx.tamper_at_commit(
        "audit_transactions",
        """UPDATE public.audit_transactions SET actor_ref = '{"type": "user", "id": "else"}' WHERE id = NEW.id""",
    )


def another_correlation(ctx: CheckContext) -> None:
    ctx.tamper_at_commit(
        "audit_actions", "UPDATE public.audit_actions SET correlation_id = 'of-another' WHERE id = NEW.id"
    )


def insert_lost(ctx: CheckContext) -> None:
    ctx.tamper_at_commit("audit_changes", "DELETE FROM public.audit_changes WHERE id = NEW.id AND op = 'insert'")


def update_lost(ctx: CheckContext) -> None:
    """Delete a job's changes from the trail; the changes of its preparation stay."""
    ctx.tamper_at_commit("audit_changes", "DELETE FROM public.audit_changes WHERE id = NEW.id AND op = 'update'")


def inserted_row_gone(ctx: CheckContext) -> None:
    _row_gone(ctx, "insert")


def updated_row_gone(ctx: CheckContext) -> None:
    _row_gone(ctx, "update")


def _row_gone(ctx: CheckContext, operation: str) -> None:
    """Keep the trail right, and delete the row it describes: without capture, and after the host has checked."""
    ctx.tamper_at_commit(
        "audit_changes",
        f"IF NEW.op = '{operation}' THEN PERFORM set_config('session_replication_role', 'replica', true); "
        "DELETE FROM public.posts WHERE id = (NEW.table_pk ->> 'id')::bigint; "
        "PERFORM set_config('session_replication_role', 'origin', true); END IF",
    )


def insert_refused_by_the_host(ctx: CheckContext) -> None:
    """Store a wrong key in the trail before the host verifies it, so that the host has to refuse."""
    ctx.tamper_for_now("audit_changes", """IF NEW.op = 'insert' THEN NEW.table_pk := '{"id": 0}'; END IF""")


def update_refused_by_the_host(ctx: CheckContext) -> None:
    ctx.tamper_for_now("audit_changes", """IF NEW.op = 'update' THEN NEW.table_pk := '{"id": 0}'; END IF""")


def something_else_happens(ctx: CheckContext) -> None:
    ctx.sabotaged = True
