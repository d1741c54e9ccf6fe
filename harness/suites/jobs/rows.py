"""The checks of the suite: one for each job engine, each of its variants, and each case that it claims."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harness.checks.judges.job_words import WORKS, outcome
from harness.checks.judges.jobs import JOBS_JUDGE, settled
from harness.checks.record import NotExercisedError
from harness.checks.registry import P1, check
from harness.job_engines.target_file import NEEDS, Case, JobFeature
from harness.model import JobLabel, Section
from harness.store import read_history
from harness.suites.jobs.cases import SCENARIOS
from harness.suites.jobs.conclusion import final_state, record_facts
from harness.suites.jobs.running import JobRun
from harness.suites.jobs.sabotage import controls_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.job_engines.loading import JobEngine

#: what is true of a job engine when a case is OK
CLAIMS: dict[Case, str] = {
    Case.WORKS: "its schema is created through the chain, and each enqueued job is done once",
    Case.IDLE: "an idle worker begins a new job as soon as the engine promises",
    Case.FAULTS: "no job is lost or stuck when a worker, its connections or the pooler end",
    Case.CLAIMS: "a job is taken over only after its lease, and the result of the stale worker does not count",
    Case.HEARTBEAT: "a heartbeat keeps a long job, and without it the job is taken over",
    Case.RETRIES: "failed attempts are followed by others until the cap, also after a restart",
    Case.CANCEL: "a cancelled job never begins",
    Case.APPROVE: "a job waits for its approval, and goes on once when it is delivered twice",
    Case.CRON: "two schedulers start one run in each window",
    Case.FORK: "a finished job runs again as a new one, once",
    Case.CHILDREN: "a job starts others, each runs once, and it ends after them",
    Case.TRANSACTION: "a job that is enqueued in a transaction exists only if the transaction is committed",
    Case.AUDITED: "an audited write of a job has the actor, the correlation and the id of the job, also after a retry",
    Case.LEAVES_NOTHING: "its workers leave no lock, transaction, statement or channel on server connections",
}
#: the claim of the case of heartbeats where a worker renews the leases of all of its jobs: none of them is silent
_RENEWED_BY_WORKER = "a long job is not taken over while its worker renews the lease"
#: what the main job includes, on topologies whose file does not omit the suite: a positive control, and one that listens.
#: Their variants for a pooler hold in every version of it: PgBouncer 1.18 tracks no prepared statements
_MAIN = {("absurd", "pooler"), ("oban", "pooler")}
#: its cases: each takes some seconds, and none waits for a lease or a cron window
_MAIN_CASES = frozenset(
    {Case.WORKS, Case.IDLE, Case.FAULTS, Case.CANCEL, Case.TRANSACTION, Case.AUDITED, Case.LEAVES_NOTHING}
)
_LONGEST_S = 300.0


def job_checks(engines: Iterable[JobEngine], *, planned: bool = False) -> Iterator[Check | Control]:
    """Yield the checks of job engines, and their controls.

    :param planned: whether a run that names nothing includes them, because the project declares these job engines.
    """
    for engine in engines:
        for variant in engine.file.variants:
            # one row says that an engine does not run here
            for case in (Case.WORKS,) if engine.file.not_run else Case:
                if _applies(engine, variant, case):
                    declared = _row(engine, variant, case, planned=planned)
                    yield declared
                    yield from controls_of(declared, case, engine.settings_of(variant))


def _applies(engine: JobEngine, variant: str, case: Case) -> bool:
    """Return whether a variant claims a case: without a lease nothing is taken over, and no heartbeat renews it."""
    needed = NEEDS.get(case)
    if needed in {JobFeature.LEASE, JobFeature.HEARTBEAT} and engine.settings_of(variant).lease_s is None:
        return False
    return needed is None or needed in engine.file.claims


def _row(engine: JobEngine, variant: str, case: Case, *, planned: bool) -> Check:
    title = f"{engine.file.title} {engine.file.version}"
    by_worker = case is Case.HEARTBEAT and not engine.settings_of(variant).heartbeat_by_job
    return check(
        f"jobs.{engine.name}-{variant}-{case}",
        claim=f"{title}, {variant}: {_RENEWED_BY_WORKER if by_worker else CLAIMS[case]}",
        section=Section.JOBS,
        severity=P1,
        area="job engine",
        own_servers=case is Case.FAULTS,
        on_demand=not planned and ((engine.name, variant) not in _MAIN or case not in _MAIN_CASES),
        longest_s=_LONGEST_S,
        out_of_scope=engine.file.not_run,
        job=JobLabel(engine=engine.name, title=title, variant=variant, case=case, file=engine.own_file),
    )(partial(run_case, engine, variant, case))


def run_case(engine: JobEngine, variant: str, case: Case, ctx: CheckContext) -> None:
    """Let a job engine run one case, and judge what it did.

    What was seen is judged also if the case ended early: a lost job is an Issue whatever happened after it. If jobs could
    still change, or connections were missing, only what is certain counts, and without that the case is Not run.
    """
    reason = ""
    with JobRun(ctx, engine, variant, case) as run:
        with ctx.history(JOBS_JUDGE, engine=engine.file.title, variant=variant, case=case) as journal:
            run.record(journal)
            try:
                SCENARIOS[case](run)
            except NotExercisedError as error:
                reason = str(error)
                run.wait_for_the_rest()
            if not run.database:
                raise NotExercisedError(reason)
            unsettled, cause = run.unsettled()
            state = settled(read_history(journal.path), final_state(run, unsettled))
            journal.keep_state(state)
        word = outcome(read_history(journal.path), state, tuple(ctx.expectations))
        if word == WORKS and state.ends and not state.effects:
            reason = reason or "nothing was enqueued, and nothing was done"
        # the harness ended a command: its jobs show nothing, and the others alone are not the case
        reason = (cause if state.unsettled else "") or reason or run.without_answer
        if not (reason and word == WORKS):
            ctx.fact("outcome", word)
        record_facts(run)
    if reason:
        raise NotExercisedError(reason)
