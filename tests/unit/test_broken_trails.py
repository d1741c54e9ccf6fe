"""Faulty variants of sound trails are judged by the checks that are OK on the sound one, until one notices the fault."""

from __future__ import annotations

from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from harness.checks import broken_trails
from harness.checks.broken_trails import BrokenTrails, JudgedTrail, JudgedVariant, Outcome
from harness.checks.judging import Failure
from harness.errors import HarnessError
from harness.lab.topologies import load_topologies
from harness.model import Expectation, Result, Status
from harness.mutants.variants import chosen
from harness.places import TOPOLOGIES
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.audit.target import AuditTarget
    from harness.checks.registry import Check
    from harness.model import PlannedCheck

LAB = cast("Any", SimpleNamespace(topology=load_topologies(TOPOLOGIES)["direct"], is_closed=True, required=()))
[VARIANT] = chosen(["row-json/deletes-not-in-the-trigger"])
NOTICES = "capture.delete"


class Provisioned:
    """A workspace without servers."""

    def __init__(self, _lab: object, target: AuditTarget, _fixtures: object, *, template: str) -> None:
        self.target = target
        assert template

    def close(self) -> None:
        """Close nothing."""


def judged(
    monkeypatch: pytest.MonkeyPatch, on_variant: Callable[[str], Result], on_sound: Callable[[str], Result] | None = None
) -> tuple[JudgedTrail, JudgedVariant, list[str]]:
    """Judge one variant, and return its sound trail, the variant, and the checks that were tried on it.

    :param on_variant: returns the result of a check on the variant, by its id.
    :param on_sound: the same on the sound trail; OK when None.
    """
    tried: list[str] = []

    def run(check: Check, _row: PlannedCheck, _topology: object, workspace: Provisioned, **_: object) -> Result:
        if workspace.target.install[0].name == f"{VARIANT.trail}.sql":
            return on_sound(check.id) if on_sound else result(check.id)
        tried.append(check.id)
        return on_variant(check.id)

    monkeypatch.setattr(broken_trails, "run_check", run)
    monkeypatch.setattr(broken_trails, "Workspace", Provisioned)
    found: list[Any] = []
    earlier = {VARIANT.full_name: NOTICES}
    BrokenTrails(catalogue(), LAB, Event(), found.append, jobs=1, earlier=earlier).judge([VARIANT])
    sound, variant = found
    return sound, variant, tried


def result(check: str, status: Status = Status.OK, reason: str = "") -> Result:
    return Result(target="direct", check=check, status=status, reason=reason, duration_ms=1.0)


def issue(check: str) -> Result:
    broken = Expectation(name="operations", expected="1", observed="0", held=False)
    return replace(result(check, Status.ISSUE, "operations: expected 1, observed 0"), expectations=(broken,))


def test_the_check_that_noticed_a_variant_before_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sound, variant, tried = judged(monkeypatch, issue)
    assert tried == [NOTICES]
    assert (variant.outcome, variant.check, variant.tried) == (Outcome.NOTICED, NOTICES, 1)
    assert (sound.issues, sound.not_run) == ({}, {})


def test_a_variant_that_no_check_notices_was_tried_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    sound, variant, tried = judged(monkeypatch, result)
    assert (variant.outcome, variant.tried, len(tried)) == (Outcome.SURVIVED, sound.ok, sound.ok)


@pytest.mark.parametrize(
    ("status", "reason"), [(Status.ISSUE, "the check itself broke: IndexError"), (Status.NOT_RUN, "it timed out")]
)
def test_a_check_that_breaks_or_does_not_run_has_noticed_nothing(
    monkeypatch: pytest.MonkeyPatch, status: Status, reason: str
) -> None:
    def on_variant(check: str) -> Result:
        return result(check, status, reason) if check == NOTICES else result(check)

    _, variant, _ = judged(monkeypatch, on_variant)
    assert variant.outcome is Outcome.SURVIVED
    assert variant.reason.endswith(f"turned to Issue; {NOTICES} is {status}: {reason}")


def test_a_variant_whose_server_ends_is_no_survivor(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Failure(what="the service postgres is not running: ended by signal 9")
    monkeypatch.setattr(broken_trails, "ended_service", lambda _lab: ended)
    with pytest.raises(HarnessError, match="direct: the service postgres is not running"):
        judged(monkeypatch, lambda check: result(check, Status.NOT_RUN, ended.what))


def test_a_check_that_is_not_ok_on_the_sound_trail_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_sound(check: str) -> Result:
        return issue(check) if check == NOTICES else result(check)

    sound, _, tried = judged(monkeypatch, result, on_sound)
    assert sound.issues == {NOTICES: "operations: expected 1, observed 0"}
    assert NOTICES not in tried


def test_no_check_begins_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, began = Event(), []

    def run(check: Check, *_: object, **__: object) -> Result:
        began.append(check.id)
        stop.set()
        return result(check.id)

    monkeypatch.setattr(broken_trails, "run_check", run)
    monkeypatch.setattr(broken_trails, "Workspace", Provisioned)
    found: list[Any] = []
    BrokenTrails(catalogue(), LAB, stop, found.append, jobs=1, earlier={}).judge([VARIANT])
    assert (len(began), found) == (1, [])
