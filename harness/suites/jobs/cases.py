"""The cases of the suite: what is asked of a job engine, and for how long its answer is awaited.

No case decides anything: it creates the situation, and :mod:`harness.checks.judges.jobs` compares the effects. Faults
begin after progress, never after a time, and everything is enqueued before them.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.checks.judges.job_history import DELETED, ENDED, LATE, RENEWING, SILENT, TWIN
from harness.checks.judges.job_state import AuditedChange
from harness.checks.judges.jobs import KEPT_BY_FROZEN
from harness.checks.record import NotExercisedError
from harness.database import quote_literal
from harness.errors import ServiceFailedError, TimedOutError
from harness.job_engines.target_file import Case
from harness.suites.jobs.programs import ACTOR_TYPE, WORKERS
from harness.suites.jobs.residue import leaves_nothing
from harness.suites.jobs.running import LONGEST_LEASE_S, LONGEST_POLL_S, STARTS_S
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.judges.job_state import Effect
    from harness.database import Client
    from harness.suites.jobs.running import JobRun

_A, _B = WORKERS
#: the job that is taken over from a frozen worker, and one that shows that the other worker works
_TAKEN_OVER, _OTHER = 1, 2
_JOBS = 10
#: so many of them are enqueued together; later ones find workers that have repeated their statements
_JOBS_AT_ONCE = 4
#: a worker reports its result to the engine within, seconds: some collect results, or wait for a notification before
_REPORTS_S, _LONG_JOB_S = 1.5, 4.0
#: jobs of the case of faults, each of so many seconds; each fault follows so much progress
_UNDER_FAULTS, _LATE_JOBS, _JOB_S, _PROGRESS = 32, 6, 0.4, 4
#: jobs for each of those that a worker runs at the same time
_PER_SLOT = 8
#: jobs that are enqueued for an idle worker, and how long it is idle before each, seconds
_IDLE_JOBS, _IDLES_S = 3, 1.0
#: a job that begins so much later than promised is late, seconds: its command takes some of it
_LATE_S = 15.0
#: the same for a job that waits for a message: DBOS looks once a minute
_LONGEST_RECHECK_S = 70.0
_SETTLES_S = 10.0
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
    run.wait_for_ends(_SETTLES_S)


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
    if run.unreported():
        raise NotExercisedError("`enqueue` did not report its jobs, so nobody knows how long they waited")
    run.ctx.fact("jobs began after", _seconds(run.pick_ups()))
    if has_twin:
        run.ctx.fact("next to the pooler after", _seconds(run.pick_ups(TWIN)))
    run.ctx.fact("promised within", f"{run.settings.idle_s:g} s")
    run.require_a_responsive_machine()


def _seconds(waits: list[float]) -> str:
    return ", ".join(f"{seconds:.2f} s" for seconds in waits) or "no job began"


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
    before = len(_begun(run.effects()))
    run.wait(lambda effects: len(_begun(effects)) >= before + _PROGRESS, f"{_PROGRESS} more jobs to begin", STARTS_S)


def _begun(effects: tuple[Effect, ...]) -> set[int]:
    return {effect.key for effect in effects if effect.phase == "begin"}


def _kill_worker(run: JobRun) -> str:
    # a worker that runs nothing would lose nothing
    run.wait(lambda effects: bool(running(effects)), "a job to run", _SETTLES_S)
    busy = Counter(running(run.effects()).values())
    name = max(WORKERS, key=lambda worker: busy[worker])
    if not busy[name]:
        raise NotExercisedError("no job ran, so no worker could be killed while it ran one")
    run.worker(name).kill()
    run.start_worker(name)
    return f"worker {name} ended by SIGKILL while it ran {busy[name]} jobs, and was started again"


def running(effects: tuple[Effect, ...]) -> dict[int, str]:
    """Return the jobs that began and did not end, with the worker of each."""
    running: dict[int, str] = {}
    for effect in effects:
        if effect.phase == "begin":
            running[effect.key] = effect.worker
        elif effect.phase in {"done", "failed"}:
            running.pop(effect.key, None)
    return running


def _terminate_connections(run: JobRun) -> str:
    with run.ctx.lab.connect_admin() as admin:
        ended = admin.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = %s",
            [run.database, run.ctx.lab.roles.app.name],
        )
    if not ended:
        raise NotExercisedError("the engine has no server connection that could be terminated")
    return f"{len(ended)} server connections terminated"


def _restart_pooler(run: JobRun) -> str:
    lab = run.ctx.lab
    lab.outermost.kill()
    lab.outermost.restart()

    def answers() -> None:
        run.ctx.require_undisturbed()
        if not lab.answers():
            raise NotYet("the pooler does not answer")

    try:
        poll(answers, what="the pooler to answer again", deadline_s=_SETTLES_S)
    except TimedOutError as error:
        raise ServiceFailedError(error.what, where=lab.outermost.name) from None
    return f"{lab.outermost.name} killed and started again"


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
    run.wait(_none_runs, "no job to run", _SETTLES_S)
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
    run.wait_for_ends(_SETTLES_S)
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
        run.wait_for_ends(_SETTLES_S)
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
    wanted = _WINDOWS if run.settings.cron_s <= _SETTLES_S else 1
    seen = run.wait_for_phase(1, "begin", STARTS_S + wanted * run.settings.cron_s, times=wanted)
    run.ctx.let_pass(min(run.settings.cron_s, 2.0))
    if any((effect.attempt or 0) < _FIRST_WINDOW for effect in run.effects() if effect.phase == "begin"):
        raise NotExercisedError("the program does not give the number of the window as the attempt")
    if not seen and _begun(run.effects()):
        raise NotExercisedError(f"the schedule started fewer than {wanted} runs")


def _avoid_the_next_window(run: JobRun) -> None:
    """Wait until a long window that is about to begin has begun: both schedulers must be up before the first one."""
    cron_s = run.settings.cron_s
    left = cron_s - time.time() % cron_s
    if left < _SETTLES_S < cron_s:
        run.ctx.let_pass(left)


def fork(run: JobRun) -> None:
    run.use_prepared_database()
    run.start_worker(_A)
    run.enqueue(1, 1)
    if not run.wait_until_done():
        return
    run.wait_for_state(1, "done", _SETTLES_S)
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
        run.wait_for_ends(_SETTLES_S)
    # a job that must not begin does so by the next poll
    run.wait_for_phase(1, "begin", run.settings.poll_s)


def audited(run: JobRun) -> None:
    run.use_prepared_database()
    ctx, target = run.ctx, run.ctx.target
    sql = _audited_write(run)
    run.plan(1, sql=sql)
    run.plan(2, sql=sql, failures=1)
    run.enqueue(1, 2)
    run.start_worker(_A)
    run.wait_until_done()
    with ctx.lab.connect_admin(run.database) as admin:
        actions = _correlations(run, admin)
        for change in target.changes(admin, "public.posts"):
            word, _, rest = change.text("title").partition(" ")
            key, _, job = rest.partition(" ")
            if word == "job":
                actor = change.actor.get("id") if isinstance(change.actor, dict) else change.actor
                written = change.text("slug").partition("/")[0]
                run.changes += (
                    AuditedChange(
                        key=int(key),
                        actor=str(actor),
                        correlation=actions.get(change.action_id or "", "") if actions is not None else written,
                        job=job,
                    ),
                )


def _correlations(run: JobRun, admin: Client) -> dict[str, str] | None:
    """Return the correlation of each action in the trail; None for a trail without actions: the row then has it."""
    statement = run.ctx.target.statements.actions
    if not statement or not run.ctx.target.statements.record_action:
        return None
    cursor = admin.execute(statement.encode())
    names = [column.name for column in cursor.description or ()]
    rows = (dict(zip(names, row, strict=True)) for row in cursor)
    return {str(row["id"]): str(row["correlation_id"]) for row in rows}


def _audited_write(run: JobRun) -> str:
    """Return the unit of work of an audited job; the database of effects fills in what the job was given."""
    target = run.ctx.target
    actor = f'{{"type": "{ACTOR_TYPE}", "id": "%ACTOR%"}}' if target.actor.value == "json" else "%ACTOR%"
    local = str(target.actor.scope == "transaction").lower()
    declare = f"SELECT set_config({quote_literal(target.actor.setting)}, {quote_literal(actor)}, {local});"
    action = target.statements.record_action
    if action:
        for name, value in (("name", "'job %JOB%'"), ("correlation_id", "'%CORRELATION%'")):
            action = action.replace(f"%({name})s", value)
        action = f"{action.rstrip().rstrip(';')};"
    write = (
        "INSERT INTO public.posts (title, slug) VALUES "
        "('job %KEY% %JOB%', '%CORRELATION%/' || md5(random()::text || clock_timestamp()::text));"
    )
    return f"BEGIN; {declare} {action} {write} COMMIT;"


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
