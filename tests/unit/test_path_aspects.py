"""The second job of an audited path: what a slow worker has not done yet is unknown, and no Issue."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.checks.record import NotExercisedError
from harness.errors import TimedOutError
from harness.host.job_table import JobState
from harness.suites.paths import aspects


def path_run(state: JobState | None) -> Any:
    """Return the run of a path whose job does not end in time."""

    def ended(_: object) -> JobState:
        raise TimedOutError(f"job 38 did not end; last seen: {state}")

    return SimpleNamespace(job_ended=ended, job_state=lambda _: state)


@pytest.mark.parametrize(("state", "attempt"), [("available", 0), ("scheduled", 0), ("executing", 1)])
def test_a_job_in_its_first_attempt_shows_nothing(state: str, attempt: int) -> None:
    run = path_run(JobState(state=state, attempt=attempt, max_attempts=5))
    with pytest.raises(NotExercisedError, match=f"last seen: {state} after {attempt} of 5 attempts"):
        aspects._job_state(run, cast("Any", None))


@pytest.mark.parametrize(("state", "attempt"), [("retryable", 1), ("available", 2), ("executing", 3)])
def test_a_job_whose_first_attempt_failed_is_described(state: str, attempt: int) -> None:
    run = path_run(JobState(state=state, attempt=attempt, max_attempts=5))
    assert aspects._job_state(run, cast("Any", None)).endswith(f"{state} after {attempt} of 5 attempts")


def test_a_job_that_is_gone_is_described() -> None:
    assert aspects._job_state(path_run(None), cast("Any", None)) == "job 38 did not end; last seen: None"
