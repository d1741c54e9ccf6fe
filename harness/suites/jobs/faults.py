"""The case `faults`: workers, their connections and the pooler end while jobs run.

Faults begin after progress, never after a time, and everything is enqueued before them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from harness.checks.judges.job_history import LATE
from harness.checks.record import NotExercisedError
from harness.errors import ServiceFailedError, TimedOutError
from harness.suites.jobs.effects import keys_of, running
from harness.suites.jobs.programs import WORKERS
from harness.suites.jobs.running import SETTLES_S, STARTS_S
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.suites.jobs.running import JobRun

_A, _B = WORKERS
#: jobs of the case, each of so many seconds; each fault follows so much progress
_UNDER_FAULTS, _LATE_JOBS, _JOB_S, _PROGRESS = 32, 6, 0.4, 4
#: jobs for each of those that a worker runs at the same time
_PER_SLOT = 8


def faults(run: JobRun) -> None:
    run.use_prepared_database()
    # both workers are busy until after the last fault
    count = max(_UNDER_FAULTS, _PER_SLOT * run.settings.concurrency)
    for key in range(1, count + 1):
        run.plan(key, seconds=_JOB_S)
    run.enqueue(1, count)
    run.start_worker(_A)
    run.start_worker(_B)
    of_pooler = (_restart_pooler,) if run.ctx.lab.poolers else ()
    for number, fault in enumerate((_kill_worker, _terminate_connections, *of_pooler), 1):
        _await_progress(run)
        if run.is_done:
            raise NotExercisedError("all jobs were done before the faults")
        run.fault(number, fault.__name__.strip("_").replace("_", "-"), fault)
    run.enqueue(count + 1, count + _LATE_JOBS, LATE)
    run.wait_until_done()


def _await_progress(run: JobRun) -> None:
    """Wait until some more jobs were begun. A fault that finds nothing to disturb ends the case."""
    before = len(keys_of(run.effects(), "begin"))
    run.wait(
        lambda effects: len(keys_of(effects, "begin")) >= before + _PROGRESS,
        f"{_PROGRESS} more jobs to begin",
        STARTS_S,
    )


def _kill_worker(run: JobRun) -> str:
    # a worker that runs nothing would lose nothing
    run.wait(lambda effects: bool(running(effects)), "a job to run", SETTLES_S)
    busy = Counter(running(run.effects()).values())
    name = max(WORKERS, key=lambda worker: busy[worker])
    if not busy[name]:
        raise NotExercisedError("no job ran, so no worker could be killed while it ran one")
    run.worker(name).kill()
    run.start_worker(name)
    return f"worker {name} ended by SIGKILL while it ran {busy[name]} jobs, and was started again"


def _terminate_connections(run: JobRun) -> str:
    with run.ctx.lab.connect_admin() as admin:

        def terminated() -> int:
            run.ctx.require_undisturbed()
            ended = admin.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = %s",
                [run.database, run.ctx.lab.roles.app.name],
            )
            if not ended:  # a program may connect for each statement
                raise NotYet("the engine has no server connection")
            return len(ended)

        try:
            ended = poll(terminated, what="a server connection of the engine", deadline_s=SETTLES_S, interval_s=0.002)
        except TimedOutError:
            raise NotExercisedError("the engine has no server connection that could be terminated") from None
    return f"{ended} server connections terminated"


def _restart_pooler(run: JobRun) -> str:
    lab = run.ctx.lab
    lab.outermost.kill()
    lab.outermost.restart()

    def answers() -> None:
        run.ctx.require_undisturbed()
        if not lab.answers():
            raise NotYet("the pooler does not answer")

    try:
        poll(answers, what="the pooler to answer again", deadline_s=SETTLES_S)
    except TimedOutError as error:
        raise ServiceFailedError(error.what, where=lab.outermost.name) from None
    return f"{lab.outermost.name} killed and started again"
