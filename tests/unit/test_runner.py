"""How a check's answer is judged, whatever the check does."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from harness.audit.target_loading import reference_target
from harness.checks.context import CheckContext
from harness.checks.execution import prove, run_check
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import MOVES, P0, breaks, check
from harness.errors import TimedOutError
from harness.lab.topologies import load_topologies
from harness.model import Section, Status
from tests.unit.made_up import planned

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
    ("body", "at", "proven", "reason", "seen"),
    [
        (failed, "b", True, "", ["b"]),
        (failed, "a", False, "the expectation held", ["b"]),
        (failed, "c", False, "no expectation is named 'c'", ["b"]),
        (held, "a", False, "stayed green", []),
        (broken, "a", False, "no expectation is named 'a'", []),
    ],
)
def test_a_control_proves_only_at_the_expectation_it_names(
    body: Callable[[CheckContext], None], at: str, proven: bool, reason: str, seen: list[str]
) -> None:
    target = made(body)
    proof = prove(target, breaks(target, at=at)(nothing), ROW, DIRECT, WORKSPACE, Event())
    assert (proof.proven, proof.applicable) == (proven, True)
    assert reason in proof.reason
    assert [expectation.name for expectation in proof.broken] == seen


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
    assert "timed out after 0.05 s" in result.reason


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
