"""How a check's answer is judged, whatever the check does."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from harness.audit.target_loading import reference_target
from harness.checks.context import CheckContext
from harness.checks.execution import accept_known, prove, run_check, unproven
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import MOVES, P0, breaks, check
from harness.errors import TimedOutError
from harness.lab.topologies import load_topologies
from harness.model import Behaviour, FeatureOutcome, KnownIssue, Outcome, Proof, Section, Status
from tests.unit.made_up import planned, result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.workspace import Workspace

ROW = planned("direct", "capture.insert")
DIRECT = load_topologies()["direct"]


class Empty:
    """A workplace without servers: these checks touch none."""

    target = reference_target()

    def __init__(self, failure: str = "") -> None:
        self._failure = failure

    def own_failure(self) -> str:
        return self._failure

    @contextmanager
    def context(self, _check: str) -> Iterator[CheckContext]:
        yield CheckContext(cast("Any", None), self.target, "none", cast("Any", self))


WORKSPACE = cast("Workspace", Empty())


def made(body: Callable[[CheckContext], None], *needs: Any) -> Any:
    declare = check("capture.insert", claim="it holds", section=Section.CAPTURE, severity=P0, area="x", needs=needs)
    return declare(body)


def nothing(_bench: CheckContext) -> None:
    """Make no expectation."""


def held(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)


def failed(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)
    ctx.expect("b", 1, equals=2)


def not_forced(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)
    raise NotExercisedError("could not force a move")


def failed_then_not_forced(ctx: CheckContext) -> None:
    failed(ctx)
    raise NotExercisedError("could not force a move")


def broken(_bench: CheckContext) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (held, Status.OK, ""),
        (nothing, Status.ISSUE, "made no expectation"),
        (failed, Status.ISSUE, "b: expected 2, observed 1"),
        (not_forced, Status.NOT_RUN, "could not force a move"),
        (failed_then_not_forced, Status.ISSUE, "b: expected 2, observed 1"),
        (broken, Status.ISSUE, "the check itself broke: KeyError"),
    ],
)
def test_a_check_is_judged_by_what_it_saw(body: Callable[[CheckContext], None], status: Status, reason: str) -> None:
    result = run_check(made(body), ROW, DIRECT, WORKSPACE)
    assert result.status is status
    assert reason in result.reason
    assert bool(result.reason) is (status is not Status.OK)


@pytest.mark.parametrize(
    ("body", "status"), [(held, Status.OK), (failed, Status.NOT_RUN), (broken, Status.NOT_RUN), (not_forced, Status.NOT_RUN)]
)
def test_a_failure_of_the_harness_own_servers_is_never_an_issue(body: Callable[[CheckContext], None], status: Status) -> None:
    workspace = cast("Workspace", Empty("the file system of the server's data was full"))
    result = run_check(made(body), ROW, DIRECT, workspace)
    assert result.status is status
    assert ("was full" in result.reason) is (body in {failed, broken})


def test_what_a_topology_lacks_is_na_by_rule() -> None:
    result = run_check(made(held, MOVES), ROW, DIRECT, WORKSPACE)
    assert (result.status, result.reason) == (Status.NA, MOVES.lacking)


def test_an_interrupted_check_is_not_run() -> None:
    interrupted = Event()
    interrupted.set()
    assert run_check(made(failed), ROW, DIRECT, WORKSPACE, interrupted=interrupted).status is Status.NOT_RUN


@pytest.mark.parametrize(
    ("body", "at", "proven", "reason"),
    [
        (failed, "b", True, ""),
        (failed, "a", False, "the expectation held"),
        (failed, "c", False, "no expectation is named 'c'"),
        (held, "a", False, "stayed green"),
        (broken, "a", False, "no expectation is named 'a'"),
    ],
)
def test_a_control_proves_only_at_the_expectation_it_names(
    body: Callable[[CheckContext], None], at: str, proven: bool, reason: str
) -> None:
    target = made(body)
    proof = prove(target, breaks(target, at=at)(nothing), ROW, DIRECT, WORKSPACE, Event())
    assert (proof.proven, proof.applicable) == (proven, True)
    assert reason in proof.reason


def not_there(_bench: CheckContext) -> None:
    raise NotApplicableError("this version has no such setting")


def timed_out(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)
    raise TimedOutError("timed out waiting for an answer")


def test_what_is_not_there_is_not_applicable_with_its_sentence() -> None:
    result = run_check(made(not_there), ROW, DIRECT, WORKSPACE)
    assert (result.status, result.reason) == (Status.NA, "this version has no such setting")


def test_a_deadline_is_not_run_and_never_ok() -> None:
    result = run_check(made(timed_out), ROW, DIRECT, WORKSPACE)
    assert (result.status, result.reason) == (Status.NOT_RUN, "timed out waiting for an answer")


def test_a_check_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Event()
    monkeypatch.setattr(CheckContext, "cut", lambda _bench: cut.set())

    def hangs(_bench: CheckContext) -> None:
        assert cut.wait(10)
        raise ConnectionError("the connection was cut")

    result = run_check(replace(made(hangs), longest_s=0.05), ROW, DIRECT, WORKSPACE)
    assert result.status is Status.NOT_RUN
    assert "given up after 0.05 s" in result.reason


def test_a_known_defect_is_proven_by_its_cure() -> None:
    @breaks(made(nothing), at="outcome")
    def cured(ctx: CheckContext) -> None:
        ctx.sabotaged = True

    def defect(ctx: CheckContext) -> None:
        ctx.expect("outcome", "works" if ctx.sabotaged else "wrong", equals="works")

    proof = prove(made(defect), cured, ROW, DIRECT, WORKSPACE, Event(), red_already=True)
    assert proof.proven

    def blind(ctx: CheckContext) -> None:
        ctx.expect("outcome", "wrong", equals="works")

    proof = prove(made(blind), cured, ROW, DIRECT, WORKSPACE, Event(), red_already=True)
    assert not proof.proven
    assert "the defect was cured" in proof.reason


# --- known Issues ---------------------------------------------------------------------------------------

ISSUE = result("session", "capture.insert", Status.ISSUE, "rows: expected 1, observed 0")


def known(check: str, *topologies: str, owner: str = "ada") -> KnownIssue:
    return KnownIssue(
        check=check, link="https://example.org/1", owner=owner, expires="2099-01-01", topologies=topologies
    )


@pytest.mark.parametrize(
    ("entry", "accepted"),
    [
        (known("capture.insert"), True),
        (known("capture.insert", "session"), True),
        (known("capture.insert", "direct", "session"), True),
        (known("capture.insert", "transaction"), False),
        (known("capture.update"), False),
        (known("capture.update", "session"), False),
        (known("capture"), False),
    ],
)
def test_an_entry_accepts_only_its_check_in_its_topologies(entry: KnownIssue, accepted: bool) -> None:
    found = accept_known(ISSUE, (entry,))
    assert found == replace(ISSUE, known=entry if accepted else None)
    assert found.status is Status.ISSUE


def test_entries_for_other_checks_are_passed_over() -> None:
    entry = known("capture.insert", owner="bob")
    assert accept_known(ISSUE, (known("capture.update"), entry)).known == entry


@pytest.mark.parametrize("status", [Status.OK, Status.NA, Status.NOT_RUN])
def test_only_an_issue_can_be_known(status: Status) -> None:
    found = accept_known(result("session", "capture.insert", status, "why"), (known("capture.insert"),))
    assert found.known is None


@pytest.mark.parametrize("defect", [True, False])
def test_a_defect_of_the_pooler_is_known_without_an_entry(defect: bool) -> None:
    outcome = FeatureOutcome(
        observed=Outcome(behaviour=Behaviour.LEAKS),
        expected=(Outcome(behaviour=Behaviour.WORKS),),
        source="https://example.org/issues/1",
        defect=defect,
    )
    found = accept_known(replace(ISSUE, feature=outcome), ()).known
    assert found == (
        KnownIssue(check="capture.insert", link="https://example.org/issues/1", owner="the pooler", expires="")
        if defect
        else None
    )


# --- proofs ---------------------------------------------------------------------------------------------


def test_an_unproven_control_is_applicable_and_says_why() -> None:
    control = breaks(made(held), at="a")(nothing)
    assert unproven(control, DIRECT, "without a control the check is Issue") == Proof(
        topology="direct",
        check="capture.insert",
        control="nothing",
        at="a",
        proven=False,
        applicable=True,
        reason="without a control the check is Issue",
    )


def test_a_proven_control_needs_no_reason() -> None:
    target = made(failed)
    assert prove(target, breaks(target, at="b")(nothing), ROW, DIRECT, WORKSPACE, Event()).reason == ""


@pytest.mark.parametrize(
    ("needs", "control_needs", "body", "reason"),
    [
        ((MOVES,), (), held, MOVES.lacking),
        ((), (MOVES,), failed, MOVES.lacking),
        ((), (), not_there, "this version has no such setting"),
    ],
)
def test_a_control_that_does_not_apply_is_neither_proven_nor_failed(
    needs: tuple[Any, ...], control_needs: tuple[Any, ...], body: Callable[[CheckContext], None], reason: str
) -> None:
    target = made(body, *needs)
    control = breaks(target, at="b", needs=control_needs)(nothing)
    proof = prove(target, control, ROW, DIRECT, WORKSPACE, Event())
    assert (proof.proven, proof.applicable, proof.reason) == (False, False, reason)
