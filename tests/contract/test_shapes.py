"""The shipped targets that stand for common shapes of trails are sound: no check finds an Issue that they do not document."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.audit.target_file import Recorded
from harness.audit.target_loading import load_target
from harness.model import Status
from harness.store import read_run
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

SUITES = ("trail", "capture", "actor", "redaction", "retention", "export")

#: checks of the claims that a shipped target makes
CLAIMED = {
    "joined-actor": {
        *("retention.boundary", "retention.mixed-age", "export.complete", "export.late-commit", "actor.types"),
    }
}

#: a trail whose images and keys are texts
TEXTS = str(Path(__file__).parent / "targets" / "texts.toml")


@pytest.mark.parametrize("target", ["history-tables", "joined-actor", "row-diff", TEXTS], ids=lambda name: Path(name).stem)
def test_a_sound_trail_of_a_common_shape_has_no_issue(tmp_path: Path, any_engine: Engine, target: str) -> None:
    suites = [f"--suite={suite}" for suite in SUITES]
    engine = ("--engine", any_engine.name)
    done = harness_here(tmp_path, "verify", "transaction", "--audit-target", target, *suites, *engine)
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    ok = {result.check for result in run.answers() if result.status is Status.OK}
    assert {"capture.insert", "capture.update", "capture.delete", "capture.values", "capture.forgery"} <= ok
    assert CLAIMED.get(target, set()) <= ok
    assert ("actor.many-clients" in ok) == load_target(target).records(Recorded.ACTOR)


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
