"""Execution of one check, with or without a control, to one result."""

from __future__ import annotations

import time
from threading import Event, Timer
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from harness.checks.hanging import HangWatch
from harness.checks.judging import INFRASTRUCTURE_ERRORS, Failure, Verdict, judge
from harness.database import Script, SqlError, describe
from harness.errors import HarnessError
from harness.model import INTERRUPTED, EndedBy, KnownIssue, PlannedCheck, Proof, Quarantine, Result, Status, concerns
from harness.store import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from harness.audit.target import AuditTarget
    from harness.checks.context import CheckContext
    from harness.checks.load import LoadSettings
    from harness.checks.registry import Check, CheckFunction, Control
    from harness.checks.workspace import Workspace
    from harness.model import Topology


class ContextSource(Protocol):
    """Where the contexts of checks come from: the workspace of a lab, or an environment that an operator named."""

    @property
    def target(self) -> AuditTarget:
        """The audit target that the checks judge."""
        ...

    @property
    def load(self) -> LoadSettings:
        """How long loads last."""
        ...

    def context(self, check: str, /) -> AbstractContextManager[CheckContext]:
        """Return the context of one check, by its id. Everything that the context opened ends with it."""
        ...

    def host_context(self) -> AbstractContextManager[CheckContext]:
        """Return the context of a check that runs a path of the host application."""
        ...

    def own_failure(self, *, read_logs: bool = True) -> Failure | None:
        """Return the failure of the harness's own servers; None when they are healthy."""
        ...


