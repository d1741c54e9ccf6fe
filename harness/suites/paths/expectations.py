"""What is expected of a path that was taken: of its answers, and of its rows in the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.checks.record import CheckRecord, NotExercisedError, spell
from harness.errors import TimedOutError
from harness.host.audited_table import RowsNotSeenError, TableRows
from harness.host.path_runner import Attempt, PathRun, Seen
from harness.host.site import ANOTHER, Values, discreet, holds

if TYPE_CHECKING:
    from harness.host.declarations import Caller, PathDeclaration

#: names of expectations that controls turn
ANSWERS = "answers"
ROWS = "rows in the trail"
ACTOR = "actor"
CORRELATION = "correlation"
JOB = "the job"
KEPT = "rows in the table"
#: where it is explained what a row of a path is worth
_EXPLAINED = "docs/environments.md"


def the_path(declared: PathDeclaration, ctx: CheckRecord, beside: PathRun | None = None) -> PathRun:
    """Return the path, to be taken at the check's site.

    :param beside: the same, that takes away what both made.
    :raises NotExercisedError: where there is nothing to send it to.
    """
    if declared.expect is None:
        raise NotExercisedError("nothing is declared that must be found in the trail")
    site = ctx.site
    if declared.steps and not site.base_url:
        raise NotExercisedError(f"no base URL is declared for {site.name}")
    return PathRun(declared, declared.expect, site, owner=beside, on_left_behind=ctx.left_behind)


def first_caller(declared: PathDeclaration, ctx: CheckRecord) -> Caller | None:
    """Return who takes the path.

    :raises NotExercisedError: when nobody is declared, and so nobody is known whom the trail must name.
    """
    if ctx.site.callers:
        return ctx.site.callers[0]
    if declared.expect and declared.expect.actor:
        return None
    raise NotExercisedError(f"no caller is declared for {ctx.site.name}, so nobody is known whom the trail must name")


def require_exercised(taken: Attempt) -> Attempt:
    if taken.not_exercised:
        raise NotExercisedError(taken.not_exercised)
    return taken


def expect_done(ctx: CheckRecord, path: PathRun, taken: Attempt) -> bool:
    """Compare what the caller was told with what is declared; say whether it is worth looking at the trail."""
    held = True
    if taken.steps:
        declared = ", ".join(str(each.status) for each in taken.steps)
        held = ctx.expect(ANSWERS, ", ".join(map(str, taken.answers)), equals=declared)
        held = ctx.expect("what the answers hold", list(taken.mismatches), equals=[]) and held
    if taken.exit_code is not None:
        held = ctx.expect("exit code of the command", taken.exit_code, equals=0) and held
    if held and taken.job is not None:
        try:
            state = path.job_ended(taken)
        except TimedOutError as error:
            held = ctx.expect(JOB, error.what, equals="completed")
        else:
            held = ctx.expect(JOB, state.state if state else "gone", equals="completed")
            ctx.fact("the job", state)
    return held


def wanted_actor(path: PathRun, values: Values) -> dict[str, Any]:
    declared = path.expected.actor
    return {name: values.fill(each) for name, each in declared.items()} if declared else values.actor


def expect_rows(ctx: CheckRecord, path: PathRun, values: Values, seen: Seen) -> None:
    """Compare the rows of one request with what is declared of them."""
    expected, ours = path.expected, path.site.is_ours
    ctx.expect(ROWS, len(seen.changes), equals=expected.rows)
    if not seen.changes:
        return
    ctx.expect("operation", sorted({each.op for each in seen.changes}), equals=[expected.operation])
    ctx.expect("transactions", len(seen.transactions), equals=1)
    ctx.expect(f"changes of {expected.table} in that transaction", len(seen.all_changes), equals=expected.rows)
    actor = wanted_actor(path, values)
    spelt = _spelt(actor, values, ours=ours)
    wrong = next((each.actor for each in seen.changes if not same_actor(each.actor, actor)), actor)
    ctx.expect(ACTOR, spelt if wrong == actor else discreet(wrong, values, ours=ours), equals=spelt)
    if expected.key:
        wanted = values.fill(expected.key)
        ctx.expect("key", all(holds(each.table_pk, wanted) for each in seen.changes), equals=True)
    _expect_actions(ctx, path, values, seen)
    ctx.fact("audit transaction", ", ".join(seen.transactions))


def _expect_actions(ctx: CheckRecord, path: PathRun, values: Values, seen: Seen) -> None:
    expected, ours = path.expected, path.site.is_ours
    wanted = {
        CORRELATION: (expected.correlation, "correlation_id"),
        "action": (expected.action, "name"),
        "job id": (expected.job_id, "job_id"),
    }
    if not any(told for told, _ in wanted.values()):
        return
    if not path.site.target.statements.actions:
        raise NotExercisedError(
            "the audit target has no statement `actions`, so what the action carries cannot be read"
        )
    for name, (told, field) in wanted.items():
        if told:
            right = values.text(told)
            found = [getattr(each, field, None) for each in seen.actions]
            wrong = next((each for each in found if each != right), right)
            spelt = _spelt(right, values, ours=ours)
            ctx.expect(name, spelt if wrong == right else discreet(wrong, values, ours=ours), equals=spelt)


def expect_kept(ctx: CheckRecord, path: PathRun, values: Values, seen: Seen) -> TableRows:
    """Compare the rows that the table holds with those that the trail tells of: neither is worth much alone.

    :raises NotExercisedError: when nobody who is given may count them.
    """
    table = rows_there(path, values)
    wanted = written(path, seen)
    ctx.expect(KEPT, wanted if table.loosely == wanted else table.count, equals=wanted)
    return table


def written(path: PathRun, seen: Seen) -> int:
    """Return how many rows the table must hold after what the trail tells of."""
    expected = path.expected
    inserted = [each for each in seen.changes if each.op == "insert"]
    if expected.left is not None:
        return expected.left * max(1, len(inserted) // expected.rows)
    if expected.operation == "insert":
        # a host may put a new row in the place of an old one
        deleted = {spell(each.table_pk) for each in seen.all_changes if each.op == "delete" and each.table_pk}
        return sum(spell(each.table_pk) not in deleted for each in inserted)
    return 0 if expected.operation == "delete" else len(keys_of(seen)) or expected.rows


def keys_of(seen: Seen) -> set[str]:
    return {spell(each.table_pk) for each in seen.changes if each.table_pk}


def rows_there(path: PathRun, values: Values) -> TableRows:
    """Return the rows of the audited table.

    :raises NotExercisedError: when nobody who is given may count them: none seen would mean nothing.
    """
    try:
        return path.in_table(values)
    except RowsNotSeenError as error:
        raise NotExercisedError(
            f"{error}; needed a role of `trail` or `dsn` that may read {path.expected.table} as a whole"
        ) from None


def tell_apart(ctx: CheckRecord, path: PathRun, table: TableRows, *, late: bool) -> None:
    """Record as limits what makes a trail that is right less than certain to be so."""
    limits = []
    if late:
        limits.append("its rows were not in the trail when it answered: they were written later, or are read late")
    together = path.is_of_the_trail(table)
    if together is not None:
        ctx.fact("written with its trail", "by the same transaction" if together else "not shown")
    if together is False:
        limits.append(
            "nothing shows that the row and its trail were written by one transaction: there were two, or savepoints, "
            "or the row was changed again"
        )
    if limits:
        ctx.documented_limit("; ".join(limits), _EXPLAINED)


def _spelt(right: Any, values: Values, *, ours: bool) -> str:
    """Return what is expected as evidence may show it: what was kept from an answer may be anybody's."""
    told = discreet(right, values, ours=ours)
    return "the value that the answer held" if told == ANOTHER else told


def same_actor(found: Any, wanted: dict[str, Any]) -> bool:
    """Say whether a row names an actor; a trail that keeps ids only names its type by convention."""
    return isinstance(found, dict) and holds(found, wanted)
