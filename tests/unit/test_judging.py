"""The judgement of a check: nothing that the harness does itself counts as an observation."""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from psycopg import InterfaceError, OperationalError, ProgrammingError, errors
from psycopg.pq import DiagnosticField

from harness.audit.target_loading import reference_target
from harness.checks.context import CheckContext
from harness.checks.judging import Cause, Verdict, cause_of, judge
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import P0, Safety, check
from harness.database import Origin, Side, SqlError, origin_of, raised_for
from harness.errors import (
    ConfigError,
    EngineUnavailableError,
    InterruptedRunError,
    ServiceFailedError,
    StoreError,
    TimedOutError,
    UsageError,
)
from harness.model import EndedBy, Expectation, Section, Status
from harness.wire.messages import ClosedError, NotPostgresError, ServerError
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.registry import Check


def made(*, environment_safety: Safety = Safety.NO, feature: str = "") -> Check:
    declare = check(
        "capture.insert",
        claim="it holds",
        section=Section.CAPTURE,
        severity=P0,
        area="x",
        feature=feature,
        environment_safety=environment_safety,
    )
    return declare(lambda _ctx: None)


def record() -> CheckContext:
    return CheckContext(cast("Any", None), reference_target(), "none", cast("Any", None))


def raised(error: SqlError, side: Side, *, closed: bool = False) -> SqlError:
    vars(error)["harness_origin"] = Origin(side, closed)
    return error


def interrupts(ctx: CheckContext) -> None:
    interrupted = Event()
    ctx.ends_with(interrupted)
    interrupted.set()


#: every way in which the harness ends a check, and the cause that the result names
ACTIONS: dict[str, tuple[Callable[[CheckContext], object], EndedBy]] = {
    "its own time limit": (lambda ctx: ctx.cut(EndedBy.TIME_LIMIT, "timed out"), EndedBy.TIME_LIMIT),
    "a signal": (interrupts, EndedBy.INTERRUPTION),
    "cut connections of an interrupted run": (
        lambda ctx: ctx.cut(EndedBy.INTERRUPTION, "interrupted"),
        EndedBy.INTERRUPTION,
    ),
    "a failed service": (lambda ctx: ctx.end(EndedBy.INFRASTRUCTURE, "a service failed"), EndedBy.INFRASTRUCTURE),
}
ENDS: list[Exception | None] = [
    None,
    KeyError("x"),
    NotExercisedError("not forced"),
    NotApplicableError("no such setting"),
    TimedOutError("no answer"),
    ServiceFailedError("gone"),
    ConfigError("statements.purge failed"),
    raised(OperationalError("server closed the connection unexpectedly"), Side.APPLICATION, closed=True),
    raised(errors.ForeignKeyViolation("a row is missing"), Side.APPLICATION),
    ClosedError("the server closed the connection"),
]
expectations = st.lists(st.booleans(), max_size=5)


@given(
    before=expectations,
    after=expectations,
    action=st.sampled_from(sorted(ACTIONS)),
    end=st.sampled_from(ENDS),
    safety=st.sampled_from(list(Safety)),
    feature=st.sampled_from(["", "LISTEN"]),
    shared=st.booleans(),
)
def test_no_expectation_counts_that_was_made_after_the_harness_ended_the_check(
    before: list[bool],
    after: list[bool],
    action: str,
    end: Exception | None,
    safety: Safety,
    feature: str,
    shared: bool,
) -> None:
    ctx = record()
    for number, held in enumerate(before):
        ctx.expect(f"before {number}", held, equals=True)
    act, ended_by = ACTIONS[action]
    act(ctx)
    for number, held in enumerate(after):
        ctx.expect(f"after {number}", held, equals=True)
    ctx.complete()
    verdict = judge(made(environment_safety=safety, feature=feature), ctx, end, shared=shared)
    assert verdict.status is (Status.NOT_RUN if all(before) else Status.ISSUE)
    assert verdict.reason
    assert "after" not in verdict.reason
    assert verdict.ended_by is ended_by
    assert [expectation.counts for expectation in ctx.expectations] == [True] * len(before) + [False] * len(after)


@given(held=st.lists(st.booleans(), min_size=1, max_size=5), action=st.sampled_from(sorted(ACTIONS)))
def test_an_action_after_the_end_of_a_check_changes_nothing(held: list[bool], action: str) -> None:
    ctx = record()
    for number, value in enumerate(held):
        ctx.expect(f"fact {number}", value, equals=True)
    ctx.complete()
    ACTIONS[action][0](ctx)
    verdict = judge(made(), ctx, None)
    assert verdict.status is (Status.OK if all(held) else Status.ISSUE)
    assert (verdict.ended_by, ctx.ended) == (None, None)


