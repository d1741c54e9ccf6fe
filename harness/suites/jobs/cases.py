"""The cases of the suite: what is asked of a job engine, and for how long its answer is awaited.

No case decides anything: it creates the situation, and :mod:`harness.checks.judges.jobs` compares the effects. Faults
begin after progress, never after a time, and everything is enqueued before them.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from harness.checks.judges.jobs import (
    CHANNELS,
    DELETED,
    ENDED,
    LATE,
    LOCKS,
    PINNED,
    RENEWING,
    SILENT,
    STATEMENTS,
    TRANSACTIONS,
    WARM_UP,
    AuditedChange,
)
from harness.checks.record import NotExercisedError
from harness.database import quote_literal
from harness.errors import ServiceFailedError, TimedOutError
from harness.job_engines.target_file import Case
from harness.model import PoolMode
from harness.suites.jobs.running import ACTOR_TYPE, STARTS_S, WORKERS
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.judges.jobs import Effect
    from harness.database import Client
    from harness.suites.jobs.running import JobRun

_A, _B = WORKERS
_JOBS = 10
#: so many of them are enqueued together; later ones find workers that have repeated their statements
_JOBS_AT_ONCE = 4
#: jobs of the case of faults, each of so many seconds; each fault follows so much progress
_UNDER_FAULTS, _LATE_JOBS, _JOB_S, _PROGRESS = 24, 6, 0.4, 4
#: jobs that are enqueued for an idle worker, and how long it is idle before each, seconds
_IDLE_JOBS, _IDLES_S = 3, 1.0
#: a job that begins so much later than promised is late, seconds: its command takes some of it
_LATE_S = 15.0
#: an idle worker is awaited for the longest poll that any engine here falls back to, seconds
_LONGEST_POLL_S = 40.0
#: the same for a job that waits for a message: DBOS looks once a minute
_LONGEST_RECHECK_S = 70.0
#: looks at what an idle worker keeps, seconds between them
_LOOKS, _BETWEEN_LOOKS_S = 5, 0.4
#: an idle worker repeats its statements so often before that, or as often as it can within, seconds: drivers prepare a
#: statement that is repeated
_REPEATS, _LONGEST_IDLE_S = 6, 8.0
_SETTLES_S = 10.0
#: the job of the case of retries that always fails
_FAILING = 2
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
    run.use_prepared_database()
    if not _warm_up(run):
        return
    for key in range(1, _IDLE_JOBS + 1):
        time.sleep(_IDLES_S)
        began = time.monotonic()
        run.enqueue(key, key)
        run.wait_until_done(key, quiet_s=_LONGEST_POLL_S)
        if time.monotonic() - began > run.settings.idle_s + _LATE_S:
            break  # one of them is enough
    run.require_a_responsive_machine()


def _warm_up(run: JobRun) -> bool:
    """Start a worker, and return whether it ran a job that the case does not count."""
    run.start_worker(_A)
    found = run.operate(WARM_UP, "enqueue", 0, first=0, last=0)
    if found.exit_code == 0 and run.wait_for_phase(0, "done", STARTS_S + _LONGEST_POLL_S):
        return True
    run.expect("done", 0)
    return False


def faults(run: JobRun) -> None:
    run.use_prepared_database()
    for key in range(1, _UNDER_FAULTS + 1):
        run.plan(key, seconds=_JOB_S)
    run.enqueue(1, _UNDER_FAULTS)
    run.start_worker(_A)
    run.start_worker(_B)
    for number, fault in enumerate((_kill_worker, _terminate_connections, _restart_pooler), 1):
        _await_progress(run, number * _PROGRESS)
        run.fault(number, fault.__name__.strip("_").replace("_", "-"), fault)
    run.enqueue(_UNDER_FAULTS + 1, _UNDER_FAULTS + _LATE_JOBS, LATE)
    run.wait_until_done()


def _await_progress(run: JobRun, count: int) -> None:
    """Wait until so many jobs were begun; without progress, the next fault comes all the same."""
    run.wait(
        lambda effects: len({effect.key for effect in effects if effect.phase == "begin"}) >= count,
        f"{count} jobs to begin",
        STARTS_S,
    )


def _kill_worker(run: JobRun) -> str:
    # a worker that runs nothing would lose nothing
    run.wait(lambda effects: bool(running(effects)), "a job to run", _SETTLES_S)
    busy = Counter(running(run.effects()).values())
    name = max(WORKERS, key=lambda worker: busy[worker])
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
    if not lab.poolers:
        return "no pooler is here"
    lab.outermost.kill()
    lab.outermost.restart()

    def answers() -> None:
        if not lab.answers():
            raise NotYet("the pooler does not answer")

    try:
        poll(answers, what="the pooler to answer again", deadline_s=_SETTLES_S)
    except TimedOutError as error:
        raise ServiceFailedError(error.what, where=lab.outermost.name) from None
    return f"{lab.outermost.name} killed and started again"


def claims(run: JobRun) -> None:
    run.use_prepared_database()
    lease_s = run.settings.lease_s or 0.0
    run.plan(1, seconds=max(1.0, lease_s / 2))
    run.enqueue(1, 1)
    run.start_worker(_A)
    if not run.wait_for_phase(1, "begin", STARTS_S):
        raise NotExercisedError("no worker began the job")
    run.worker(_A).freeze()
    run.start_worker(_B)
    taken_over = run.wait_for_phase(1, "begin", STARTS_S + run.patience_s, times=2)
    run.worker(_A).thaw()
    came_back = taken_over and run.wait_for_phase_of(1, "done", _A, _SETTLES_S)
    if came_back:
        # the worker that came back reports its result now; the other one still runs the job
        run.wait(_counts_stale_result(run), "the result of the stale worker", _SETTLES_S)
    if run.wait_until_done() and taken_over:
        run.wait_for_phase_of(1, "done", _B, _SETTLES_S)
    if came_back and not run.after_stale:
        raise NotExercisedError("the stale worker came back after the other one had finished the job")


def _counts_stale_result(run: JobRun) -> Callable[[tuple[Effect, ...]], bool]:
    """Return a look at the job's state that says whether no more looks are needed. It counts only while B runs it."""

    def seen(_effects: tuple[Effect, ...]) -> bool:
        state = run.states().get(1, DELETED)
        if run.was_in_phase(1, "done", _B):
            return True
        run.after_stale[1] = state
        return state in ENDED

    return seen


