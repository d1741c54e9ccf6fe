"""The shipped targets that stand for common shapes of trails are sound: no check finds an Issue that they do not document."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.audit.target_loading import load_target
from harness.lab.topologies import load_topologies
from harness.model import Status
from harness.store import read_run
from harness.suites.actor import sharing
from harness.suites.capture import writes
from harness.suites.catalogue import catalogue
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from harness.checks.registry import Check
    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

#: a trail whose images and keys are texts
TEXTS = str(Path(__file__).parent / "targets" / "texts.toml")
#: what stands out in each shape: the modules, or single checks, that judge it. Two shapes run each check if it applies
#: to two; on more of them, it would judge the same feature of a trail by the same code once more
SHAPES = {
    # the tables of the trail, which come with the audited ones, and an actor in two settings
    "history-tables": {
        *("capture.basics", "capture.sequences", "capture.structure", "capture.transactions", "capture.shadowing"),
        *("capture.forging", "capture.installing", "capture.operations", "capture.failures"),
        *("actor.basics", "actor.identities", "actor.sharing", "actor.misuse"),
    },
    # an actor that is a row of the same transaction, for each of several writes and writers, and what a trail may claim
    "joined-actor": {
        *("trail", "capture.basics", "capture.writes", "capture.transactions", "capture.times", "capture.concurrency"),
        *("capture.forging", "capture.extremes", "capture.failures"),
        *("actor.basics", "actor.identities", "actor.kinds", "actor.sharing", "actor.misuse"),
        *("retention.expired", "trail_exports"),
    },
    # values that are put together from differences, capture that is attached again, and no actor
    "row-diff": {
        *("trail", "capture.basics", "capture.writes", "capture.sequences", "capture.structure", "capture.rows"),
        *("capture.values", "capture.shadowing", "capture.installing", "capture.operations", "capture.burdens"),
    },
    # values and keys that are compared as the types of their columns
    TEXTS: {
        *("capture.basics", "capture.rows", "capture.values", "capture.extremes", "capture.times"),
        *("capture.concurrency", "capture.burdens", "actor.misuse", "actor.residue", "actor.prepared"),
        "trail.undeclared",
    },
}
#: checks of what a shape does not have, as they find out themselves
BESIDE = {
    "joined-actor": {  # no setting
        *("actor.residue", "actor.prepared", "actor.careless-startup-option", "actor.careless-role-default"),
        *("actor.careless-session-set", "actor.careless-session-set-lost"),
    },
    "row-diff": {"trail.undeclared"},
}
SUITES = ("trail", "capture", "actor", "redaction", "retention", "export")


def applicable(shape: str) -> list[Check]:
    """Return the checks of the suites that apply to a shape."""
    target, topology = load_target(shape), load_topologies()["transaction"]
    checks = [check for check in catalogue().checks if check.id.partition(".")[0] in SUITES]
    return [check for check in checks if not check.lacking(topology, target) and check.id not in BESIDE.get(shape, ())]


def chosen(shape: str) -> list[str]:
    """Return the checks that judge what stands out in a shape."""
    return [
        check.id
        for check in applicable(shape)
        if {check.id, check.run.__module__.removeprefix("harness.suites.")} & SHAPES[shape]
    ]


def test_each_check_judges_two_shapes_if_it_applies_to_them() -> None:
    possible = Counter(check.id for shape in SHAPES for check in applicable(shape))
    judging = Counter(check for shape in SHAPES for check in chosen(shape))
    assert len(possible) > 90
    assert {check for check in possible if judging[check] < min(possible[check], 2)} == set()


@pytest.mark.parametrize("target", SHAPES, ids=lambda name: Path(name).stem)
def test_a_sound_trail_of_a_common_shape_has_no_issue(
    tmp_path: Path, any_engine: Engine, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    # shapes count here: a round without an actor and one with a delete, and not thousands of rows and transactions
    monkeypatch.setattr(sharing, "_ROUNDS", 10)
    monkeypatch.setattr(writes, "_MANY", 50)
    checks = chosen(target)
    only = [f"--check={check}" for check in checks]
    engine = ("--engine", any_engine.name)
    done = harness_here(tmp_path, "verify", "transaction", "--audit-target", target, *only, *engine)
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    ok = {result.check for result in run.answers() if result.status is Status.OK}
    assert {*checks} - ok <= {"actor.prepared"}  # an old PgBouncer prepares nothing


def test_target_try_shows_texts_as_they_are_and_says_how_they_are_compared(tmp_path: Path, any_engine: Engine) -> None:
    done = harness_here(tmp_path, "target", "try", TEXTS, "--engine", any_engine.name)
    assert done.returncode == 0, done.stderr
    assert '"id":"1"' in done.stdout
    assert "note: values are texts here, and the checks read them back as the types of their columns" in done.stdout


def test_texts_are_compared_as_the_types_of_their_columns_also_under_faults_and_load(
    tmp_path: Path, any_engine: Engine
) -> None:
    compared = ("continuity.cutover-under-load", "continuity.old-rows", "resilience.commit-lost", "soak.mix")
    checks = [f"--check={check}" for check in compared]
    engine = ("--engine", any_engine.name)
    done = harness_here(tmp_path, "verify", "direct", "--audit-target", TEXTS, *checks, "--for", "1s", *engine)
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    assert {result.check for result in run.answers() if result.status is Status.OK} == set(compared)
