"""Questions to the effects of jobs, in their order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from harness.checks.judges.job_history import TWIN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.judges.job_state import Effect


def keys_of(effects: Iterable[Effect], phase: str) -> set[int]:
    """Return the jobs that were in a phase."""
    return {effect.key for effect in effects if effect.phase == phase}


def running(effects: Iterable[Effect]) -> dict[int, str]:
    """Return the jobs that began and did not end, with the worker of each."""
    running: dict[int, str] = {}
    for effect in effects:
        if effect.phase == "begin":
            running[effect.key] = effect.worker
        elif effect.phase in {"done", "failed"}:
            running.pop(effect.key, None)
    return running


def pick_ups(effects: Iterable[Effect], after: int = 0) -> list[float]:
    """Return the seconds from the enqueue of each job to its begin, for the hundred keys after this one."""
    times: dict[str, dict[int, float]] = {"enqueued": {}, "begin": {}}
    for effect in effects:
        if effect.phase in times and after < effect.key < after + TWIN:
            times[effect.phase].setdefault(effect.key, effect.seconds)
    return [max(0.0, at - times["enqueued"].get(key, at)) for key, at in sorted(times["begin"].items())]


def progress_of(effects: Iterable[Effect], most: int | None) -> int:
    """Return how much has happened: it grows with each effect, and no more once a job repeats itself for ever.

    :param most: so many effects of one phase of one job count; None for all of them.
    """
    counts = Counter((effect.key, effect.phase) for effect in effects)
    return sum(count if most is None else min(count, most) for count in counts.values())