def heartbeat(run: JobRun) -> None:
    run.use_prepared_database()
    lease_s = run.settings.lease_s or 1.0
    run.plan(RENEWING, seconds=2.5 * lease_s, heartbeat=True)
    run.plan(SILENT, seconds=2.5 * lease_s)
    # where the worker renews the leases of all of its jobs, none is silent
    run.enqueue(RENEWING, SILENT if run.settings.heartbeat_by_job else RENEWING)
    run.start_worker(_A)
    run.start_worker(_B)
    run.wait_until_done(quiet_s=2.5 * lease_s + run.patience_s)
    run.require_a_responsive_machine()


def retries(run: JobRun) -> None:
    run.use_prepared_database()
    run.plan(1, failures=2)
    run.plan(_FAILING, failures=1000)
    run.plan(3, failures=1)
    run.expect("failed", _FAILING)
    run.enqueue(1, 3)
    run.start_worker(_A)
    # an engine whose process counts the attempts has something to forget by then
    before = min(2, run.settings.attempts - 1)
    run.wait_for_phase(_FAILING, "failed", STARTS_S + run.patience_s, times=before)
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
    if begun >= run.settings.attempts:
        raise NotExercisedError("the worker was killed after the last attempt, not between two of them")


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
    time.sleep(run.settings.poll_s)


def approve(run: JobRun) -> None:
    run.use_prepared_database()
    run.start_worker(_A)
    run.start_worker(_B)
    run.expect("done", 1)
    run.operate("wait", "waiting", 1, key=1)
    if not run.wait_for_phase(1, "waiting", STARTS_S):
        raise NotExercisedError("the job did not reach the point where it waits for its approval")
    time.sleep(_IDLES_S)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run.operate, "approve", "approve", 1, key=1) for _ in range(2)]
        for delivered in both:
            delivered.result()
    run.wait_until_done(quiet_s=_LONGEST_RECHECK_S)
    time.sleep(_IDLES_S)


def cron(run: JobRun) -> None:
    run.use_prepared_database()
    run.expect("never", 1)
    run.operate("schedule", "schedule", 1, key=1)
    run.start_worker(_A)
    run.start_worker(_B)
    run.wait_for_phase(1, "begin", STARTS_S + run.settings.cron_s, times=3 if run.settings.cron_s <= _SETTLES_S else 1)
    time.sleep(min(run.settings.cron_s, 2.0))


def fork(run: JobRun) -> None:
    run.use_prepared_database()
    run.start_worker(_A)
    run.enqueue(1, 1)
    if not run.wait_until_done():
        return
    run.wait_for_state(1, "done", _SETTLES_S)
    run.expect("done", 2)
    run.operate("fork", "fork", 2, key=1, new=2)
    run.wait_until_done(quiet_s=_LONGEST_POLL_S)


