"""Expectations about a path run: its answers, its rows in the trail, and its rows in the audited table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.checks.record import CheckRecord, NotExercisedError, spell
from harness.errors import TimedOutError
from harness.host.audited_table import RowsNotSeenError, TableRows
from harness.host.path_runner import Attempt, PathRun
from harness.host.site import ANOTHER, Values, discreet, holds

if TYPE_CHECKING:
    from harness.host.declarations import Caller, PathDeclaration
    from harness.host.path_rows import Seen

#: names of expectations that controls break
ANSWERS = "answers"
ROWS = "rows in the trail"
ACTOR = "actor"
CORRELATION = "correlation"
JOB = "the job"
KEPT = "rows in the table"
#: where the limits of a path's evidence are documented
_DOCUMENTATION = "docs/your-staging.md"


def path_run(path: PathDeclaration, ctx: CheckRecord, parent: PathRun | None = None) -> PathRun:
    """Return a run of the path at the check's site; nothing is sent yet.

    :param parent: another run of the same path that outlives this one and cleans up after both.
    :raises NotExercisedError: when the path declares no rows to expect, or the site has no base URL for its steps.
    """
    if path.expect is None:
        raise NotExercisedError("the path declares no rows to expect in the trail")
    site = ctx.site
    if path.steps and not site.base_url:
        raise NotExercisedError(f"{site.name} declares no base URL")
    return PathRun(path, path.expect, site, parent=parent, on_left_behind=ctx.left_behind)


def first_caller(path: PathDeclaration, ctx: CheckRecord) -> Caller | None:
    """Return the site's first caller; None when the path declares its own actor instead.

    :raises NotExercisedError: when neither is declared, so the actor to expect in the trail is unknown.
    """
    if ctx.site.callers:
        return ctx.site.callers[0]
    if path.expect and path.expect.actor:
        return None
    raise NotExercisedError(f"{ctx.site.name} declares no caller, so the actor to expect in the trail is unknown")


def require_exercised(attempt: Attempt) -> Attempt:
    """Return the attempt.

    :raises NotExercisedError: with the reason, when the path was not exercised.
    """
    if attempt.not_exercised:
        raise NotExercisedError(attempt.not_exercised)
    return attempt


def expect_done(ctx: CheckRecord, run: PathRun, attempt: Attempt) -> bool:
    """Compare the answers, exit code and job with the declaration; return whether all of them held."""
    held = True
    if attempt.steps:
        statuses = ", ".join(str(step.status) for step in attempt.steps)
        held = ctx.expect(ANSWERS, ", ".join(map(str, attempt.answers)), equals=statuses)
        held = ctx.expect("wrong contents of the answers", list(attempt.mismatches), equals=[]) and held
    if attempt.exit_code is not None:
        held = ctx.expect("exit code of the command", attempt.exit_code, equals=0) and held
    if held and attempt.job is not None:
        try:
            state = run.job_ended(attempt)
        except TimedOutError as error:
            seen = run.job_state(attempt)
            # the worker of the harness's own host is only slow; in an environment, a job that nobody begins is a finding
            if ctx.site.admin is not None and seen and not seen.attempt:
                raise NotExercisedError(error.what) from None
            held = ctx.expect(JOB, error.what, equals="completed")
        else:
            held = ctx.expect(JOB, state.state if state else "gone", equals="completed")
            ctx.fact("the job", state)
    return held


def expected_actor(run: PathRun, values: Values) -> dict[str, Any]:
    """Return the actor that the path declares, else the caller's."""
    declared = run.expected.actor
    return {name: values.fill(value) for name, value in declared.items()} if declared else values.actor


def expect_rows(ctx: CheckRecord, run: PathRun, values: Values, seen: Seen) -> None:
    """Compare the rows of one run in the trail with the declaration.

    :raises NotExercisedError: when an action is declared, and the audit target cannot read actions.
    """
    expected, ours = run.expected, run.site.is_ours
    ctx.expect(ROWS, len(seen.changes), equals=expected.rows)
    if not seen.changes:
        return
    ctx.expect("operation", sorted({change.op for change in seen.changes}), equals=[expected.operation])
    ctx.expect("transactions", len(seen.transactions), equals=1)
    ctx.expect(f"changes of {expected.table} in that transaction", len(seen.all_changes), equals=expected.rows)
    actor = expected_actor(run, values)
    text = _evidence_text(actor, values, ours=ours)
    wrong = next((change.actor for change in seen.changes if not same_actor(change.actor, actor)), actor)
    ctx.expect(ACTOR, text if wrong == actor else discreet(wrong, values, ours=ours), equals=text)
    if expected.key:
        key = values.fill(expected.key)
        ctx.expect("key", all(holds(change.table_pk, key) for change in seen.changes), equals=True)
    _expect_actions(ctx, run, values, seen)
    ctx.fact("audit transaction", ", ".join(seen.transactions))


