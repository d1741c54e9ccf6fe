"""The cases `claims` and `heartbeat`: who holds a job, and for how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.checks.judges.job_history import DELETED, ENDED, RENEWING, SILENT
from harness.checks.judges.jobs import KEPT_BY_FROZEN
from harness.checks.record import NotExercisedError
from harness.suites.jobs.programs import WORKERS
from harness.suites.jobs.running import LONGEST_LEASE_S, STARTS_S

if TYPE_CHECKING:
    from harness.checks.judges.job_state import Effect
    from harness.suites.jobs.running import JobRun

_A, _B = WORKERS
#: the job that is taken over from a frozen worker, and one that shows that the other worker works
_TAKEN_OVER, _OTHER = 1, 2
#: a worker reports its result to the engine within, seconds: some collect results, or wait for a notification before
_REPORTS_S, _LONG_JOB_S = 1.5, 4.0


def claims(run: JobRun) -> None:
    """Freeze A while it runs a job; B takes the job over, and A comes back while B still runs it.

    The engine says `running` then, until B is done. Its state is read again and again in that time: where A reports a
    result, and the state has changed, that result counted. A state that was not `running` before shows nothing.
    """
    lease_s = _lease_of(run)
    run.use_prepared_database()
    if not run.warm_up():
        raise NotExercisedError("the worker did no job, so nothing could be taken over from it")
    # within its lease, unless its worker renews it
    job_s = max(1.0, 0.75 * lease_s, 0.0 if run.settings.heartbeat_by_job else _LONG_JOB_S)
    run.plan(_TAKEN_OVER, seconds=job_s)
    run.enqueue(_TAKEN_OVER, _TAKEN_OVER)
    if not run.wait_for_phase(_TAKEN_OVER, "begin", STARTS_S):
        raise NotExercisedError("no worker began the job")
    run.worker(_A).freeze()
    if run.was_in_phase(_TAKEN_OVER, "done", _A):
        raise NotExercisedError("the job was done before its worker was frozen")
    run.start_worker(_B)
    run.enqueue(_OTHER, _OTHER)
    if not run.wait_for_phase_of(_OTHER, "done", _B, STARTS_S + run.patience_s):
        raise NotExercisedError("the other worker did no job, so it could take none over")
    taken_over = run.wait_for_phase_of(_TAKEN_OVER, "begin", _B, run.patience_s)
    run.left[KEPT_BY_FROZEN] = int(not taken_over)
    before = run.states().get(_TAKEN_OVER, DELETED)
    run.worker(_A).thaw()
    reason = _watch_stale_result(run, before, min(_REPORTS_S, job_s / 2)) if taken_over else ""
    run.wait_until_done()
    if reason:
        raise NotExercisedError(reason)
    run.require_a_responsive_machine()


def _lease_of(run: JobRun) -> float:
    """Return the lease of the variant, seconds.

    :raises NotExercisedError: when it is too long to be awaited.
    """
    lease_s = run.settings.lease_s or 0.0
    if not 0 < lease_s <= LONGEST_LEASE_S:
        raise NotExercisedError(f"a lease of {lease_s:g} s is not awaited" if lease_s else "this variant has no lease")
    return lease_s


def _watch_stale_result(run: JobRun, before: str, enough_s: float) -> str:
    """Read the state of the job from the return of A until B is done, and return why that shows nothing, or "".

    :param before: the state before the return of A.
    :param enough_s: for how long after its report the state has to be the same, seconds, so that its result is refused.
    """
    if before != "running":
        return f"the engine says {before} of a job that is taken over, so a stale result cannot be distinguished"
    looks: list[float] = []

    def is_over(_effects: tuple[Effect, ...]) -> bool:
        reported, now = run.was_in_phase(_TAKEN_OVER, "done", _A), time.monotonic()
        state = run.states(admin).get(_TAKEN_OVER, DELETED)
        if run.was_in_phase(_TAKEN_OVER, "done", _B):
            return True  # the state may be that of its own result
        if reported:
            looks.append(now)
            run.after_stale[_TAKEN_OVER] = state
        return reported and state in ENDED

    with run.ctx.lab.connect_admin(run.database) as admin:
        run.wait(is_over, "the other worker to be done", STARTS_S, interval_s=0.01)
    if not looks:
        return "the worker that came back reported no result while the other one ran the job"
    if looks[-1] - looks[0] < enough_s and run.after_stale[_TAKEN_OVER] not in ENDED:
        return "the worker that came back reported its result too late to show whether it counts"
    return ""


def heartbeat(run: JobRun) -> None:
    lease_s = _lease_of(run)
    run.use_prepared_database()
    # long enough for the other worker to look for it after its lease
    job_s = max(2.5 * lease_s, lease_s + 2 * run.settings.poll_s)
    run.plan(RENEWING, seconds=job_s, heartbeat=True)
    run.plan(SILENT, seconds=job_s)
    # where the worker renews the leases of all of its jobs, none is silent
    keys = (RENEWING, SILENT) if run.settings.heartbeat_by_job else (RENEWING,)
    run.start_worker(_A)
    run.start_worker(_B)
    # a worker that runs one job at a time takes none over while it runs another one
    for first, last in [(key, key) for key in keys] if run.settings.concurrency == 1 else [(keys[0], keys[-1])]:
        run.enqueue(first, last)
        run.wait_until_done(quiet_s=job_s + run.patience_s)
    run.require_a_responsive_machine()
