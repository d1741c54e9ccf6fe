"""Two callers who take a path at the same moment, over server connections that they have to share."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.record import CheckRecord, NotExercisedError
from harness.errors import TimedOutError
from harness.host.path_runner import Attempt
from harness.host.site import Values
from harness.suites.paths.expectations import keys_of, require_exercised, rows_there, same_actor, the_path, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.host.declarations import Caller, PathDeclaration
    from harness.host.path_runner import PathRun, Seen

#: the expectation that a row of another caller turns
OTHERS = "rows that name another caller"
#: the expectation that a row turns which is in the trail, and not in the table
THERE = "times the table held what the trail tells of"
#: each caller's threads, and how often each of them takes the path
_SIDE_BY_SIDE, _ROUNDS = 2, 4


class _Time(Struct, frozen=True):
    """One time that the path was taken."""

    values: Values
    taken: Attempt


def two_callers(declared: PathDeclaration, ctx: CheckRecord) -> None:
    """Let two callers take the path side by side, and find each one's rows under their own name."""
    callers = ctx.site.callers[:2]
    if len(callers) < 2:
        raise NotExercisedError(
            f"two callers with different actors are needed; {ctx.site.name} declares {len(callers)}"
        )
    if callers[0].actor == callers[1].actor:
        raise NotExercisedError("the two callers that are declared are the same actor")
    if declared.expect and declared.expect.actor:
        raise NotExercisedError("the path is declared to have one actor, whoever calls")
    with the_path(declared, ctx) as path, _served(ctx) as served:
        times = _side_by_side(declared, ctx, callers, path)
        _judge(ctx, path, times, served)


def _judge(ctx: CheckRecord, path: PathRun, times: list[_Time], served: Callable[[set[str]], dict[str, set[int]]]) -> None:
    done = [each for each in times if each.taken.succeeded]
    ctx.expect("times it was answered as declared", len(done), equals=len(times))
    end = time.monotonic() + path.declared.deadline_s
    whole = others = wrong = 0
    found: list[tuple[Values, Seen]] = []
    transactions: set[str] = set()
    for each in done:
        left_s = max(0.2, end - time.monotonic())
        path.wait_for_rows(each.values, wanted=path.expected.rows, deadline_s=left_s)
    if done:
        path.watch(done[-1].values, path.expected.rows)
    for each in done:
        seen = path.seen(each.values)
        found.append((each.values, seen))
        whole += len(seen.changes) == len(seen.all_changes) == path.expected.rows
        others += sum(not same_actor(change.actor, each.values.actor) for change in seen.all_changes)
        right = each.values.text(path.expected.correlation) if path.site.target.statements.actions else ""
        wrong += bool(right) and any(action is None or action.correlation_id != right for action in seen.actions)
        transactions |= set(seen.transactions)
    ctx.expect("times exactly its rows were found", whole, equals=len(done))
    ctx.expect(OTHERS, others, equals=0)
    ctx.expect("times another correlation was found", wrong, equals=0)
    ctx.expect("transactions", len(transactions), equals=len(done))
    # where they change one and the same row, only the last of them is still there
    times_of = Counter(key for _, seen in found for key in keys_of(seen))
    lasting = [
        (values, seen)
        for values, seen in found
        if path.expected.operation != "update" or all(times_of[key] == 1 for key in keys_of(seen))
    ]
    there = 0
    for values, seen in lasting:
        table = rows_there(path, values)
        there += written(path, seen) in {table.count, table.loosely}
    if lasting:
        ctx.expect(THERE, there, equals=len(lasting))
    else:
        ctx.fact(THERE, "cannot be told: each time changed the same row as another")
    _require_sharing(ctx, served(transactions), len(times))


def _side_by_side(declared: PathDeclaration, ctx: CheckRecord, callers: tuple[Caller, ...], whole: PathRun) -> list[_Time]:
    # for its jobs too: a server connection for each of them would be more than some pools have
    together = Barrier(len(callers) * _SIDE_BY_SIDE)

    def rounds(caller: Caller) -> list[_Time]:
        times = []
        try:
            with the_path(declared, ctx, whole) as path:
                for _ in range(_ROUNDS):
                    values = Values(caller)
                    prepared = path.prepare(values)
                    together.wait(declared.deadline_s)  # broken for all when one of them ends early
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


@contextlib.contextmanager
def _served(ctx: CheckRecord) -> Iterator[Callable[[set[str]], dict[str, set[int]]]]:
    """Record which server process each transaction's record was written by, and under whose name.

    Only where the harness stood the servers up. Yields a function that returns actor id to pids, of some transactions.
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
                found: dict[str, set[int]] = {}
                for transaction, pid, actor in admin.rows(f"SELECT transaction_id, pid, actor FROM {name}"):
                    if transaction in transactions:
                        found.setdefault(str((actor or {}).get("id")), set()).add(pid)
                return found

            yield read
        finally:
            admin.run(f"DROP FUNCTION {name}() CASCADE; DROP TABLE {name}")


def _require_sharing(ctx: CheckRecord, served: dict[str, set[int]], times: int) -> None:
    """Record a server connection that wrote for both callers; without one nothing shows that they were apart.

    :raises NotExercisedError: where it could have been seen, and was not.
    """
    if ctx.site.admin is None:
        ctx.fact("shared", f"{times} writes by two callers; who shared a server connection is not visible from here")
        return
    ctx.fact("server connections by caller", {actor: sorted(pids) for actor, pids in sorted(served.items())})
    both = set.intersection(*served.values()) if len(served) > 1 else set()
    if not both:
        raise NotExercisedError("no server connection was seen to write for both callers")
    pid = min(both)
    ctx.probed("one server connection wrote for both callers", pid, pid)