def run_check(
    check: Check,
    row: PlannedCheck,
    topology: Topology | None,
    workspace: ContextSource,
    *,
    control: Control | None = None,
    prepare: CheckFunction | None = None,
    interrupted: Event | None = None,
    attempt: int = 1,
) -> Result:
    """Run one check in a context of its own, and return its result. Exceptions of the check become its result.

    :func:`judge` decides. A check that the harness ended, by its time limit or with the run, is Not run unless an
    expectation was broken before that.

    :param row: the planned row that the result answers.
    :param topology: None for an environment.
    :param workspace: makes the context.
    :param control: a deliberate break that is applied before the check.
    :param prepare: runs before the check, and changes nothing that the check sees, such as to watch what it reads.
    :param interrupted: set when the run has to end; no later expectation counts.
    :param attempt: its number, of a row that is tried several times.
    :raises HarnessError: when no context could be made, although the run was not interrupted.
    """
    began, started_at = time.monotonic(), utc_now()
    result = Result(
        target=row.target,
        check=row.check,
        status=Status.NOT_RUN,
        started_at=started_at,
        reproduce=row.reproduce,
        attempt=attempt,
    )
    if lacking := check.lacking(topology, workspace.target):
        return replace(result, status=Status.NA, reason=lacking)
    ctx: CheckContext | None = None
    verdict: Verdict | None = None
    limit_s = check.limit_s(workspace.load.soak_s)

    watch = HangWatch()
    # features of poolers, and programs of others, have writes and deadlines of their own
    judges_writes = topology and not any((check.feature, check.path, check.job, check.ingest, check.own_servers))

    def give_up() -> None:
        if ctx:
            if judges_writes:
                watch.look_last(ctx, limit_s)
            ctx.cut(EndedBy.TIME_LIMIT, f"the check timed out after {limit_s:g} s")

    watchdog = Timer(limit_s, give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        with workspace.host_context() if check.path else workspace.context(check.id) as ctx:
            ctx.check, ctx.control = check.id, control.name if control else ""
            ctx.ends_with(interrupted or Event())
            ctx.attempt_number = attempt
            # of mutated rows and of controls, nobody repeats the statements by hand
            foreign = check.judges_trail and not workspace.target.is_reference
            if topology and foreign and control is None and prepare is None:
                ctx.script = Script()
            if prepare:
                prepare(ctx)
            if judges_writes:
                watch.begin(ctx)
            error = _run_body(check, control, ctx)
            ctx.complete()
            verdict = judge(check, ctx, error, shared=topology is None)
            # the servers of an interrupted check are being removed, which explains nothing about it
            may_have_failed = verdict.ended_by is not EndedBy.INTERRUPTION
            if may_have_failed and verdict.status in {Status.ISSUE, Status.NOT_RUN}:
                # the check itself ran on the same servers a moment before its control, and found room for its data
                failure = workspace.own_failure(read_logs=control is None)
                may_end_servers = check.disrupts or check.own_servers or control is not None
                if failure and not (failure.on_purpose and may_end_servers):
                    verdict = _failed(verdict, ctx, failure)
    except (SqlError, HarnessError) as failed:
        if ctx and verdict:  # the cleanup failed, which changes no verdict
            ctx.left_behind(describe(failed))
        else:
            verdict = _without_context(failed, workspace, interrupted)
    finally:
        watchdog.cancel()
        watch.close()
    if ctx:
        result = replace(
            result,
            expectations=tuple(ctx.expectations),
            probes=tuple(ctx.probes),
            facts=ctx.facts,
            limit=ctx.limit if verdict.status is Status.OK else None,
            feature=ctx.feature,
            severity=ctx.severity if verdict.status is Status.ISSUE else None,
            reproduction=ctx.script.text if ctx.script and verdict.status is Status.ISSUE else "",
        )
    return replace(
        result,
        status=verdict.status,
        reason=verdict.reason,
        ended_by=verdict.ended_by,
        duration_ms=_since(began),
    )


def _run_body(check: Check, control: Control | None, ctx: CheckContext) -> Exception | None:
    """Run the check, after its control if there is one. Return the error that ended it; None when it ran to its end."""
    try:
        if control:
            control.apply(ctx)
        if check.own_servers:
            ctx.record_servers()
        check.run(ctx)
    except Exception as error:  # noqa: BLE001 -- any error of a check becomes its result, and the run goes on
        return error
    return None


def _failed(verdict: Verdict, ctx: CheckContext, failure: Failure) -> Verdict:
    """Return the verdict of a check whose servers failed for another reason than the check."""
    ctx.discount(EndedBy.INFRASTRUCTURE, failure.what)
    return Verdict(
        status=Status.NOT_RUN, reason=f"{failure.what}; otherwise: {verdict.reason}", ended_by=EndedBy.INFRASTRUCTURE
    )


def _without_context(error: SqlError | HarnessError, workspace: ContextSource, interrupted: Event | None) -> Verdict:
    """Return the verdict of a check whose context could not be made.

    :raises HarnessError: for a mistake in the configuration, which every other check would repeat.
    """
    if interrupted and interrupted.is_set():  # the lab is being torn down
        return Verdict(status=Status.NOT_RUN, reason=INTERRUPTED, ended_by=EndedBy.INTERRUPTION)
    if not isinstance(error, (SqlError, *INFRASTRUCTURE_ERRORS)):
        raise error
    failure = workspace.own_failure()
    cause = failure.what if failure else error.what if isinstance(error, HarnessError) else describe(error)
    return Verdict(
        status=Status.NOT_RUN,
        reason=f"no database could be created for the check: {cause}",
        ended_by=EndedBy.INFRASTRUCTURE,
    )


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
    broken = tuple(expectation for expectation in result.expectations if expectation.broken)
    if red_already:
        proven = result.status is Status.OK
        reason = "" if proven else f"the defect was cured, and the check is {result.status}: {result.reason}"
    elif result.status is Status.ISSUE and any(expectation.broken for expectation in named):
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
    entry = next((entry for entry in known if concerns(entry, result.check, result.target)), None)
    return replace(result, known=entry)


def in_quarantine(result: Result, entries: Iterable[Quarantine]) -> Result:
    """Mark a result, whatever its status, if its verdict is known not to be reliable.

    :param entries: those that have not expired. The first entry for the check and the target counts; an entry without
        topologies is for all of them.
    """
    entry = next((entry for entry in entries if concerns(entry, result.check, result.target)), None)
    return replace(result, quarantine=entry)


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