def children(run: JobRun) -> None:
    run.use_prepared_database()
    run.start_worker(_A)
    run.start_worker(_B)
    run.expect("done", 1, 2, 3, 4)
    run.operate("enqueue", "children", 1, key=1, first=2, last=4)
    run.wait_until_done(quiet_s=_LONGEST_POLL_S)


def transaction(run: JobRun) -> None:
    run.use_prepared_database()
    run.expect("never", 1)
    run.expect("done", 2)
    run.operate("enqueue", "in_transaction", 1, 2, key=1, new=2)
    run.start_worker(_A)
    if run.wait_until_done():
        run.wait_for_ends(_SETTLES_S)
    time.sleep(run.settings.poll_s)


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


def leaves_nothing(run: JobRun) -> None:
    run.use_prepared_database()
    if not _warm_up(run):
        raise NotExercisedError("the worker did not run a job, so what it leaves is not known")
    time.sleep(max(_IDLES_S, min(_REPEATS * run.settings.poll_s, _LONGEST_IDLE_S)))
    looks = []
    for _ in range(_LOOKS):
        looks.append(_sessions(run))
        time.sleep(_BETWEEN_LOOKS_S)
    if run.ctx.sharing_mode:
        # a transaction that stays open keeps its server connection from all other clients
        kept = set.intersection(*({pid for pid, open_since in look.items() if open_since} for look in looks))
        run.left[PINNED] = len({pid for pid in kept if len({look[pid] for look in looks}) == 1})
    run.ctx.fact("server connections of an idle worker", len(looks[-1]))
    run.worker(_A).stop()
    run.left[LOCKS] = run.left[TRANSACTIONS] = 0

    def clean() -> None:
        run.left[LOCKS], run.left[TRANSACTIONS] = _kept_by_sessions(run)
        if run.left[LOCKS] or run.left[TRANSACTIONS]:
            raise NotYet("something is left")

    with contextlib.suppress(TimedOutError):
        poll(clean, what="sessions of the worker to end", deadline_s=_SETTLES_S, interval_s=0.2)
    if run.ctx.mode is PoolMode.TRANSACTION:  # statement mode refuses the transactions that keep clients apart
        run.left[STATEMENTS], run.left[CHANNELS] = _kept_by_the_pool(run)


def _sessions(run: JobRun) -> dict[int, str]:
    """Return the server processes of the engine's database, with the begin of an open transaction each."""
    with run.ctx.lab.connect_admin() as admin:
        rows = admin.rows(
            "SELECT pid, CASE WHEN state LIKE 'idle in transaction%%' THEN xact_start::text ELSE '' END "
            "FROM pg_stat_activity WHERE datname = %s AND usename = %s",
            [run.database, run.ctx.lab.roles.app.name],
        )
    return dict(rows)


def _kept_by_sessions(run: JobRun) -> tuple[int, int]:
    """Return the advisory locks in the engine's database, and its sessions that are idle in a transaction."""
    with run.ctx.lab.connect_admin(run.database) as admin:
        locks = admin.value(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
            "WHERE l.locktype = 'advisory' AND d.datname = current_database()"
        )
    return int(locks), sum(bool(since) for since in _sessions(run).values())


def _kept_by_the_pool(run: JobRun) -> tuple[int, int]:
    """Return what later clients find on the shared server connections: prepared statements, and channels.

    Clients look at the same time, in one long statement each, so that each of them has another server connection.
    Statement mode allows it, too.

    :raises NotExercisedError: when some server connection was never given to a client.
    """
    endpoint = run.ctx.lab.chain(run.database)
    clients = [run.ctx.connect(endpoint) for _ in _sessions(run)]
    found: dict[int, tuple[int, int]] = {}
    with ThreadPoolExecutor(max(1, len(clients))) as pool:
        for _ in range(_LOOKS):
            for [(pid, statements, channels)] in pool.map(_look_at_a_session, clients):
                found[pid] = int(statements), int(channels)
            if _sessions(run).keys() <= found.keys():
                break
        else:
            raise NotExercisedError("no client was given some of the server connections, so what they keep is not known")
    return sum(statements for statements, _ in found.values()), sum(channels for _, channels in found.values())


def _look_at_a_session(client: Client) -> list[tuple[int, int, int]]:
    """Return the process of a server connection, its prepared statements, and its channels; it takes a while."""
    return client.rows(
        "SELECT pg_backend_pid(), "
        "(SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'PGBOUNCER%'), "
        "(SELECT count(*) FROM pg_listening_channels()) FROM pg_sleep(0.3)"
    )


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