@given(kinds=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_the_reason_names_the_first_broken_expectation_that_follows_from_no_other(
    kinds: list[tuple[bool, bool]],
) -> None:
    ctx = record()
    for number, (held, consequence) in enumerate(kinds):
        ctx.expect(f"fact {number}", held, equals=True, consequence=consequence)
    ctx.complete()
    reason = judge(made(), ctx, None).reason
    broken = [(consequence, number) for number, (held, consequence) in enumerate(kinds) if not held]
    if broken:
        assert reason.startswith(f"fact {min(broken)[1]}: expected true, observed false")
        # what follows from the named one is no further cause
        causes = sum(not consequence for consequence, _ in broken) or 1
        assert reason.endswith(f"(and {causes - 1} more)" if causes > 1 else "observed false")
    else:
        assert reason == ""


@given(held=st.lists(st.booleans(), max_size=5))
def test_a_check_that_finds_that_it_does_not_apply_hides_no_broken_expectation(held: list[bool]) -> None:
    ctx = record()
    for number, value in enumerate(held):
        ctx.expect(f"fact {number}", value, equals=True)
    verdict = judge(made(), ctx, NotApplicableError("no such setting"))
    if all(held):
        assert (verdict.status, verdict.reason) == (Status.NA, "no such setting")
    else:
        assert verdict.status is Status.ISSUE
        assert verdict.reason.startswith(f"fact {held.index(False)}: expected true, observed false")


def test_the_first_action_is_the_cause() -> None:
    ctx = record()
    ctx.cut(EndedBy.TIME_LIMIT, "timed out")
    interrupts(ctx)
    ctx.complete()
    verdict = judge(made(), ctx, None)
    assert (verdict.ended_by, verdict.reason) == (EndedBy.TIME_LIMIT, "timed out")


def test_what_the_end_of_a_check_shows_counts_until_the_check_has_ended_itself() -> None:
    shown = Expectation(name="writes", expected="done", observed="it waits", held=False)
    running, complete = record(), record()
    running.cut(EndedBy.TIME_LIMIT, "it hangs", shown)
    complete.complete()
    complete.cut(EndedBy.TIME_LIMIT, "it hangs", shown)
    assert judge(made(), running, NotExercisedError("cut")).reason == "writes: expected done, observed it waits"
    assert (complete.expectations, complete.ended) == ([], None)


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_time_that_a_check_lets_pass_ends_with_the_check(action: str) -> None:
    ctx = record()
    disturbing = Thread(target=ACTIONS[action][0], args=(ctx,))
    disturbing.start()
    with pytest.raises(NotExercisedError):
        ctx.let_pass(3600)
    disturbing.join()


# --- errors of servers ---------------------------------------------------------------------------------

S, T, H = Side.APPLICATION, Side.TARGET, Side.HARNESS
NO_EXPECTATION = "it made no expectation, so it proves nothing"


@each_row(
    ("error", "side", "cause"),
    [
        # what a trigger raises, on whatever connection
        (errors.ExclusionViolation("x"), S, Cause.SUBJECT),
        (errors.ExclusionViolation("x"), H, Cause.SUBJECT),
        (errors.ForeignKeyViolation("x"), H, Cause.SUBJECT),
        (errors.InsufficientPrivilege("x"), S, Cause.SUBJECT),
        (errors.InsufficientPrivilege("x"), H, Cause.SUBJECT),
        (errors.RaiseException("x"), S, Cause.SUBJECT),
        (errors.DatetimeFieldOverflow("x"), S, Cause.SUBJECT),
        (errors.SerializationFailure("x"), S, Cause.SUBJECT),
        # what a pooler or the server answers to the application
        (errors.InvalidSqlStatementName("x"), S, Cause.SUBJECT),
        (errors.DuplicatePreparedStatement("x"), S, Cause.SUBJECT),
        (errors.UndefinedTable("x"), S, Cause.SUBJECT),
        (errors.ProtocolViolation("x"), S, Cause.SUBJECT),
        (errors.AdminShutdown("x"), S, Cause.SUBJECT),
        (errors.QueryCanceled("x"), S, Cause.SUBJECT),
        (errors.InternalError_("x"), S, Cause.SUBJECT),
        (OperationalError("server closed the connection unexpectedly"), S, Cause.SUBJECT),
        (InterfaceError("the connection is closed"), S, Cause.SUBJECT),
        # what the audit target's own statements raise, whatever their mistake
        (errors.UndefinedColumn("x"), T, Cause.SUBJECT),
        (errors.SyntaxError("x"), T, Cause.SUBJECT),
        # the harness's own connections
        (OperationalError("server closed the connection unexpectedly"), H, Cause.INFRASTRUCTURE),
        (errors.AdminShutdown("x"), H, Cause.INFRASTRUCTURE),
        (errors.UndefinedTable("x"), H, Cause.HARNESS),
        (errors.InvalidPassword("x"), H, Cause.HARNESS),
        # the text of a statement, which the harness wrote
        (errors.SyntaxError("x"), S, Cause.HARNESS),
        (errors.DatatypeMismatch("x"), S, Cause.HARNESS),
        (ProgrammingError("the query has 1 placeholder but 2 parameters were passed"), S, Cause.HARNESS),
        # the machine
        (errors.DiskFull("x"), S, Cause.INFRASTRUCTURE),
        (errors.OutOfMemory("x"), H, Cause.INFRASTRUCTURE),
        (errors.IoError("x"), S, Cause.INFRASTRUCTURE),
    ],
)
def test_the_cause_of_an_sql_error_follows_from_its_sqlstate_and_its_connection(
    error: SqlError, side: Side, cause: Cause
) -> None:
    assert cause_of(raised(error, side)) is cause


def within(kind: type[SqlError], context: str) -> SqlError:
    """Return an error with the server's account of where it was raised."""
    return kind("x", info={int(DiagnosticField.CONTEXT): context.encode()})


CALLED = 'SQL statement "INSERT INTO trail"\nPL/pgSQL function capture() line 9 at SQL statement'
CHOSEN = "PL/pgSQL function capture() line 3 at RAISE"


@each_row(
    ("error", "side", "cause"),
    [
        # a trigger belongs to the subject, whatever its mistake, and whichever connection fires it
        (within(errors.UndefinedTable, CALLED), H, Cause.SUBJECT),
        (within(errors.SyntaxError, CALLED), S, Cause.SUBJECT),
        (within(errors.SqlclientUnableToEstablishSqlconnection, CALLED), H, Cause.SUBJECT),
        # a full disk is one of the machine, unless the function chose the SQLSTATE
        (within(errors.DiskFull, CALLED), S, Cause.INFRASTRUCTURE),
        (within(errors.IoError, CALLED), T, Cause.INFRASTRUCTURE),
        (within(errors.DiskFull, CHOSEN), H, Cause.SUBJECT),
        (within(errors.IoError, f"{CHOSEN}\n{CALLED}"), S, Cause.SUBJECT),
        # another context than a function
        (within(errors.UndefinedTable, "COPY posts, line 1"), H, Cause.HARNESS),
    ],
)
def test_an_error_inside_a_function_is_of_the_subject(error: SqlError, side: Side, cause: Cause) -> None:
    assert cause_of(raised(error, side)) is cause


def test_an_error_of_another_library_is_of_the_harness() -> None:
    assert cause_of(errors.UndefinedTable("x")) is Cause.HARNESS
    assert cause_of(errors.NotNullViolation("x")) is Cause.SUBJECT
    assert cause_of(KeyError("x")) is Cause.HARNESS


def test_an_actor_that_is_declared_by_a_function_may_be_what_failed() -> None:
    ctx = record()
    ctx.target = replace(ctx.target, actor=replace(ctx.target.actor, declare="SELECT audit.begin({type}, {id})"))
    reason = judge(made(), ctx, raised(within(errors.DivisionByZero, CHOSEN), S)).reason
    assert "observed the audited write or the declaration of its actor failed: 22012 x" in reason


CAPTURE = (
    "statements of the application: expected no error, observed the audited write failed: 22012 x (PL/pgSQL function capture() line 3 at RAISE)"
)
DIVISION = raised(within(errors.DivisionByZero, CHOSEN), S)


@each_row(
    ("error", "safety", "feature", "verdict"),
    [
        (DIVISION, Safety.NO, "", Verdict(status=Status.ISSUE, reason=CAPTURE)),
        (DIVISION, Safety.READS, "", Verdict(status=Status.ISSUE, reason=CAPTURE)),
        (
            NotPostgresError("no message of PostgreSQL", where="127.0.0.1:1", hint="name another port"),
            Safety.NO,
            "",
            Verdict(
                status=Status.ISSUE,
                reason="statements of the application: expected no error, observed no message of PostgreSQL",
            ),
        ),
        # an operator's server may refuse anything
        (
            ClosedError("the server closed the connection"),
            Safety.READS,
            "",
            Verdict(status=Status.NOT_RUN, reason="the server reported an error: the server closed the connection"),
        ),
        # the role that an operator gave may lack rights
        (
            raised(errors.InsufficientPrivilege("x"), S),
            Safety.READS,
            "",
            Verdict(status=Status.NOT_RUN, reason="the server reported an error: 42501 x"),
        ),
        (
            raised(errors.DiskFull("x"), S),
            Safety.NO,
            "",
            Verdict(
                status=Status.NOT_RUN,
                reason="the server did not serve the check: 53100 x",
                ended_by=EndedBy.INFRASTRUCTURE,
            ),
        ),
        (
            raised(errors.UndefinedColumn("x"), T),
            Safety.NO,
            "",
            Verdict(status=Status.ISSUE, reason="statements of the audit target: expected no error, observed 42703 x"),
        ),
        (
            raised(errors.NotNullViolation("x"), H),
            Safety.NO,
            "",
            Verdict(
                status=Status.ISSUE, reason="statements on the audited tables: expected no error, observed 23502 x"
            ),
        ),
        (
            raised(errors.SyntaxError("x"), S),
            Safety.NO,
            "",
            Verdict(status=Status.ISSUE, reason="the check itself broke: 42601 x"),
        ),
        (
            ClosedError("the server closed the connection"),
            Safety.NO,
            "",
            Verdict(
                status=Status.ISSUE,
                reason="statements of the application: expected no error, observed the server closed the connection",
            ),
        ),
        # errors of the harness's own modules
        (NotExercisedError("not forced"), Safety.NO, "", Verdict(status=Status.NOT_RUN, reason="not forced")),
        (TimedOutError("no answer"), Safety.NO, "", Verdict(status=Status.NOT_RUN, reason="no answer")),
        (
            InterruptedRunError("stopped"),
            Safety.NO,
            "",
            Verdict(status=Status.NOT_RUN, reason="stopped", ended_by=EndedBy.INTERRUPTION),
        ),
        (
            ServiceFailedError("gone"),
            Safety.NO,
            "",
            Verdict(status=Status.NOT_RUN, reason="gone", ended_by=EndedBy.INFRASTRUCTURE),
        ),
        (
            ConfigError("no such table", where="trail.toml"),
            Safety.NO,
            "",
            Verdict(
                status=Status.ISSUE,
                reason="statements of the audit target: expected no error, observed trail.toml: no such table",
            ),
        ),
        (
            ConfigError("no such table", where="trail.toml"),
            Safety.NO,
            "LISTEN",
            Verdict(status=Status.ISSUE, reason="the check itself broke: trail.toml: no such table"),
        ),
        (
            ConfigError("no such host"),
            Safety.PATH,
            "",
            Verdict(status=Status.NOT_RUN, reason="no such host"),
        ),
        (
            UsageError("no such option"),
            Safety.NO,
            "",
            Verdict(status=Status.ISSUE, reason="the check itself broke: no such option"),
        ),
        (KeyError("x"), Safety.NO, "", Verdict(status=Status.ISSUE, reason="the check itself broke: KeyError: 'x'")),
        (None, Safety.NO, "", Verdict(status=Status.ISSUE, reason=f"the check itself broke: {NO_EXPECTATION}")),
    ],
)
def test_the_verdict_of_a_check_without_an_expectation_follows_from_the_error_that_ended_it(
    error: Exception | None, safety: Safety, feature: str, verdict: Verdict
) -> None:
    assert judge(made(environment_safety=safety, feature=feature), record(), error) == verdict


@pytest.mark.parametrize("error", [ServerError("08P01", "x"), ClosedError("x"), NotPostgresError("x")])
def test_errors_on_the_wire_are_of_the_subject(error: Exception) -> None:
    assert cause_of(error) is Cause.SUBJECT
    ctx = record()
    verdict = judge(made(), ctx, error)
    assert verdict.status is Status.ISSUE
    assert verdict.reason.startswith("statements of the application: expected no error, observed ")


def test_a_mistake_in_the_harness_is_called_one() -> None:
    for error in (KeyError("x"), raised(errors.SyntaxError("x"), Side.HARNESS)):
        ctx = record()
        verdict = judge(made(), ctx, error)
        assert verdict.status is Status.ISSUE
        assert verdict.reason.startswith("the check itself broke: ")
        assert not ctx.expectations


@pytest.mark.parametrize("error", [EngineUnavailableError("gone"), ServiceFailedError("gone"), StoreError("full")])
@pytest.mark.parametrize(("shared", "ended_by"), [(False, EndedBy.INFRASTRUCTURE), (True, None)])
def test_a_failure_of_the_harness_is_of_its_infrastructure_only_where_that_is_its_own(
    error: Exception, shared: bool, ended_by: EndedBy | None
) -> None:
    verdict = judge(made(environment_safety=Safety.READS), record(), error, shared=shared)
    assert (verdict.status, verdict.ended_by) == (Status.NOT_RUN, ended_by)


def test_a_statement_of_the_audit_target_is_of_the_subject_but_a_lost_connection_keeps_its_side() -> None:
    for error, side in (
        (errors.UndefinedColumn("x"), Side.TARGET),
        (OperationalError("the connection is lost"), Side.HARNESS),
    ):
        with pytest.raises(SqlError) as caught, raised_for(Side.TARGET):
            raise raised(error, Side.HARNESS)
        origin = origin_of(caught.value)
        assert origin
        assert origin.side is side
