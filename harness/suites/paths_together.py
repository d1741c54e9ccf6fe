"""Two callers who take a path at the same moment, over server connections that they have to share."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.findings import Findings, NotExercisedError
from harness.errors import TimedOutError
from harness.host.site import Values
from harness.host.taking import Taken
from harness.suites.path_expectations import require_exercised, same_actor, the_path

if TYPE_CHECKING:
    from harness.host.declared import Caller, PathDeclaration
    from harness.host.jobs import ObanJobs

#: the expectation that a row of another caller turns
OTHERS = "rows that name another caller"
#: each caller's threads, and how often each of them takes the path
_SIDE_BY_SIDE, _ROUNDS = 2, 4


class _Time(Struct, frozen=True):
    """One time that the path was taken."""

    values: Values
    taken: Taken


def two_callers(declared: PathDeclaration, bench: Findings) -> None:
    """Let two callers take the path side by side, and find each one's rows under their own name."""
    callers = bench.site.callers[:2]
    if len(callers) < 2:
        raise NotExercisedError(
            f"two callers with different actors are needed; {bench.site.name} declares {len(callers)}"
        )
    if callers[0].actor == callers[1].actor:
        raise NotExercisedError("the two callers that are declared are the same actor")
    if declared.expect and declared.expect.actor:
        raise NotExercisedError("the path is declared to have one actor, whoever calls")
    with the_path(declared, bench) as path:
        # a server connection for each of them would be more than some pools have
        jobs = path.jobs(declared.job) if declared.job else None
        times = _side_by_side(declared, bench, callers, jobs)
        done = [each for each in times if each.taken.succeeded]
        bench.expect("times it was answered as declared", len(done), equals=len(times))
        end = time.monotonic() + declared.deadline_s
        whole = others = wrong = 0
        transactions: set[str] = set()
        for each in done:
            left_s = max(0.2, end - time.monotonic())
            path.wait_for_rows(each.values, wanted=path.expected.rows, deadline_s=left_s)
        if done:
            path.watch(done[-1].values, path.expected.rows)
        for each in done:
            seen = path.seen(each.values)
            whole += len(seen.changes) == len(seen.beside) == path.expected.rows
            others += sum(not same_actor(change.actor, each.values.actor) for change in seen.beside)
            right = each.values.text(path.expected.correlation)
            wrong += bool(right) and any(action is None or action.correlation_id != right for action in seen.actions)
            transactions |= set(seen.transactions)
        bench.expect("times exactly its rows were found", whole, equals=len(done))
        bench.expect(OTHERS, others, equals=0)
        bench.expect("times another correlation was found", wrong, equals=0)
        bench.expect("transactions", len(transactions), equals=len(done))
    _require_sharing(bench, len(times))


def _side_by_side(
    declared: PathDeclaration, bench: Findings, callers: tuple[Caller, ...], jobs: ObanJobs | None
) -> list[_Time]:
    together = Barrier(len(callers) * _SIDE_BY_SIDE)

    def rounds(caller: Caller) -> list[_Time]:
        times = []
        try:
            with the_path(declared, bench, jobs) as path:
                for _ in range(_ROUNDS):
                    values = Values(caller)
                    prepared = path.prepare(values)
                    together.wait(declared.deadline_s)
                    taken = path.act(values, prepared) if prepared.succeeded else prepared
                    times.append(_Time(values, require_exercised(taken)))
                for each in times:  # one that never ends shows by its rows
                    with contextlib.suppress(TimedOutError):
                        path.job_ended(each.taken)
        except BaseException:
            together.abort()  # the others are not kept waiting
            raise
        return times

    with ThreadPoolExecutor(len(callers) * _SIDE_BY_SIDE) as pool:
        running = [pool.submit(rounds, caller) for caller in callers for _ in range(_SIDE_BY_SIDE)]
        errors = [error for each in running if (error := each.exception())]
        for error in sorted(errors, key=lambda each: isinstance(each, BrokenBarrierError)):
            if isinstance(error, BrokenBarrierError):
                raise NotExercisedError("the callers could not be brought to one moment") from None
            raise error
        return [each for done in running for each in done.result()]


def _require_sharing(bench: Findings, times: int) -> None:
    """Record which server connections served; with more writes than connections, some were shared."""
    if bench.site.admin is None:
        bench.fact("shared", f"{times} writes by two callers; who shared a server connection is not visible from here")
        return
    with bench.site.admin() as admin:
        pids = [
            pid
            for (pid,) in admin.rows(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'harness_app' "
                "ORDER BY pid"
            )
        ]
    bench.fact("server connections of the application", pids)
    if not 0 < len(pids) < times:
        raise NotExercisedError(
            f"{times} writes over {len(pids)} server connections: nothing shows that two callers shared one"
        )
    bench.fact("shared", f"{times} writes of two callers over {len(pids)} server connections")
