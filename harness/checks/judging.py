"""The judgement of one check: a pure function of its record, and of the error that ended it.

Three causes end a check. Its subject (the application's statements, the audit target, the pooler): that is an
observation. The harness itself (its time limit, an interrupted run, a failed service): no later expectation counts. A
mistake in the harness: the check itself broke.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.statements import statement_of
from harness.checks.record import Ended, NotApplicableError, NotExercisedError
from harness.checks.registry import Safety
from harness.database import Side, SqlError, describe_in_full, is_lost, origin_of, raised_within
from harness.errors import (
    EngineUnavailableError,
    HarnessError,
    ImageUnavailableError,
    InterruptedRunError,
    ServiceFailedError,
    StoreError,
    TimedOutError,
    UsageError,
)
from harness.model import CHECK_BROKE, EndedBy, Expectation, Status
from harness.wire.messages import ClosedError, LoginError, NotPostgresError, ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.checks.record import CheckRecord
    from harness.checks.registry import Check

#: errors of a server or pooler, as the two clients of the harness raise them
ANSWER_ERRORS = (SqlError, ServerError, ClosedError, NotPostgresError, LoginError)
#: errors of the harness's own servers and of its evidence
INFRASTRUCTURE_ERRORS = (ServiceFailedError, EngineUnavailableError, ImageUnavailableError, StoreError)

#: the names of the expectation that an error breaks, by the side of the statement
STATEMENTS = {
    Side.APPLICATION: "statements of the application",
    Side.TARGET: "statements of the audit target",
    Side.HARNESS: "statements on the audited tables",
}
_NO_ERROR = "no error"

#: insufficient resources, and errors of the operating system: the machine is too small or too full
_MACHINE = ("53", "58")
#: the end of the context of an error that a PL/pgSQL function raised itself, with the SQLSTATE that it chose
_RAISE = "at RAISE"
#: errors that depend on the data and on what triggers and constraints do with it, on whatever connection
_OF_THE_DATA = ("09", "21", "22", "23", "27", "2D", "38", "39", "40", "44", "P0", "42501")
#: errors of DDL on an audited table that objects of the trail depend on, or whose triggers are still to fire
_OF_THE_TABLE = ("2BP01", "55006", "0A000")
#: errors in the text of a statement, which the harness wrote: syntax and types
_OF_THE_TEXT = ("42601", "42P02", "42P18", "42804")


class Cause(Enum):
    """The cause of an error that ended a check."""

    #: what is judged
    SUBJECT = auto()
    #: a service or the machine
    INFRASTRUCTURE = auto()
    #: a mistake in the harness
    HARNESS = auto()


class Verdict(Struct, frozen=True, kw_only=True):
    """The judgement of a check."""

    status: Status
    #: empty for OK
    reason: str = ""
    ended_by: EndedBy | None = None


class Failure(Struct, frozen=True, kw_only=True):
    """A failure of the harness's own servers."""

    #: one sentence without a full stop
    what: str
    #: whether a check ended the server on purpose
    on_purpose: bool = False


def cause_of(error: BaseException) -> Cause:
    """Return the cause of an error that a server or pooler raised: by its SQLSTATE, and by where it was raised."""
    if not isinstance(error, SqlError):
        return Cause.SUBJECT if isinstance(error, ANSWER_ERRORS) else Cause.HARNESS
    state, side = error.sqlstate or "", _side_of(error)
    within = raised_within(error)
    if state.startswith(_MACHINE) and not within.endswith(_RAISE):
        return Cause.INFRASTRUCTURE
    if within:
        return Cause.SUBJECT
    if is_lost(error):
        return Cause.INFRASTRUCTURE if side is Side.HARNESS else Cause.SUBJECT
    of_the_subject = {
        Side.APPLICATION: bool(state) and state not in _OF_THE_TEXT,
        Side.TARGET: True,
        Side.HARNESS: state.startswith((*_OF_THE_DATA, *_OF_THE_TABLE)),
    }
    return Cause.SUBJECT if of_the_subject[side] else Cause.HARNESS


def _side_of(error: BaseException) -> Side:
    """Return the side of an answer. Only probes of the application's connection read the wire themselves."""
    if not isinstance(error, SqlError):
        return Side.APPLICATION
    origin = origin_of(error)
    return origin.side if origin else Side.HARNESS


