"""Execution of one check: which status and which reason its result gets."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace
from psycopg import errors

from harness.audit.target_file import TrailFeature
from harness.audit.target_loading import reference_target
from harness.checks import execution, record
from harness.checks.context import CheckContext
from harness.checks.documented import WORKS
from harness.checks.execution import accept_known, prove, run_check, unproven
from harness.checks.judging import Failure
from harness.checks.load import LoadSettings
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import MOVES, P0, Capability, Control, Safety, breaks, check
from harness.errors import ConfigError, EngineUnavailableError, ServiceFailedError, StoreError, TimedOutError
from harness.lab.topologies import load_topologies
from harness.model import EndedBy, FeatureOutcome, KnownIssue, PathLabel, Proof, Section, Severity, Status
from tests.tables import each_row
from tests.unit.made_up import planned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.workspace import Workspace

    Body = Callable[[CheckContext], None]

ROW = planned("direct", "capture.insert")
DIRECT = load_topologies()["direct"]
NO_SERVER = Capability("a server", "there is no server", lambda _topology: False)
PATH = PathLabel(name="posts", title="POST /api/posts", kind="HTTP")


def no_server(_database: str) -> None:
    raise EngineUnavailableError("the engine does not answer")


_ROLE = SimpleNamespace(name="harness_app")
#: servers that nobody started
UNREACHABLE = SimpleNamespace(roles=SimpleNamespace(app=_ROLE, owner=_ROLE), admin=no_server)


class Contexts:
    """A workspace without servers: the checks of these tests do not connect."""

    target = reference_target()
    load = LoadSettings()

    def __init__(
        self,
        failure: str = "",
        *,
        broken: Exception | None = None,
        cleanup: Exception | None = None,
        claims: frozenset[TrailFeature] | None = None,
        on_purpose: bool = False,
    ) -> None:
        if claims is not None:
            self.target = replace(self.target, claims=claims)
        self.failure = Failure(what=failure, on_purpose=on_purpose) if failure else None
        self.broken = broken
        self.cleanup = cleanup
        self.made: list[str] = []

    def own_failure(self, *, read_logs: bool = True) -> Failure | None:
        return self.failure

    @contextmanager
    def context(self, name: str) -> Iterator[CheckContext]:
        if self.broken:
            raise self.broken
        self.made.append(name)
        yield CheckContext(cast("Any", UNREACHABLE), self.target, "none", cast("Any", self))
        if self.cleanup:
            raise self.cleanup

    @contextmanager
    def host_context(self) -> Iterator[CheckContext]:
        with self.context("the host's database") as ctx:
            yield ctx


WORKSPACE = cast("Workspace", Contexts())


def workspace_with(failure: str = "", *, broken: Exception | None = None) -> Workspace:
    return cast("Workspace", Contexts(failure, broken=broken))


def check_of(body: Body, *needs: Any, **traits: Any) -> Any:
    declare = check(
        "capture.insert", claim="it holds", section=Section.CAPTURE, severity=P0, area="x", needs=needs, **traits
    )
    return declare(body)


def control_of(target: Any, body: Body, at: str = "b") -> Control:
    return breaks(target, at=at)(body)


def nothing(_ctx: CheckContext) -> None:
    """Make no expectation."""


def held(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)


def failed(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)
    ctx.expect("b", 1, equals=2)


def failed_twice(ctx: CheckContext) -> None:
    failed(ctx)
    ctx.expect("c", "x", equals="y")


def not_forced(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)
    raise NotExercisedError("could not force a move")


def failed_then_not_forced(ctx: CheckContext) -> None:
    failed(ctx)
    raise NotExercisedError("could not force a move")


def failed_then_not_applicable(ctx: CheckContext) -> None:
    failed(ctx)
    raise NotApplicableError("this version has no such setting")


def not_applicable(_ctx: CheckContext) -> None:
    raise NotApplicableError("this version has no such setting")


def timed_out(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)
    raise TimedOutError("timed out waiting for an answer")


def broken(_ctx: CheckContext) -> None:
    raise KeyError("x")


def failed_then_broken(ctx: CheckContext) -> None:
    failed(ctx)
    raise KeyError("x")


def only_consequences(ctx: CheckContext) -> None:
    ctx.expect("exit code", 1, equals=0, consequence=True)


def telling_last(ctx: CheckContext) -> None:
    only_consequences(ctx)
    ctx.expect("tests that failed", ["adds"], equals=[])


def server_error(_ctx: CheckContext) -> None:
    raise errors.InvalidSqlStatementName("prepared statement p1 does not exist")


def target_error(_ctx: CheckContext) -> None:
    raise ConfigError("statements.purge failed", where="mine.toml:7")


@each_row(
    ("body", "status", "reason"),
    [
        (held, Status.OK, ""),
        (nothing, Status.ISSUE, "the check itself broke: it made no expectation, so it proves nothing"),
        (failed, Status.ISSUE, "b: expected 2, observed 1"),
        (failed_twice, Status.ISSUE, "b: expected 2, observed 1 (and 1 more)"),
        (not_forced, Status.NOT_RUN, "could not force a move"),
        (failed_then_not_forced, Status.ISSUE, "b: expected 2, observed 1"),
        (not_applicable, Status.NA, "this version has no such setting"),
        (failed_then_not_applicable, Status.ISSUE, "b: expected 2, observed 1"),
        (timed_out, Status.NOT_RUN, "timed out waiting for an answer"),
        (broken, Status.ISSUE, "the check itself broke: KeyError: 'x'"),
        (server_error, Status.ISSUE, "the check itself broke: 26000 prepared statement p1 does not exist"),
        (
            target_error,
            Status.ISSUE,
            "statements of the audit target: expected no error, observed mine.toml:7: statements.purge failed",
        ),
        (failed_then_broken, Status.ISSUE, "b: expected 2, observed 1"),
        (telling_last, Status.ISSUE, 'tests that failed: expected [], observed ["adds"]'),
        (only_consequences, Status.ISSUE, "exit code: expected 0, observed 1"),
    ],
)
def test_status_and_reason_follow_from_the_expectations_or_the_exception(
    body: Body, status: Status, reason: str
) -> None:
    result = run_check(check_of(body), ROW, DIRECT, WORKSPACE)
    assert (result.status, result.reason) == (status, reason)
    assert (result.target, result.check, result.reproduce) == (ROW.target, ROW.check, ROW.reproduce)
    assert result.started_at.endswith("Z")


def test_an_error_of_the_harness_in_a_feature_check_is_not_the_fault_of_the_audit_target() -> None:
    result = run_check(check_of(target_error, feature="SET"), ROW, DIRECT, WORKSPACE)
    assert result.reason == "the check itself broke: mine.toml:7: statements.purge failed"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (server_error, "the server reported an error: 26000 prepared statement p1 does not exist"),
        (target_error, "statements.purge failed"),
    ],
)
def test_an_error_in_an_environment_is_not_run(body: Body, reason: str) -> None:
    result = run_check(check_of(body, environment_safety=Safety.READS), ROW, None, WORKSPACE)
    assert (result.status, result.reason) == (Status.NOT_RUN, reason)


def test_the_result_keeps_what_the_check_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def records(ctx: CheckContext) -> None:
        held(ctx)
        ctx.fact("rows", 3)
        ctx.probed("two clients", 11, 11)
        ctx.feature = FeatureOutcome(observed=WORKS, expected=(WORKS,))

    monkeypatch.setattr(execution, "_since", lambda _began: 12.5)
    result = run_check(check_of(records), ROW, DIRECT, WORKSPACE)
    assert (result.duration_ms, result.feature) == (12.5, FeatureOutcome(observed=WORKS, expected=(WORKS,)))
    assert [expectation.name for expectation in result.expectations] == ["a"]
    assert result.facts == {"rows": "3"}
    assert [(probe.first_pid, probe.second_pid) for probe in result.probes] == [(11, 11)]


@pytest.mark.parametrize(("body", "limits", "severities"), [(held, 1, 0), (failed, 0, 1), (not_forced, 0, 0)])
def test_a_limit_belongs_to_ok_and_a_severity_to_an_issue(body: Body, limits: int, severities: int) -> None:
    def records(ctx: CheckContext) -> None:
        ctx.documented_limit("it leaks", "https://example.org/doc")
        ctx.severity = Severity.P1
        body(ctx)

    result = run_check(check_of(records), ROW, DIRECT, WORKSPACE)
    assert (result.limit is not None, result.severity is not None) == (bool(limits), bool(severities))


@pytest.mark.parametrize(
    ("body", "status"),
    [(held, Status.OK), (failed, Status.NOT_RUN), (broken, Status.NOT_RUN), (not_forced, Status.NOT_RUN)],
)
def test_a_failure_of_servers_of_the_harness_is_never_an_issue(body: Body, status: Status) -> None:
    workspace = workspace_with("the file system of the server's data was full")
    result = run_check(check_of(body), ROW, DIRECT, workspace)
    assert result.status is status
    assert ("was full" in result.reason) is (status is Status.NOT_RUN)
    assert (result.ended_by is EndedBy.INFRASTRUCTURE) is (status is Status.NOT_RUN)
    assert not any(expectation.broken for expectation in result.expectations)


@pytest.mark.parametrize(("on_purpose", "proven"), [(True, True), (False, False)])
def test_a_control_may_stop_a_server_and_a_failed_server_proves_nothing(on_purpose: bool, proven: bool) -> None:
    workspace = cast("Workspace", Contexts("the service postgres is not running", on_purpose=on_purpose))
    target = check_of(failed)
    proof = prove(target, control_of(target, nothing), ROW, DIRECT, workspace, Event())
    assert proof.proven is proven
    assert ("is not running" in proof.reason) is not proven


def test_a_check_applies_only_to_a_topology_with_all_it_needs() -> None:
    result = run_check(check_of(held, MOVES), ROW, DIRECT, WORKSPACE)
    assert (result.status, result.reason) == (Status.NA, MOVES.lacking)


def test_a_check_applies_only_to_an_audit_target_that_claims_its_features() -> None:
    target = check_of(failed, requires_features=(TrailFeature.TRUNCATE,))
    workspace = cast("Workspace", Contexts(claims=frozenset()))
    result = run_check(target, ROW, DIRECT, workspace)
    assert (result.status, result.reason) == (Status.NA, TrailFeature.TRUNCATE.unclaimed)
    proof = prove(target, control_of(target, nothing), ROW, DIRECT, workspace, Event())
    assert (proof.applicable, proof.reason) == (False, TrailFeature.TRUNCATE.unclaimed)
    assert run_check(target, ROW, DIRECT, WORKSPACE).status is Status.ISSUE


@pytest.mark.parametrize(("path", "made"), [(None, "capture.insert"), (PATH, "the host's database")])
def test_a_path_uses_the_database_of_the_host(path: PathLabel | None, made: str) -> None:
    contexts = Contexts()
    run_check(check_of(held, path=path), ROW, DIRECT, cast("Workspace", contexts))
    assert contexts.made == [made]


@pytest.mark.parametrize(
    ("failure", "cause"),
    [("", "53100 could not extend file"), ("the file system of the server's data was full", "was full")],
)
def test_a_check_without_a_database_is_not_run(failure: str, cause: str) -> None:
    workspace = workspace_with(failure, broken=errors.DiskFull("could not extend file"))
    result = run_check(check_of(held), ROW, DIRECT, workspace)
    assert result.status is Status.NOT_RUN
    assert result.reason.startswith("no database could be created for the check: ")
    assert result.reason.endswith(cause)
    assert result.expectations == ()


# --- interruptions and deadlines -----------------------------------------------------------------


def interruption() -> Event:
    interrupted = Event()
    interrupted.set()
    return interrupted


@pytest.mark.parametrize("body", [held, failed, broken, not_applicable, server_error, nothing])
def test_an_interrupted_check_is_not_run(body: Body) -> None:
    result = run_check(check_of(body), ROW, DIRECT, WORKSPACE, interrupted=interruption())
    assert (result.status, result.reason) == (Status.NOT_RUN, "the run was interrupted before this check finished")
    assert result.ended_by is EndedBy.INTERRUPTION
    assert not any(expectation.counts for expectation in result.expectations)


def test_an_issue_that_was_seen_before_the_interruption_counts() -> None:
    interrupted = Event()

    def is_interrupted(ctx: CheckContext) -> None:
        failed(ctx)
        interrupted.set()
        ctx.expect("c", 1, equals=2)
        raise ServiceFailedError("the service was removed")

    result = run_check(check_of(is_interrupted), ROW, DIRECT, WORKSPACE, interrupted=interrupted)
    assert (result.status, result.reason) == (Status.ISSUE, "b: expected 2, observed 1")
    assert [expectation.counts for expectation in result.expectations] == [True, True, False]


@pytest.mark.parametrize(
    "error",
    [
        ServiceFailedError("the container is gone"),
        EngineUnavailableError("the engine does not answer"),
        StoreError("the evidence cannot be written"),
        errors.DiskFull("could not extend file"),
    ],
)
def test_an_error_of_infrastructure_is_not_run(error: Exception) -> None:
    def fails(ctx: CheckContext) -> None:
        held(ctx)
        raise error

    def failed_then_fails(ctx: CheckContext) -> None:
        failed(ctx)
        fails(ctx)

    result = run_check(check_of(fails), ROW, DIRECT, WORKSPACE)
    assert (result.status, result.ended_by) == (Status.NOT_RUN, EndedBy.INFRASTRUCTURE)
    before = run_check(check_of(failed_then_fails), ROW, DIRECT, WORKSPACE)
    assert (before.status, before.reason) == (Status.ISSUE, "b: expected 2, observed 1")
    without_context = run_check(check_of(held), ROW, DIRECT, workspace_with(broken=error), interrupted=Event())
    assert (without_context.status, without_context.ended_by) == (Status.NOT_RUN, EndedBy.INFRASTRUCTURE)
    at_the_end = run_check(check_of(held), ROW, DIRECT, cast("Workspace", Contexts(cleanup=error)))
    assert at_the_end.status is Status.OK
    assert "left behind" in at_the_end.facts


@pytest.mark.parametrize(
    ("disrupts", "on_purpose", "status"),
    [
        (True, True, Status.ISSUE),
        (True, False, Status.NOT_RUN),
        (False, True, Status.NOT_RUN),
        (False, False, Status.NOT_RUN),
    ],
)
def test_a_server_that_is_down_explains_an_issue_unless_the_check_ended_it(
    disrupts: bool, on_purpose: bool, status: Status
) -> None:
    workspace = cast("Workspace", Contexts("the service postgres is not running: killed", on_purpose=on_purpose))
    assert run_check(check_of(failed, disrupts=disrupts), ROW, DIRECT, workspace).status is status


def test_a_mistake_in_the_configuration_ends_the_run_unless_the_run_is_interrupted() -> None:
    workspace = workspace_with(broken=ConfigError("invalid"))
    for interrupted in (Event(), None):
        with pytest.raises(ConfigError):
            run_check(check_of(held), ROW, DIRECT, workspace, interrupted=interrupted)
    result = run_check(check_of(held), ROW, DIRECT, workspace, interrupted=interruption())
    assert result.status is Status.NOT_RUN


@pytest.mark.parametrize(
    ("before", "after", "status", "reason"),
    [
        (nothing, broken, Status.NOT_RUN, "the check timed out after 0.05 s"),
        (nothing, failed, Status.NOT_RUN, "the check timed out after 0.05 s"),
        (nothing, held, Status.NOT_RUN, "the check timed out after 0.05 s"),
        (nothing, not_applicable, Status.NOT_RUN, "the check timed out after 0.05 s"),
        (failed, broken, Status.ISSUE, "b: expected 2, observed 1"),
        (failed, held, Status.ISSUE, "b: expected 2, observed 1"),
    ],
)
def test_a_check_that_hangs_times_out(
    monkeypatch: pytest.MonkeyPatch, before: Body, after: Body, status: Status, reason: str
) -> None:
    cut = Event()
    monkeypatch.setattr(record, "cut", lambda _client: cut.set())

    def hangs(ctx: CheckContext) -> None:
        before(ctx)
        ctx._keep(cast("Any", SimpleNamespace(side=None, close=lambda: None)))
        assert cut.wait(10)
        after(ctx)

    result = run_check(replace(check_of(hangs), longest_s=0.05), ROW, DIRECT, WORKSPACE)
    assert (result.status, result.reason, result.ended_by) == (status, reason, EndedBy.TIME_LIMIT)


def test_the_watchdog_ends_with_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Watchdog:
        daemon = False

        def __init__(self, seconds: float, _give_up: object) -> None:
            assert seconds == 90

        def start(self) -> None:
            assert self.daemon is True, "an interrupted run would wait for the deadlines of its checks"
            calls.append("start")

        def cancel(self) -> None:
            calls.append("cancel")

    monkeypatch.setattr(execution, "Timer", Watchdog)
    for body in (held, broken):
        run_check(check_of(body), ROW, DIRECT, WORKSPACE)
    assert calls == ["start", "cancel"] * 2


@pytest.mark.parametrize(("seconds", "duration_ms"), [(0, 0.0), (0.01234, 12.3), (2, 2000.0)])
def test_the_duration_is_in_milliseconds_with_one_decimal(
    monkeypatch: pytest.MonkeyPatch, seconds: float, duration_ms: float
) -> None:
    clock = iter([100.0, 100.0 + seconds])
    monkeypatch.setattr(execution, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert run_check(check_of(held), ROW, DIRECT, WORKSPACE).duration_ms == duration_ms


# --- controls ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "at", "proven", "reason", "seen"),
    [
        (failed, "b", True, "", ["b"]),
        (failed_twice, "c", True, "", ["b", "c"]),
        (failed, "a", False, "the expectation held; the check is Issue: b: expected 2, observed 1", ["b"]),
        (failed, "c", False, "no expectation is named 'c'; the check is Issue: b: expected 2, observed 1", ["b"]),
        (held, "a", False, "the check stayed green under its control", []),
        (
            *(broken, "a", False),
            *("no expectation is named 'a'; the check is Issue: the check itself broke: KeyError: 'x'", []),
        ),
        (not_forced, "a", False, "the expectation held; the check is Not run: could not force a move", []),
    ],
)
def test_a_control_is_proven_only_at_the_expectation_that_it_names(
    body: Body, at: str, proven: bool, reason: str, seen: list[str]
) -> None:
    target = check_of(body)
    proof = prove(target, control_of(target, nothing, at), ROW, DIRECT, WORKSPACE, Event())
    assert (proof.proven, proof.applicable, proof.reason) == (proven, True, reason)
    assert [expectation.name for expectation in proof.broken] == seen
    assert (proof.topology, proof.check, proof.control, proof.at) == ("direct", "capture.insert", "nothing", at)


def test_an_interrupted_control_is_not_proven() -> None:
    target = check_of(failed)
    proof = prove(target, control_of(target, nothing), ROW, DIRECT, WORKSPACE, interruption())
    assert not proof.proven


def test_a_control_is_applied_before_the_check() -> None:
    def sabotaged(ctx: CheckContext) -> None:
        ctx.sabotaged = True

    def observes(ctx: CheckContext) -> None:
        ctx.expect("b", ctx.sabotaged, equals=False)

    target = check_of(observes)
    assert run_check(target, ROW, DIRECT, WORKSPACE).status is Status.OK
    assert prove(target, control_of(target, sabotaged), ROW, DIRECT, WORKSPACE, Event()).proven


def test_a_control_does_not_apply_where_it_or_its_check_does_not() -> None:
    moving, ordinary, absent = check_of(failed, MOVES), check_of(failed), check_of(not_applicable)
    for target, control, reason in [
        (moving, control_of(moving, nothing), MOVES.lacking),
        (ordinary, breaks(ordinary, at="b", needs=(MOVES,))(nothing), MOVES.lacking),
        (absent, control_of(absent, nothing), "this version has no such setting"),
        # the reason of the check is printed, because its control then does not matter
        (moving, breaks(moving, at="b", needs=(NO_SERVER,))(nothing), MOVES.lacking),
    ]:
        proof = prove(target, control, ROW, DIRECT, WORKSPACE, Event())
        assert (proof.proven, proof.applicable, proof.reason) == (False, False, reason)


def test_a_proof_has_its_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    # prove begins, the check begins, the check ends, prove ends
    clock = iter([100.0, 100.25, 100.5, 100.75])
    monkeypatch.setattr(execution, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    target = check_of(failed)
    assert prove(target, control_of(target, nothing), ROW, DIRECT, WORKSPACE, Event()).duration_ms == 750


def test_a_control_that_did_not_run_is_unproven_with_the_reason() -> None:
    proof = unproven(control_of(check_of(failed), nothing), DIRECT, "the check did not run")
    assert proof == Proof(
        topology="direct",
        check="capture.insert",
        control="nothing",
        at="b",
        proven=False,
        applicable=True,
        reason="the check did not run",
    )


def test_a_known_defect_is_proven_by_its_cure() -> None:
    def cured(ctx: CheckContext) -> None:
        ctx.sabotaged = True

    def sees_the_cure(ctx: CheckContext) -> None:
        ctx.expect("outcome", "works" if ctx.sabotaged else "wrong", equals="works")

    def blind(ctx: CheckContext) -> None:
        ctx.expect("outcome", "wrong", equals="works")

    seeing = check_of(sees_the_cure)
    proof = prove(seeing, control_of(seeing, cured, "outcome"), ROW, DIRECT, WORKSPACE, Event(), red_already=True)
    assert (proof.proven, proof.reason) == (True, "")
    target = check_of(blind)
    proof = prove(target, control_of(target, cured, "outcome"), ROW, DIRECT, WORKSPACE, Event(), red_already=True)
    assert not proof.proven
    assert proof.reason.startswith("the defect was cured, and the check is Issue: ")


# --- known Issues --------------------------------------------------------------------------------

LINK = "https://example.org/1"
DEFECT = "https://example.org/defect"


def known_issue(check_id: str = "capture.insert", *topologies: str, owner: str = "ada") -> KnownIssue:
    return KnownIssue(check=check_id, link=LINK, owner=owner, expires="2099-01-01", topologies=topologies)


@pytest.mark.parametrize(
    ("known", "owner"),
    [
        ((), None),
        ((known_issue(),), "ada"),
        ((known_issue("capture.update"),), None),
        ((known_issue("capture.insert", "session", "direct"),), "ada"),
        ((known_issue("capture.insert", "session"),), None),
        ((known_issue("capture.update", "direct"),), None),
        ((known_issue("capture.insert", "session"), known_issue(owner="bob"), known_issue(owner="eve")), "bob"),
    ],
)
def test_an_issue_is_known_by_the_first_entry_for_its_check_and_target(
    known: tuple[KnownIssue, ...], owner: str | None
) -> None:
    result = run_check(check_of(failed), ROW, DIRECT, WORKSPACE)
    accepted = accept_known(result, known)
    assert replace(accepted, known=None) == result
    assert (accepted.known.owner if accepted.known else None) == owner


@pytest.mark.parametrize("body", [held, not_forced, not_applicable])
def test_only_an_issue_is_known(body: Body) -> None:
    result = run_check(check_of(body), ROW, DIRECT, WORKSPACE)
    assert accept_known(result, (known_issue(),)) == result


@pytest.mark.parametrize("known", [(), (known_issue(),)])
def test_a_known_defect_belongs_to_the_pooler_and_does_not_expire(known: tuple[KnownIssue, ...]) -> None:
    defect = FeatureOutcome(observed=WORKS, expected=(WORKS,), source=DEFECT, defect=True)
    result = replace(run_check(check_of(failed), ROW, DIRECT, WORKSPACE), feature=defect)
    accepted = accept_known(result, known)
    assert accepted.known == KnownIssue(check="capture.insert", link=DEFECT, owner="the pooler", expires="")
    assert replace(accepted, known=None) == result


def test_an_unknown_outcome_of_a_feature_is_known_only_by_an_entry() -> None:
    outcome = FeatureOutcome(observed=WORKS, expected=(WORKS,), source=DEFECT)
    result = replace(run_check(check_of(failed), ROW, DIRECT, WORKSPACE), feature=outcome)
    assert accept_known(result, ()) == result
    assert accept_known(result, (known_issue(),)).known == known_issue()
