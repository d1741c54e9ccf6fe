"""The shipped targets that stand for common shapes of trails are sound: no check finds an Issue that they do not document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.audit.target_file import Recorded
from harness.audit.target_loading import load_target
from harness.model import Status
from harness.store import read_run
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

SUITES = ("trail", "capture", "actor", "redaction", "retention", "export")


@pytest.mark.parametrize("target", ["history-tables", "joined-actor", "row-diff"])
def test_a_sound_trail_of_a_common_shape_has_no_issue(tmp_path: Path, any_engine: Engine, target: str) -> None:
    suites = [f"--suite={suite}" for suite in SUITES]
    engine = ("--engine", any_engine.name)
    done = harness_here(tmp_path, "verify", "transaction", "--audit-target", target, *suites, *engine)
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    ok = {result.check for result in run.answers() if result.status is Status.OK}
    assert {"capture.insert", "capture.update", "capture.delete", "capture.values", "capture.forgery"} <= ok
    assert ("actor.many-clients" in ok) == load_target(target).records(Recorded.ACTOR)


def test_the_claims_of_the_joined_actor_are_judged(tmp_path: Path, any_engine: Engine) -> None:
    claimed = ("retention.boundary", "retention.mixed-age", "export.complete", "export.late-commit", "actor.types")
    checks = [f"--check={check}" for check in claimed]
    done = harness_here(
        tmp_path, "verify", "transaction", "--audit-target", "joined-actor", *checks, "--engine", any_engine.name
    )
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    assert {result.check for result in run.answers() if result.status is Status.OK} == set(claimed)
