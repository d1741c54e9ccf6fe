"""The conclusion of a case: what the judge gets, and what is documented about what it saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.judges.job_state import ExitedWorker, Foreseen, JobsState
from harness.checks.judges.jobs import STUCK
from harness.job_engines.loading import documented_for_all
from harness.model import PoolMode, Prepare
from harness.suites.jobs.programs import ACTOR_ID, CORRELATION

if TYPE_CHECKING:
    from harness.checks.judges.job_state import Unsettled
    from harness.job_engines.target_file import Case, Documented
    from harness.model import Topology
    from harness.suites.jobs.running import JobRun


def final_state(run: JobRun, unsettled: Unsettled) -> JobsState:
    """Return everything that the judge needs besides the history.

    :param unsettled: why jobs can still change.
    """
    # in this order: the effect of a job that the engine calls done is there by then
    states = run.states()
    effects = run.effects()
    return JobsState(
        case=run.case,
        settings=run.settings,
        ends=run.ends,
        effects=effects,
        states=states,
        after_stale=run.after_stale,
        interrupted=run.interrupted,
        exits=tuple(
            ExitedWorker(
                worker=one.worker,
                code=one.exit_code,
                seconds=one.seconds,
                sqlstates=one.sqlstates,
                last=one.last_line,
            )
            for one in run.exits
        ),
        given_up=run.given_up,
        not_installed=run.not_installed,
        unsettled=unsettled,
        waited_s=round(run.waited_s, 1),
        pause_s=round(run.pauses.longest_s, 2),
        left=run.left,
        changes=run.changes,
        actor=ACTOR_ID,
        correlation=CORRELATION,
        # a control must be seen where a limit is documented, too
        foreseen=tuple(
            Foreseen(expectation=entry.expectation, outcome=entry.outcome)
            for entry in documented(run)
            if entry.limit and not run.ctx.control
        ),
    )


def documented(run: JobRun) -> list[Documented]:
    """Return what is documented about this case here: of the engine itself, then of all of them."""
    entries = (*run.engine.file.documented, *documented_for_all())
    return [entry for entry in entries if is_about(entry, run.case, run.variant, run.ctx.topology)]


def is_about(entry: Documented, case: Case, variant: str, topology: Topology) -> bool:
    """Return whether an entry is about a case of a variant in a topology, as the topology runs."""
    mode = topology.pool_mode
    shares = mode in {PoolMode.TRANSACTION, PoolMode.STATEMENT}
    # the version of the pooler decides, too: where it does not track statements, clients of the harness do not prepare
    prepared = ("untracked" if topology.client.prepare is Prepare.UNNAMED else "tracked") if shares else ""
    return (
        (not entry.cases or case in entry.cases)
        and (not entry.variants or variant in entry.variants)
        and (not entry.pool_modes or (mode or "direct") in entry.pool_modes)
        and entry.prepared_statements in {"", prepared}
    )


def record_facts(run: JobRun) -> None:
    """Record what is documented about what was seen: as a limit, or as advice for an Issue."""
    ctx = run.ctx
    ctx.fact("jobs", f"{len(run.ends)} enqueued")
    ctx.fact("longest pause of the machine", f"{run.pauses.longest_s:.2f} s")
    if exits := run.exits:
        ctx.fact("exits of workers", len(exits))
        ctx.fact("last line of the last exit", exits[-1].last_line)
    if left := [name for one in run.exits for name in one.left_behind]:
        ctx.fact("processes that exited workers left behind", ", ".join(left))
    if printed := run.printed_sqlstates:
        ctx.fact("SQLSTATEs that workers printed", ", ".join(printed))
    seen = {found.name for found in ctx.expectations if found.observed not in {"0", "yes"}}
    if STUCK in seen and (rescue := run.engine.file.sql.rescue):
        ctx.fact("what frees stuck jobs", " ".join(rescue.split()))
    matching = [entry for entry in documented(run) if entry.expectation in seen or (seen and not entry.expectation)]
    for advice in matching[:1]:
        ctx.fact("instead", advice.instead)
        ctx.fact("source", advice.source)
    for entry in [one for one in matching if one.limit][:1]:
        ctx.documented_limit(entry.outcome, entry.source)
