"""The cases of job engines: faults hit a worker that runs something, and a case waits as long as there is progress."""

from __future__ import annotations

from harness.checks.judges.job_state import Effect
from harness.suites.jobs.effects import progress_of, running


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


def test_a_job_that_begins_for_ever_makes_no_progress() -> None:
    def begins(times: int) -> tuple[Effect, ...]:
        return (*(effect(1, "begin", "A") for _ in range(times)), effect(2, "done", "B"))

    assert [progress_of(begins(times), 6) for times in (1, 2, 6, 7, 50)] == [2, 3, 7, 7, 7]
    assert progress_of((*begins(50), effect(1, "done", "A")), 6) == 8
    # on a slow machine, leases end, and jobs begin again and again
    assert progress_of(begins(50), None) == 51
