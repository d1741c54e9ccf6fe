"""The cases of job engines: faults hit a worker that runs something."""

from __future__ import annotations

from harness.checks.judges.job_state import Effect
from harness.suites.jobs.cases import running


def effect(key: int, phase: str, worker: str) -> Effect:
    return Effect(seconds=0.0, key=key, phase=phase, worker=worker)


def test_a_job_runs_from_its_begin_to_its_end_on_the_worker_that_began_it_last() -> None:
    effects = (
        effect(1, "enqueued", "commands"),
        effect(1, "begin", "A"),
        effect(2, "begin", "B"),
        effect(3, "begin", "B"),
        effect(4, "begin", "A"),
        effect(2, "done", "B"),
        effect(3, "failed", "B"),
        effect(1, "begin", "B"),
    )
    assert running(effects) == {1: "B", 4: "A"}
