"""Which Issues are accepted as known, and what a proof says."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from harness.audit.target_loading import reference_target
from harness.checks.context import CheckContext
from harness.checks.execution import accept_known, prove, unproven
from harness.checks.load import LoadSettings
from harness.checks.record import NotApplicableError
from harness.checks.registry import MOVES, P0, breaks, check
from harness.lab.topologies import load_topologies
from harness.model import Behaviour, FeatureOutcome, KnownIssue, Outcome, Proof, Section, Status
from tests.unit.made_up import planned, result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.workspace import Workspace

ROW = planned("direct", "capture.insert")
DIRECT = load_topologies()["direct"]


class NoServers:
    """A workspace without servers: these checks connect to none."""

    target = reference_target()
    load = LoadSettings()

    def own_failure(self, *, read_logs: bool = True) -> None:
        return None

    @contextmanager
    def context(self, _check: str) -> Iterator[CheckContext]:
        yield CheckContext(cast("Any", None), self.target, "none", cast("Any", self))


WORKSPACE = cast("Workspace", NoServers())


def made(body: Callable[[CheckContext], None], *needs: Any) -> Any:
    declare = check("capture.insert", claim="it holds", section=Section.CAPTURE, severity=P0, area="x", needs=needs)
    return declare(body)


def nothing(_ctx: CheckContext) -> None:
    """Make no expectation."""


def held(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)


def failed(ctx: CheckContext) -> None:
    ctx.expect("a", 1, equals=1)
    ctx.expect("b", 1, equals=2)


def not_there(_ctx: CheckContext) -> None:
    raise NotApplicableError("this version has no such setting")


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