def _expect_actions(ctx: CheckRecord, run: PathRun, values: Values, seen: Seen) -> None:
    expected, ours = run.expected, run.site.is_ours
    declarations = {
        CORRELATION: (expected.correlation, "correlation_id"),
        "action": (expected.action, "name"),
        "job id": (expected.job_id, "job_id"),
    }
    if not any(declared for declared, _ in declarations.values()):
        return
    if not run.site.target.statements.actions:
        raise NotExercisedError("the audit target has no statement `actions`, so actions cannot be read")
    for name, (declared, field) in declarations.items():
        if declared:
            right = values.text(declared)
            recorded = [getattr(action, field, None) for action in seen.actions]
            wrong = next((value for value in recorded if value != right), right)
            text = _evidence_text(right, values, ours=ours)
            ctx.expect(name, text if wrong == right else discreet(wrong, values, ours=ours), equals=text)


def expect_table_rows(ctx: CheckRecord, run: PathRun, values: Values, seen: Seen) -> TableRows:
    """Compare the rows of the audited table with the changes in the trail: neither is sufficient evidence alone.

    :raises NotExercisedError: when no configured role may count them.
    """
    table = table_rows(run, values)
    expected = expected_table_rows(run, seen)
    ctx.expect(KEPT, expected if table.loosely == expected else table.count, equals=expected)
    return table


def expected_table_rows(run: PathRun, seen: Seen) -> int:
    """Return how many rows the audited table must hold, given the changes in the trail."""
    expected = run.expected
    inserted = [change for change in seen.changes if change.op == "insert"]
    if expected.left is not None:
        return expected.left * max(1, len(inserted) // expected.rows)
    if expected.operation == "insert":
        # a host may replace an old row with a new one
        deleted = {spell(change.table_pk) for change in seen.all_changes if change.op == "delete" and change.table_pk}
        return sum(spell(change.table_pk) not in deleted for change in inserted)
    return 0 if expected.operation == "delete" else len(keys_of(seen)) or expected.rows


def keys_of(seen: Seen) -> set[str]:
    """Return the primary keys of the changed rows, as text."""
    return {spell(change.table_pk) for change in seen.changes if change.table_pk}


def table_rows(run: PathRun, values: Values) -> TableRows:
    """Return the rows of the audited table.

    :raises NotExercisedError: when no configured role may count them; a count of zero would then prove nothing.
    """
    try:
        return run.rows.in_table(values)
    except RowsNotSeenError as error:
        raise NotExercisedError(
            f"{error}; expected a role of `trail` or `dsn` that may read all of {run.expected.table}"
        ) from None


def record_limits(ctx: CheckRecord, run: PathRun, table: TableRows, *, late: bool) -> None:
    """Record, as a documented limit, what the evidence for a correct trail leaves open.

    :param late: the rows were not in the trail yet when the host answered.
    """
    limits = []
    if late:
        limits.append("its rows were not in the trail when it answered: they were written later, or are read late")
    same_transaction = run.rows.is_of_the_trail(table)
    if same_transaction is not None:
        ctx.fact("written with its trail", "by the same transaction" if same_transaction else "not shown")
    if same_transaction is False:
        limits.append(
            "nothing shows that the row and its trail were written by one transaction: there were two, or savepoints, "
            "or the row was changed again"
        )
    if limits:
        ctx.documented_limit("; ".join(limits), _DOCUMENTATION)


def _evidence_text(expected: Any, values: Values, *, ours: bool) -> str:
    """Return an expected value as evidence may show it; a value kept from an answer may be personal data."""
    text = discreet(expected, values, ours=ours)
    return "the value that the answer held" if text == ANOTHER else text


def same_actor(actor: Any, expected: dict[str, Any]) -> bool:
    """Return whether a row's actor matches; in a trail that stores ids only, the type is a convention."""
    return isinstance(actor, dict) and holds(actor, expected)
