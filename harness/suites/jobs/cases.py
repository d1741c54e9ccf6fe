"""The cases of the suite: what is asked of a job engine, and for how long its answer is awaited.

No case decides anything: it creates the situation, and :mod:`harness.checks.judges.jobs` compares the effects.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.checks.judges.job_history import TWIN
from harness.checks.record import NotExercisedError
from harness.job_engines.target_file import Case
from harness.suites.jobs.audited import audited
from harness.suites.jobs.effects import keys_of, pick_ups
from harness.suites.jobs.faults import faults
from harness.suites.jobs.programs import WORKERS
from harness.suites.jobs.residue import leaves_nothing
from harness.suites.jobs.running import LONGEST_POLL_S, SETTLES_S, STARTS_S
from harness.suites.jobs.takeover import claims, heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.judges.job_state import Effect
    from harness.suites.jobs.running import JobRun

_A, _B = WORKERS
_JOBS = 10
#: so many of them are enqueued together; later ones find workers that have repeated their statements. Each time starts a
#: program of the engine
_JOBS_AT_ONCE = 5
#: jobs that are enqueued for an idle worker, and how long it is idle before each, seconds
_IDLE_JOBS, _IDLES_S = 3, 1.0
#: a job that begins so much later than promised is late, seconds: its command takes some of it
_LATE_S = 15.0
#: the same for a job that waits for a message: DBOS looks once a minute
_LONGEST_RECHECK_S = 70.0
#: cron windows that are awaited, if they are short
_WINDOWS = 3
#: windows are numbered from 1970 on, so the number of each is larger
_FIRST_WINDOW = 10_000
#: the job of the case of retries that always fails
_FAILING = 2
#: the least cap of attempts that can be judged
_ATTEMPTS = 3
#: an engine records the failure of an attempt within, seconds: less than the time until the next one
_RECORDS_S = 2.5


def works(run: JobRun) -> None:
    run.use_own_database()
    for first in range(1, _JOBS + 1, _JOBS_AT_ONCE):
        run.enqueue(first, min(first + _JOBS_AT_ONCE - 1, _JOBS))
        if first == 1:
            run.start_worker(_A)
            run.start_worker(_B)
        if not run.wait_until_done() or run.without_answer:
            break
    run.wait_for_ends(SETTLES_S)


def idle(run: JobRun) -> None:
    """Enqueue single jobs for an idle worker, and at the same time for its twin: it has a direct connection.

    The twin shows how soon the engine begins jobs on this machine, with this load.
    """
    run.use_prepared_database()
    has_twin = bool(run.ctx.lab.poolers)
    if has_twin:
        run.start_twin()
    if not run.warm_up() or (has_twin and not run.warm_up_twin()):
        raise NotExercisedError("a worker did no job, so none was given to an idle one")
    for key in range(1, _IDLE_JOBS + 1):
        run.ctx.let_pass(_IDLES_S)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            of_twin = pool.submit(run.enqueue_for_twin, TWIN + key) if has_twin else None
            run.enqueue(key, key)
            if of_twin:
                of_twin.result()
        run.wait_until_done(key, quiet_s=LONGEST_POLL_S)
        if has_twin:
            run.wait_for_phase(TWIN + key, "begin", run.patience_s)
        if time.monotonic() - began > run.settings.idle_s + _LATE_S:
            break  # one of them is enough
    effects = run.effects()
    if keys_of(effects, "begin") - keys_of(effects, "enqueued"):
        raise NotExercisedError("`enqueue` did not report its jobs, so nobody knows how long they waited")
    run.ctx.fact("jobs began after", _seconds(pick_ups(effects)))
    if has_twin:
        run.ctx.fact("next to the pooler after", _seconds(pick_ups(effects, after=TWIN)))
    run.ctx.fact("promised within", f"{run.settings.idle_s:g} s")
    run.require_a_responsive_machine()


def _seconds(waits: list[float]) -> str:
    return ", ".join(f"{seconds:.2f} s" for seconds in waits) or "no job began"


def retries(run: JobRun) -> None:
    if run.settings.attempts < _ATTEMPTS:
        raise NotExercisedError(f"a cap of fewer than {_ATTEMPTS} attempts leaves nothing to interrupt")
    run.use_prepared_database()
    run.plan(1, failures=2)
    run.plan(_FAILING, failures=1000)
    run.plan(3, failures=1)
    run.expect("failed", _FAILING)
    run.enqueue(1, 3)
    run.start_worker(_A)
    # an engine whose process counts the attempts has something to forget by then
    run.wait_for_phase(_FAILING, "failed", STARTS_S + run.patience_s, times=_ATTEMPTS - 1)
    run.wait(_none_runs, "no job to run", SETTLES_S)
    # the effect comes before the engine records it: a kill between them would leave the job locked. A process that
    # counts attempts itself never records one
    run.wait(lambda _effects: "running" not in run.states().values(), "no job to be running", _RECORDS_S)
    run.worker(_A).kill()
    run.interrupted = tuple(key for key, state in run.states().items() if state == "running")
    begun = sum((effect.key, effect.phase) == (_FAILING, "begin") for effect in run.effects())
    run.start_worker(_A)
    if run.wait_until_done():
        settings = run.settings
        run.wait_for_phase(
            _FAILING, "failed", run.patience_s + settings.attempts * settings.backoff_s, times=settings.attempts
        )
    run.wait_for_ends(SETTLES_S)
    if not 0 < begun < run.settings.attempts:
        raise NotExercisedError("the worker was not killed between two attempts")


def _none_runs(effects: tuple[Effect, ...]) -> bool:
    begun = sum(effect.phase == "begin" for effect in effects)
    return begun == sum(effect.phase in {"done", "failed"} for effect in effects)


def cancel(run: JobRun) -> None:
    run.use_prepared_database()
    run.expect("cancelled", 1)
    run.enqueue(1, 2)
    run.operate("cancel", "cancel", 1, key=1)
    run.start_worker(_A)
    if run.wait_until_done():
        run.wait_for_ends(SETTLES_S)
    # a job that must not begin does so by the next poll
    run.wait_for_phase(1, "begin", run.settings.poll_s)


def approve(run: JobRun) -> None:
    run.use_prepared_database()
    run.start_worker(_A)
    run.start_worker(_B)
    run.expect("done", 1)
    run.operate("wait", "waiting", 1, key=1)
    if not run.wait_for_phase(1, "waiting", STARTS_S):
        raise NotExercisedError("the job did not reach the point where it waits for its approval")
    run.ctx.let_pass(_IDLES_S)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run.operate, "approve", "approve", 1, key=1) for _ in range(2)]
        delivered = [command.result() for command in both]
    codes = {found.exit_code for found in delivered}
    if 0 not in codes and None in codes:
        run.ends.clear()  # the harness ended a command, so the job may wait on
        return
    if 0 in codes:
        run.wait_until_done(quiet_s=_LONGEST_RECHECK_S)
    run.ctx.let_pass(_IDLES_S)


def cron(run: JobRun) -> None:
    run.use_prepared_database()
    run.expect("never", 1)
    run.operate("schedule", "schedule", 1, key=1)
    _avoid_the_next_window(run)
    run.start_worker(_A)
    run.start_worker(_B)
    wanted = _WINDOWS if run.settings.cron_s <= SETTLES_S else 1
    seen = run.wait_for_phase(1, "begin", STARTS_S + wanted * run.settings.cron_s, times=wanted)
    run.ctx.let_pass(min(run.settings.cron_s, 2.0))
    if any((effect.attempt or 0) < _FIRST_WINDOW for effect in run.effects() if effect.phase == "begin"):
        raise NotExercisedError("the program does not give the number of the window as the attempt")
    if not seen and keys_of(run.effects(), "begin"):
        raise NotExercisedError(f"the schedule started fewer than {wanted} runs")


def _avoid_the_next_window(run: JobRun) -> None:
    """Wait until a long window that is about to begin has begun: both schedulers must be up before the first one."""
    cron_s = run.settings.cron_s
    left = cron_s - time.time() % cron_s
    if left < SETTLES_S < cron_s:
        run.ctx.let_pass(left)


def fork(run: JobRun) -> None:
    run.use_prepared_database()
    run.start_worker(_A)
    run.enqueue(1, 1)
    if not run.wait_until_done():
        return
    run.wait_for_state(1, "done", SETTLES_S)
    run.expect("done", 2)
    run.operate("fork", "fork", 2, key=1, new=2)
    run.wait_until_done(quiet_s=LONGEST_POLL_S)


def children(run: JobRun) -> None:
    run.use_prepared_database()
    run.start_worker(_A)
    run.start_worker(_B)
    run.expect("done", 1, 2, 3, 4)
    run.operate("enqueue", "children", 1, key=1, first=2, last=4)
    run.wait_until_done(quiet_s=LONGEST_POLL_S)


def transaction(run: JobRun) -> None:
    run.use_prepared_database()
    run.expect("never", 1)
    run.expect("done", 2)
    run.operate("enqueue", "in_transaction", 1, 2, key=1, new=2)
    run.start_worker(_A)
    if run.wait_until_done():
        run.wait_for_ends(SETTLES_S)
    # a job that must not begin does so by the next poll
    run.wait_for_phase(1, "begin", run.settings.poll_s)


SCENARIOS: dict[Case, Callable[[JobRun], None]] = {
    Case.WORKS: works,
    Case.IDLE: idle,
    Case.FAULTS: faults,
    Case.CLAIMS: claims,
    Case.HEARTBEAT: heartbeat,
    Case.RETRIES: retries,
    Case.CANCEL: cancel,
    Case.APPROVE: approve,
    Case.CRON: cron,
    Case.FORK: fork,
    Case.CHILDREN: children,
    Case.TRANSACTION: transaction,
    Case.AUDITED: audited,
    Case.LEAVES_NOTHING: leaves_nothing,
}
