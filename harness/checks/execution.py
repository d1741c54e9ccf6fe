"""Running one check, with or without a control, to an honest answer."""

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
    from harness.model import Topology


class ContextSource(Protocol):
    """Where checks are run: a workplace in a lab, or an environment that an operator named."""

    @property
    def target(self) -> AuditTarget: ...
    def context(self, check: str, /) -> AbstractContextManager[CheckContext]: ...
    def host_context(self) -> AbstractContextManager[CheckContext]: ...
    def own_failure(self) -> str:
        """Return what the servers lacked that the harness owed them, in one sentence; "" when they lacked nothing."""
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
    """Run one check in a database of its own; never raises for what the check does.

    OK needs at least one expectation, and all of them held. An unexpected exception is an Issue of the
    check itself. What could not be brought about, or was interrupted, is Not run.
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
        """End the check's connections: whatever it waits for, it hears of it."""
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
            except Exception as error:  # noqa: BLE001 -- whatever a check does, the run goes on and says so
                status, reason = _what_it_means(error, check, ctx)
            else:
                status, reason = _judge(ctx)
            # a control is tried after the check itself was, on the same servers
            if status is Status.ISSUE and control is None and (failure := workspace.own_failure()):
                status, reason = Status.NOT_RUN, f"{failure}; otherwise: {reason}"
    except SqlError as error:
        why = workspace.own_failure() or describe(error)
        status, reason = Status.NOT_RUN, f"no database could be made for the check: {why}"
    except HarnessError as error:
        if not (interrupted and interrupted.is_set()):
            raise
        status, reason = Status.NOT_RUN, error.what  # the lab is being torn down
    finally:
        watchdog.cancel()
    seen = ctx is not None and any(not each.held for each in ctx.expectations)
    if given_up.is_set() and status is not Status.OK and not seen:
        status, reason = Status.NOT_RUN, f"it was given up after {check.longest_s:g} s: {reason}"
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


def _what_it_means(error: Exception, check: Check, ctx: CheckContext) -> tuple[Status, str]:
    """Return what a check that ended with an error has shown."""
    where_others_work = check.environment_safety is not Safety.NO
    status, reason = Status.ISSUE, f"the check itself broke: {type(error).__name__}: {error}"
    match error:
        case NotExercisedError():
            status, reason = Status.NOT_RUN, str(error)
        case TimedOutError():
            status, reason = Status.NOT_RUN, error.what
        case NotApplicableError():
            return Status.NA, str(error)
        case HarnessError() if where_others_work:  # a host that cannot be asked has shown nothing, either way
            status, reason = Status.NOT_RUN, error.what
        case HarnessError():
            whose = "the check itself broke" if check.feature else "the audit target is at fault"
            reason = ": ".join(filter(None, (whose, error.where, error.what)))
        case SqlError() if where_others_work:
            status, reason = Status.NOT_RUN, f"the server refused: {describe(error)}"
        case SqlError():
            reason = f"the check itself broke: {describe(error)}"
    if status is Status.NOT_RUN and any(not each.held for each in ctx.expectations):
        return _judge(ctx)  # what was seen before it stays seen
    return status, reason


def _judge(ctx: CheckContext) -> tuple[Status, str]:
    if not ctx.expectations:
        return Status.ISSUE, "the check itself broke: it made no expectation, so it has proven nothing"
    failed = [each for each in ctx.expectations if not each.held]
    if not failed:
        return Status.OK, ""
    first = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
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
    """Run a check under its control: it is proven when it turns to Issue at the named expectation.

    :param red_already: without the control the check sees a known defect of the pooler; the control cures that, and
        the check has to see it.
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
        reason = "" if proven else f"the defect was cured, and the check said: {result.status}: {result.reason}"
    elif result.status is Status.ISSUE and any(not expectation.held for expectation in named):
        reason, proven = "", True
    elif result.status is Status.OK:
        reason, proven = "the check stayed green under its control", False
    elif not named:
        reason, proven = (
            f"no expectation is named {control.at!r}; the check said: {result.status}: {result.reason}",
            False,
        )
    else:
        reason, proven = f"the expectation held; the check said: {result.status}: {result.reason}", False
    return replace(proof, proven=proven, reason=reason, broken=broken, duration_ms=_since(began))


def unproven(control: Control, topology: Topology, reason: str) -> Proof:
    """Return the record of a control that has not turned its check to Issue."""
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
    """Mark an Issue that its owner accepts, or that is a known defect of the pooler; it stays an Issue."""
    if result.status is not Status.ISSUE:
        return result
    if result.feature and result.feature.defect:
        return replace(
            result, known=KnownIssue(check=result.check, link=result.feature.source, owner="the pooler", expires="")
        )
    for each in known:
        if each.check == result.check and (not each.topologies or result.target in each.topologies):
            return replace(result, known=each)
    return result


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
