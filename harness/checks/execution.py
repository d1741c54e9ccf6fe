"""Execution of one check, with or without a control, to one result."""

from __future__ import annotations

import time
from threading import Event as ThreadEvent
from threading import Timer
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import Safety
from harness.database import SqlError, describe
from harness.errors import HarnessError, TimedOutError
from harness.model import KnownIssue, PlannedCheck, Proof, Result, Status
from harness.store import utc_now

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from threading import Event

    from harness.audit.target import AuditTarget
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.checks.workspace import Workspace
    from harness.model import Expectation, Topology


class ContextSource(Protocol):
    """Where the contexts of checks come from: the workspace of a lab, or an environment that an operator named."""

    @property
    def target(self) -> AuditTarget:
        """The audit target that the checks judge."""
        ...

    def context(self, check: str, /) -> AbstractContextManager[CheckContext]:
        """Return the context of one check, by its id. Everything that the context opened ends with it."""
        ...

    def host_context(self) -> AbstractContextManager[CheckContext]:
        """Return the context of a check that runs a path of the host application."""
        ...

    def own_failure(self) -> str:
        """Return the failure of the harness's own servers, in one sentence; "" when they are healthy."""
        ...


def run_check(
    check: Check,
    row: PlannedCheck,
    topology: Topology | None,
    workspace: ContextSource,
    *,
    control: Control | None = None,
    interrupted: Event | None = None,
) -> Result:
    """Run one check in a context of its own, and return its result. Exceptions of the check become its result.

    OK needs at least one expectation, and all of them must hold. An unexpected exception is an Issue of the check
    itself. A check that could not create its situation, that timed out or that was interrupted is Not run.

    :param row: the planned row that the result answers.
    :param topology: None for an environment.
    :param workspace: makes the context.
    :param control: a deliberate break that is applied before the check.
    :param interrupted: set when the run has to end; the result is then OK or Not run.
    :raises HarnessError: when no context could be made, although the run was not interrupted.
    """
    began, started_at = time.monotonic(), utc_now()
    result = Result(
        target=row.target, check=row.check, status=Status.NOT_RUN, started_at=started_at, reproduce=row.reproduce
    )
    if lacking := check.lacking(topology, workspace.target):
        return replace(result, status=Status.NA, reason=lacking)
    ctx: CheckContext | None = None
    status, reason = Status.NOT_RUN, ""
    given_up = ThreadEvent()

    def give_up() -> None:
        """Break the connections of the check, so that it gets an error wherever it waits."""
        given_up.set()
        if ctx:
            ctx.cut()

    watchdog = Timer(check.longest_s, give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        with workspace.host_context() if check.path else workspace.context(check.id) as ctx:
            try:
                if control:
                    control.apply(ctx)
                check.run(ctx)
            except Exception as error:  # noqa: BLE001 -- any error of a check becomes its result, and the run goes on
                status, reason = _judge_error(error, check, ctx)
            else:
                status, reason = _judge(ctx)
            # not under a control: the check itself ran on the same servers a moment before
            if status is Status.ISSUE and control is None and (failure := workspace.own_failure()):
                status, reason = Status.NOT_RUN, f"{failure}; otherwise: {reason}"
    except SqlError as error:
        cause = workspace.own_failure() or describe(error)
        status, reason = Status.NOT_RUN, f"no database could be created for the check: {cause}"
    except HarnessError as error:
        if not (interrupted and interrupted.is_set()):
            raise
        status, reason = Status.NOT_RUN, error.what  # the lab is being torn down
    finally:
        watchdog.cancel()
    if given_up.is_set() and status is not Status.OK and not (ctx and _broken(ctx)):
        status, reason = Status.NOT_RUN, f"the check timed out after {check.longest_s:g} s: {reason}"
    if interrupted and interrupted.is_set() and status is not Status.OK:
        status, reason = Status.NOT_RUN, "the run was interrupted before this check finished"
    if ctx:
        result = replace(
            result,
            expectations=tuple(ctx.expectations),
            probes=tuple(ctx.probes),
            facts=ctx.facts,
            limit=ctx.limit if status is Status.OK else None,
            feature=ctx.feature,
            severity=ctx.severity if status is Status.ISSUE else None,
        )
    return replace(result, status=status, reason=reason, duration_ms=_since(began))


def _judge_error(error: Exception, check: Check, ctx: CheckContext) -> tuple[Status, str]:
    """Return status and reason of a check that ended with an exception."""
    may_use_environments = check.environment_safety is not Safety.NO
    status, reason = Status.ISSUE, f"the check itself broke: {type(error).__name__}: {error}"
    match error:
        case NotExercisedError():
            status, reason = Status.NOT_RUN, str(error)
        case TimedOutError():
            status, reason = Status.NOT_RUN, error.what
        case NotApplicableError():
            return Status.NA, str(error)
        case HarnessError() if may_use_environments:  # a host that does not answer shows nothing, either way
            status, reason = Status.NOT_RUN, error.what
        case HarnessError():
            cause = "the check itself broke" if check.feature else "the audit target is at fault"
            reason = ": ".join(filter(None, (cause, error.where, error.what)))
        case SqlError() if may_use_environments:
            status, reason = Status.NOT_RUN, f"the server reported an error: {describe(error)}"
        case SqlError():
            reason = f"the check itself broke: {describe(error)}"
    if status is Status.NOT_RUN and _broken(ctx):
        return _judge(ctx)  # an expectation that did not hold before the error still counts
    return status, reason


def _broken(ctx: CheckContext) -> list[Expectation]:
    return [expectation for expectation in ctx.expectations if not expectation.held]


def _judge(ctx: CheckContext) -> tuple[Status, str]:
    """Return status and reason of a check that ended without an exception."""
    if not ctx.expectations:
        return Status.ISSUE, "the check itself broke: it made no expectation, so it proves nothing"
    if not (broken := _broken(ctx)):
        return Status.OK, ""
    first = broken[0]
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    return Status.ISSUE, f"{first.name}: expected {first.expected}, observed {first.observed}{more}"


def prove(
    check: Check,
    control: Control,
    row: PlannedCheck,
    topology: Topology,
    workspace: Workspace,
    interrupted: Event,
    *,
    red_already: bool = False,
) -> Proof:
    """Run a check under its control. The control is proven when the check turns to Issue at the named expectation.

    :param red_already: whether the check finds a known defect of the pooler without the control. The control then cures
        the defect, and is proven when the check turns to OK.
    """
    began = time.monotonic()
    proof = unproven(control, topology, "")
    if lacking := check.lacking(topology, workspace.target) or control.lacking(topology):
        return replace(proof, applicable=False, reason=lacking)
    result = run_check(check, row, topology, workspace, control=control, interrupted=interrupted)
    if result.status is Status.NA:
        return replace(proof, applicable=False, reason=result.reason)
    named = [expectation for expectation in result.expectations if expectation.name == control.at]
    broken = tuple(expectation for expectation in result.expectations if not expectation.held)
    if red_already:
        proven = result.status is Status.OK
        reason = "" if proven else f"the defect was cured, and the check is {result.status}: {result.reason}"
    elif result.status is Status.ISSUE and any(not expectation.held for expectation in named):
        reason, proven = "", True
    elif result.status is Status.OK:
        reason, proven = "the check stayed green under its control", False
    elif not named:
        reason = f"no expectation is named {control.at!r}; the check is {result.status}: {result.reason}"
        proven = False
    else:
        reason, proven = f"the expectation held; the check is {result.status}: {result.reason}", False
    return replace(proof, proven=proven, reason=reason, broken=broken, duration_ms=_since(began))


def unproven(control: Control, topology: Topology, reason: str) -> Proof:
    """Return the proof of a control that did not turn its check to Issue.

    :param reason: why, in one sentence; "" when it is not known yet.
    """
    return Proof(
        topology=topology.name,
        check=control.check,
        control=control.name,
        at=control.at,
        proven=False,
        applicable=True,
        reason=reason,
    )


def accept_known(result: Result, known: tuple[KnownIssue, ...]) -> Result:
    """Mark an Issue that its owner accepts, or that is a known defect of the pooler. It stays an Issue.

    :param known: accepted Issues that have not expired. The first entry for the check and the target counts; an entry
        without topologies is for all of them.
    """
    if result.status is not Status.ISSUE:
        return result
    if result.feature and result.feature.defect:
        return replace(
            result, known=KnownIssue(check=result.check, link=result.feature.source, owner="the pooler", expires="")
        )
    for entry in known:
        if entry.check == result.check and (not entry.topologies or result.target in entry.topologies):
            return replace(result, known=entry)
    return result


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
