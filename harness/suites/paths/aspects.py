"""Audited paths of a host application (STG-02): each declared one is taken, alone and in trouble, and its trail read.

The same checks judge the reference host behind every topology, where `prove` breaks what they watch, and the host of
an environment that an operator named.
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
from harness.suites.paths.concurrency import OTHERS, THERE, two_callers
from harness.suites.paths.expectations import (
    ACTOR,
    ANSWERS,
    CORRELATION,
    JOB,
    KEPT,
    ROWS,
    expect_done,
    expect_kept,
    expect_rows,
    first_caller,
    require_exercised,
    same_actor,
    tell_apart,
    the_path,
    wanted_actor,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.context import CheckContext
    from harness.checks.registry import CheckFunction
    from harness.host.declarations import PathDeclaration
    from harness.host.path_runner import Attempt, PathRun, Seen

#: what may come of the same a second time
_WHOLE = ("refused", "again", "once")
#: paths share one host application and one database; what breaks something there is run alone
TOGETHER = "paths"


class _Aspect(Struct, frozen=True, kw_only=True):
    """What else is tried with a path."""

    name: str
    claim: str
    severity: Severity
    function: Any
    #: it takes something away that the other paths need meanwhile
    alone: bool = False


def path_checks(declared: Iterable[PathDeclaration], *, reference: bool = False) -> tuple[Check | Control, ...]:
    """Return the checks of declared paths, and their controls where it is the reference host that takes them."""
    found: list[Check | Control] = []
    for each in declared:
        for aspect in _ASPECTS:
            made = _made(each, aspect, reference=reference)
            found += [made, *(_controls(made, each, aspect) if reference else ())]
    return tuple(found)


def _made(path: PathDeclaration, aspect: _Aspect, *, reference: bool) -> Check:
    name = f"path.{path.name}" + (f"-{aspect.name}" if aspect.name else "")
    declare = check(
        name,
        claim=f"{path.title}: {aspect.claim}",
        section=Section.PATHS,
        severity=aspect.severity,
        area=f"audited path, {path.kind}",
        needs=(TRANSACTION_BLOCKS,),
        requires_features=(TrailFeature.LIBRARY,) if reference else (),
        serial_group=f"{TOGETHER} {name}" if aspect.alone else TOGETHER,
        path=PathLabel(name=path.name, title=path.title, kind=path.kind, aspect=aspect.name),
        environment_safety=Safety.PATH,
    )
    # a deadline for each request, and for the rows that come of it
    return replace(declare(_judged(path, aspect.function)), longest_s=max(90.0, 30.0 + 6 * path.deadline_s))


def _judged(path: PathDeclaration, function: Any) -> CheckFunction:
    def judge(ctx: CheckRecord) -> None:
        if path.not_applicable:
            raise NotApplicableError(path.not_applicable)
        function(path, ctx)

    return judge


def once(declared: PathDeclaration, ctx: CheckRecord) -> None:
    """Take the path once, and find exactly what is declared of it."""
    caller = first_caller(declared, ctx)
    values = Values(caller)
    with the_path(declared, ctx) as path:
        ctx.fact("told from others by", values.unique)
        if ctx.site.about:
            ctx.fact("host", ctx.site.about)
        taken = require_exercised(path.run(values))
        late = declared.kind == "HTTP" and taken.succeeded and path.count(values) < path.expected.rows
        if expect_done(ctx, path, taken):
            seen = path.look(values, wanted=path.expected.rows)
            expect_rows(ctx, path, values, seen)
            tell_apart(ctx, path, expect_kept(ctx, path, values, seen), late=late)


def repeated(declared: PathDeclaration, ctx: CheckRecord) -> None:
    """Send the same request, or put in the same job, twice."""
    values = Values(first_caller(declared, ctx))
    with the_path(declared, ctx) as path:
        first = require_exercised(path.run(values))
        if not expect_done(ctx, path, first):
            return
        path.look(values, wanted=path.expected.rows)
        if ctx.sabotaged:
            _undo_what_refuses(ctx, path, values)
        again = require_exercised(path.act(values))
        ended = _ended(path, again)
        later = declared.kind == "job" and again.job is None and again.succeeded
        enqueues = later and not declared.command
        if enqueues and ctx.site.admin is not None:
            with ctx.site.admin() as admin:
                ended = failures.when_tried(path, values, admin)
        # the rows of a job that has ended are committed: none is waited for any longer
        seen = path.look(values, wanted=2 * path.expected.rows, deadline_s=None if later and not ended else 1.0)
        found = _second_time(path, again, seen, ended)
        if found == "once" and enqueues and not ended:
            raise NotExercisedError("the second left no rows, and nobody can tell whether its job was done")
        ctx.fact("the second time", found)
        if ended:
            ctx.fact("the second job", ended)
        undeclared = found if found in _WHOLE else " or ".join(_WHOLE)
        ctx.expect("the second time", found, equals=declared.repeated or undeclared)
        actor = wanted_actor(path, values)
        wrong = sum(not same_actor(each.actor, actor) for each in seen.changes)
        ctx.expect("rows that name another actor", wrong, equals=0)
        expect_kept(ctx, path, values, seen)


def _second_time(path: PathRun, again: Attempt, seen: Seen, ended: str) -> str:
    whole, rows, transactions = path.expected.rows, len(seen.changes), len(seen.transactions)
    done = again.succeeded and (not ended or ended.startswith("completed"))
    if rows == whole and again.is_refused:
        return "refused"
    if rows == whole and done:
        return "once"
    if rows == 2 * whole and transactions == 2 and done:
        return "again"
    answers = ", ".join(map(str, again.answers)) or "none"
    exited = "" if again.exit_code is None else f"; exit code {again.exit_code}"
    return f"{rows} rows in {transactions} transactions; answers: {answers}; job: {ended or 'none'}{exited}"


def _ended(path: PathRun, taken: Attempt) -> str:
    try:
        state = path.job_ended(taken)
    except TimedOutError as error:
        return error.what
    return str(state) if state else ""


def _undo_what_refuses(ctx: CheckRecord, path: PathRun, values: Values) -> None:
    """As a control: let nothing stand in the way of a second time."""
    if ctx.site.admin is None:
        raise NotExercisedError("only what the harness stood up itself is broken on purpose")
    with ctx.site.admin() as admin:
        for name in path.expected.where:
            table, column = quote_name(path.expected.table), quote_name(name)
            admin.run(
                f"UPDATE {table} SET {column} = {column} || '-of-the-first-time' WHERE {column} = %s",
                [values.unique],
            )
    ctx.fact("undone before the second time", list(path.expected.where))


_ASPECTS = (
    _Aspect(
        name="",
        claim="leaves exactly the declared rows, in one transaction, with the caller as actor",
        severity=P0,
        function=once,
    ),
    _Aspect(
        name="two-callers",
        claim="two callers at the same moment are kept apart in the trail",
        severity=P0,
        function=two_callers,
    ),
    _Aspect(
        name="repeated",
        claim="the same a second time is refused, done again as a whole, or done once",
        severity=P1,
        function=repeated,
    ),
    _Aspect(
        name="failure",
        claim="a failure in the middle leaves all of it or nothing",
        severity=P0,
        function=failures.failure,
        alone=True,
    ),
    _Aspect(
        name="no-trigger",
        claim="what becomes of the write when the audit trigger is missing is as declared",
        severity=P0,
        function=failures.no_trigger,
        alone=True,
    ),
)


# --- controls, for the reference host ------------------------------------------------------------------------


def _controls(made: Check, path: PathDeclaration, aspect: _Aspect) -> Iterable[Control]:
    lost, gone = (update_lost, updated_row_gone) if path.kind == "job" else (insert_lost, inserted_row_gone)
    at = {
        "": ((ACTOR, another_actor), (CORRELATION, another_correlation), (ROWS, lost), (KEPT, gone)),
        "two-callers": ((OTHERS, another_actor), (THERE, gone)),
        "repeated": (("the second time", something_else_happens), (KEPT, gone)),
        "failure": ((failures.ENDED, something_else_happens),),
        "no-trigger": ((failures.WITHOUT, something_else_happens),),
    }[aspect.name]
    for expectation, function in at:
        yield breaks(made, at=expectation)(function)
    if not aspect.name and path.kind == "HTTP":
        yield breaks(made, at=ANSWERS)(insert_refused_by_the_host)
    if not aspect.name and path.job:
        yield breaks(made, at=JOB)(update_refused_by_the_host)


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
    """What a job writes is lost from the trail; what prepares it is not."""
    ctx.tamper_at_commit("audit_changes", "DELETE FROM public.audit_changes WHERE id = NEW.id AND op = 'update'")


def inserted_row_gone(ctx: CheckContext) -> None:
    _row_gone(ctx, "insert")


def updated_row_gone(ctx: CheckContext) -> None:
    _row_gone(ctx, "update")


def _row_gone(ctx: CheckContext, operation: str) -> None:
    """The trail is right, and what it tells of is not there: taken away past capture, when the host has looked."""
    ctx.tamper_at_commit(
        "audit_changes",
        f"IF NEW.op = '{operation}' THEN PERFORM set_config('session_replication_role', 'replica', true); "
        "DELETE FROM public.posts WHERE id = (NEW.table_pk ->> 'id')::bigint; "
        "PERFORM set_config('session_replication_role', 'origin', true); END IF",
    )


def insert_refused_by_the_host(ctx: CheckContext) -> None:
    """The trail holds another key than was written while the host still looks: it has to refuse."""
    ctx.tamper_for_now("audit_changes", """IF NEW.op = 'insert' THEN NEW.table_pk := '{"id": 0}'; END IF""")


def update_refused_by_the_host(ctx: CheckContext) -> None:
    ctx.tamper_for_now("audit_changes", """IF NEW.op = 'update' THEN NEW.table_pk := '{"id": 0}'; END IF""")


def something_else_happens(ctx: CheckContext) -> None:
    ctx.sabotaged = True
