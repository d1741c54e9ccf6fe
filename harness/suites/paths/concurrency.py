"""Two callers that run a path concurrently, on server connections that they have to share."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING

from harness.checks.record import CheckRecord, NotExercisedError
from harness.errors import TimedOutError
from harness.host.site import Values
from harness.suites.paths.expectations import (
    expected_table_rows,
    keys_of,
    path_run,
    require_exercised,
    same_actor,
    table_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.host.declarations import Caller, PathDeclaration
    from harness.host.path_rows import Seen
    from harness.host.path_runner import Attempt, PathRun

#: the expectation that a row with another caller's actor breaks
OTHERS = "rows that name another caller"
#: the expectation that a row breaks which is in the trail but not in the table
IN_TABLE = "attempts whose rows are in the table"
#: threads per caller, and attempts per thread
_THREADS_PER_CALLER, _ROUNDS = 2, 4


def two_callers(path: PathDeclaration, ctx: CheckRecord) -> None:
    """Run the path with two callers concurrently, and expect every row to name its own caller."""
    callers = ctx.site.callers[:2]
    if len(callers) < 2:
        raise NotExercisedError(f"expected two callers with different actors; {ctx.site.name} declares {len(callers)}")
    if callers[0].actor == callers[1].actor:
        raise NotExercisedError("the two declared callers have the same actor")
    if path.expect and path.expect.actor:
        raise NotExercisedError("the path declares one actor for all callers")
    with path_run(path, ctx) as run, _server_connections(ctx) as pids_by_actor:
        attempts = _run_concurrently(path, ctx, callers, run)
        _judge(ctx, run, attempts, pids_by_actor)


def _judge(
    ctx: CheckRecord, run: PathRun, attempts: list[Attempt], pids_by_actor: Callable[[set[str]], dict[str, set[int]]]
) -> None:
    done = [attempt for attempt in attempts if attempt.succeeded]
    ctx.expect("attempts answered as declared", len(done), equals=len(attempts))
    end = time.monotonic() + run.declared.deadline_s
    complete = others = wrong = 0
    results: list[tuple[Values, Seen]] = []
    transactions: set[str] = set()
    for attempt in done:
        left_s = max(0.2, end - time.monotonic())
        run.rows.wait_for(attempt.values, wanted=run.expected.rows, deadline_s=left_s)
    if done:
        run.rows.watch(done[-1].values, run.expected.rows)
    for attempt in done:
        seen = run.rows.seen(attempt.values)
        results.append((attempt.values, seen))
        complete += len(seen.changes) == len(seen.all_changes) == run.expected.rows
        others += sum(not same_actor(change.actor, attempt.values.actor) for change in seen.all_changes)
        right = attempt.values.text(run.expected.correlation) if run.site.target.statements.actions else ""
        wrong += bool(right) and any(action is None or action.correlation_id != right for action in seen.actions)
        transactions |= set(seen.transactions)
    ctx.expect("attempts with exactly their rows in the trail", complete, equals=len(done))
    ctx.expect(OTHERS, others, equals=0)
    ctx.expect("attempts with another correlation in the trail", wrong, equals=0)
    ctx.expect("transactions", len(transactions), equals=len(done))
    # where attempts change the same row, the table holds the last value only
    attempts_by_key = Counter(key for _, seen in results for key in keys_of(seen))
    lasting = [
        (values, seen)
        for values, seen in results
        if run.expected.operation != "update" or all(attempts_by_key[key] == 1 for key in keys_of(seen))
    ]
    in_table = 0
    for values, seen in lasting:
        table = table_rows(run, values)
        in_table += expected_table_rows(run, seen) in {table.count, table.loosely}
    if lasting:
        ctx.expect(IN_TABLE, in_table, equals=len(lasting))
    else:
        ctx.fact(IN_TABLE, "unknown: every attempt changed the same row as another one")
    _require_sharing(ctx, pids_by_actor(transactions), len(attempts))


def _run_concurrently(
    path: PathDeclaration, ctx: CheckRecord, callers: tuple[Caller, ...], parent: PathRun
) -> list[Attempt]:
    """Run the path in several threads per caller, all of them starting each round together.

    :param parent: cleans up after every attempt, and holds the connection for jobs: one per thread would be more
        server connections than some pools have.
    """
    barrier = Barrier(len(callers) * _THREADS_PER_CALLER)

    def run_rounds(caller: Caller) -> list[Attempt]:
        attempts = []
        try:
            with path_run(path, ctx, parent) as run:
                for _ in range(_ROUNDS):
                    values = Values(caller)
                    prepared = run.prepare(values)
                    barrier.wait(path.deadline_s)  # broken for all threads when one ends early
                    attempt = run.act(values, prepared) if prepared.succeeded else prepared
                    attempts.append(require_exercised(attempt))
                for attempt in attempts:  # a job that never ends shows as missing rows
                    with contextlib.suppress(TimedOutError):
                        run.job_ended(attempt)
        except BaseException:
            barrier.abort()  # release the other threads
            raise
        return attempts

    with ThreadPoolExecutor(len(callers) * _THREADS_PER_CALLER) as pool:
        futures = [pool.submit(run_rounds, caller) for caller in callers for _ in range(_THREADS_PER_CALLER)]
        errors = [error for future in futures if (error := future.exception())]
        # a broken barrier follows from another thread's error, which is the one to report
        for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
            if isinstance(error, BrokenBarrierError):
                raise NotExercisedError("the callers did not start a round at the same time") from None
            raise error
        return [attempt for future in futures for attempt in future.result()]


@contextlib.contextmanager
def _server_connections(ctx: CheckRecord) -> Iterator[Callable[[set[str]], dict[str, set[int]]]]:
    """Record the server process and the actor of each transaction's record.

    Yields a function from transaction ids to the pids of the server connections that wrote them, by actor id. It
    returns nothing in an environment: only servers that the harness started get the trigger that records this.
    """
    if ctx.site.admin is None:
        yield lambda _transactions: {}
        return
    name = f"public.harness_served_{secrets.token_hex(4)}"
    with ctx.site.admin() as admin:
        admin.run(
            f"CREATE TABLE {name} (transaction_id text, pid int, actor jsonb);"
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $t$ BEGIN "
            f"INSERT INTO {name} VALUES (NEW.id::text, pg_backend_pid(), NEW.actor_ref); RETURN NULL; END $t$;"
            f"CREATE TRIGGER {name.rpartition('.')[2]} AFTER INSERT ON public.audit_transactions FOR EACH ROW "
            f"EXECUTE FUNCTION {name}()"
        )
        try:

            def read(transactions: set[str]) -> dict[str, set[int]]:
                pids_by_actor: dict[str, set[int]] = {}
                for transaction, pid, actor in admin.rows(f"SELECT transaction_id, pid, actor FROM {name}"):
                    if transaction in transactions:
                        pids_by_actor.setdefault(str((actor or {}).get("id")), set()).add(pid)
                return pids_by_actor

            yield read
        finally:
            admin.run(f"DROP FUNCTION {name}() CASCADE; DROP TABLE {name}")


def _require_sharing(ctx: CheckRecord, pids_by_actor: dict[str, set[int]], writes: int) -> None:
    """Record a server connection that wrote for both callers; without sharing, separation proves nothing.

    :raises NotExercisedError: when sharing is observable, and no server connection wrote for both.
    """
    if ctx.site.admin is None:
        ctx.fact("shared", f"{writes} writes by two callers; sharing of server connections is not observable here")
        return
    ctx.fact("server connections by caller", {actor: sorted(pids) for actor, pids in sorted(pids_by_actor.items())})
    shared = set.intersection(*pids_by_actor.values()) if len(pids_by_actor) > 1 else set()
    if not shared:
        raise NotExercisedError("no server connection wrote for both callers")
    pid = min(shared)
    ctx.probed("one server connection wrote for both callers", pid, pid)