def judge(check: Check, record: CheckRecord, error: Exception | None, *, shared: bool = False) -> Verdict:
    """Judge a check that ended, and record the expectation that an error of its subject breaks.

    OK needs at least one expectation, and all must hold. An expectation that was broken before the harness ended the
    check, or before the check found that it does not apply, still counts; without one the check is Not run or N/A.

    :param error: the exception that ended the check; None when it ran to its end.
    :param shared: whether the servers are an operator's.
    """
    seen_broken = any(expectation.broken for expectation in record.expectations)
    if record.ended is None and isinstance(error, NotApplicableError) and not seen_broken:
        return Verdict(status=Status.NA, reason=str(error))
    mistake = ""
    if error and record.ended is None:
        match _read(error, check, record, shared=shared):
            case Ended() as ended:
                record.ended = ended
            case str() as mistake:
                pass
    ended_by = record.ended.by if record.ended else None
    if broken := [expectation for expectation in record.expectations if expectation.broken]:
        return Verdict(status=Status.ISSUE, reason=reason_of(broken), ended_by=ended_by)
    if record.ended:
        return Verdict(status=Status.NOT_RUN, reason=record.ended.reason, ended_by=ended_by)
    if mistake:
        return Verdict(status=Status.ISSUE, reason=f"{CHECK_BROKE}: {mistake}")
    if not record.expectations:
        reason = f"{CHECK_BROKE}: it made no expectation, so it proves nothing"
        return Verdict(status=Status.ISSUE, reason=reason)
    return Verdict(status=Status.OK)


def reason_of(broken: Sequence[Expectation]) -> str:
    """Return the broken expectation that shows most: the first that does not follow from others, else the first."""
    causes = [expectation for expectation in broken if not expectation.consequence] or broken[:1]
    chosen = causes[0]
    more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
    return f"{chosen.name}: expected {chosen.expected}, observed {chosen.observed}{more}"


def _read(error: Exception, check: Check, record: CheckRecord, *, shared: bool) -> Ended | str:
    """Return how an error ended a check, or the mistake in the harness that it shows; "" for an error of the subject.

    An error of the subject breaks an expectation, which is recorded here.
    """
    found: Ended | str = ""
    may_be_shared = check.environment_safety is not Safety.NO
    match error:
        case NotExercisedError():
            found = Ended(None, str(error))
        case TimedOutError():
            found = Ended(None, error.what)
        case InterruptedRunError():
            found = Ended(EndedBy.INTERRUPTION, error.what)
        case HarnessError() if isinstance(error, INFRASTRUCTURE_ERRORS):
            found = Ended(None if shared else EndedBy.INFRASTRUCTURE, error.what)
        case _ if isinstance(error, ANSWER_ERRORS):
            found = _read_answer(error, record, may_be_shared=may_be_shared)
        case HarnessError() if may_be_shared:  # a host that does not answer shows nothing, either way
            found = Ended(None, error.what)
        case UsageError():
            found = error.what
        case HarnessError():
            said = ": ".join(filter(None, (error.where, error.what)))
            if check.feature:
                found = said
            else:
                record.expect(STATEMENTS[Side.TARGET], said, equals=_NO_ERROR)
        case _:
            found = f"{type(error).__name__}: {error}"
    return found


def _read_answer(error: Exception, record: CheckRecord, *, may_be_shared: bool) -> Ended | str:
    cause, said = cause_of(error), describe_answer(error)
    # the role that an operator gave may lack rights, and that shows nothing about the trail
    if may_be_shared and not (cause is Cause.SUBJECT and raised_within(error)):
        return Ended(None, f"the server reported an error: {said}")
    if cause is Cause.INFRASTRUCTURE:
        return Ended(EndedBy.INFRASTRUCTURE, f"the server did not serve the check: {said}")
    if cause is Cause.HARNESS:
        return said
    side = _side_of(error)
    if side is Side.APPLICATION and raised_within(error):
        # the application calls no function of the trail itself, unless it declares its actor by one
        declares = " or the declaration of its actor" if record.target.actor.declare else ""
        said = f"the audited write{declares} failed: {said}"
    record.expect(STATEMENTS[side], said, equals=_NO_ERROR)
    return ""


def describe_answer(error: Exception) -> str:
    """Return an error of a server as the evidence spells it, with the target's statement and the raising function."""
    if not isinstance(error, SqlError):
        return str(getattr(error, "what", error))
    return ": ".join(filter(None, (statement_of(error), describe_in_full(error))))
