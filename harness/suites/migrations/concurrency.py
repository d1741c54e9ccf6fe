"""Two runs of a project's migrations at the same time: one waits or fails, and the schema is whole after them."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from harness.checks.record import NotExercisedError
from harness.database import SqlError
from harness.errors import TimedOutError
from harness.host.command import CommandResult
from harness.suites.migrations.advice import record_lock_limit
from harness.suites.migrations.queries import GATE, QUERIES, enter
from harness.suites.migrations.running import StepFailedError
from harness.suites.migrations.stepping import Relay, StartingLine
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.database import Client
    from harness.suites.migrations.running import MigrationRun

LEFT = "what two runs at a time leave different"
_PASSED = "runs that are past the lock at the same time"
_ONE, _TWO, _THIRD = "the first of two runs", "the second of two runs", "a third run"
#: what the evidence says about the lock of the runs
_WATCHED = "a session-level advisory lock; the run was paused while it held it"
_LOCKED_LATER = "a session-level advisory lock, first seen after the first DDL statement, so it was not watched"
_TOO_LATE = "a session-level advisory lock, which was not watched: the second run took too long to connect"
#: how the evidence says that the runs overlapped
_OVERLAPPED = "two runs at a time"
_IN_STEP = "in step: each DDL statement waits for the other run"
#: why runs in step show nothing: what they waited for was the harness
_WAITED_FOR_GATE = (
    "a statement such as CREATE INDEX CONCURRENTLY waits for older transactions, also for one that the harness stops"
)
_TIMED_OUT_AT_GATE = "a statement timed out, and the harness had stopped statements"
#: how long a run that has connected may take to its lock or its first DDL, seconds
_SETTLES_S = 6.0
#: two runs go through their DDL statements in step until so many turns have passed
_MOST_TURNS = 60
#: a run that is at no DDL statement and waits for no lock is waited for, seconds
_TURN_S = 1.0
#: how long the removal of the gate waits for locks that the commands left behind, seconds
_REMOVED_S = 10
_LOCK_NOT_AVAILABLE = "55P03"
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
#: the end of a session or a statement that took longer than its session, its client or the pooler allows
_TIMED_OUT = re.compile(
    r"due to (?:statement|transaction|idle-session|idle-in-transaction(?: session)?) timeout"
    r"|(?:query|query_wait|client_idle|idle_transaction)_timeout|query (?:read )?timeout",
    re.IGNORECASE,
)


class Overlap(Struct, frozen=True, kw_only=True):
    """The result of two runs at the same time."""

    one: CommandResult
    two: CommandResult
    #: the session-level advisory lock of a run, and whether the other run was watched meanwhile; "" without one
    lock: str = ""
    #: whether the second run began to change the schema while the first one held its lock; None when it neither did
    #: that, nor waited, nor ended
    passed_lock: bool | None = None
    #: whether a statement waited for transactions that the harness may have stopped
    waited_for_gate: bool = False

    @property
    def timed_out(self) -> bool:
        """Whether no run succeeded, and a statement that the harness stopped may have waited for too long."""
        ends = (self.one, self.two)
        return all(ended.exit_code != 0 for ended in ends) and any(_TIMED_OUT.search(ended.output) for ended in ends)

    @property
    def of_the_harness(self) -> str:
        """Why the end of the runs may be an effect of the harness; "" when it is theirs."""
        return _WAITED_FOR_GATE if self.waited_for_gate else _TIMED_OUT_AT_GATE if self.timed_out else ""


def concurrent(run: MigrationRun) -> None:
    """Compare the schema after two runs at a time with that after one, and let a third run change nothing."""
    up, ctx = run.declared.up, run.ctx
    alone = run.new_database("alone")
    run.migrate("a run alone", up, alone)
    wanted = run.catalogue(alone, "after a run alone")
    run.expect_objects("a run alone creates objects", wanted)
    database = run.new_database("both")
    overlap = _in_step(run, database)
    _judge_lock(run, overlap)
    how = _IN_STEP
    if reason := overlap.of_the_harness:
        how = f"from the same moment on, and not in step: {reason}"
        database = run.new_database("free")
        overlap = _side_by_side(run, database)
    ctx.fact(_OVERLAPPED, how)
    _judge(run, overlap)
    run.expect_no_locks("two runs at a time", database)
    run.interfere("both", database)
    found = run.catalogue(database, "after two runs at a time")
    run.expect_same(LEFT, wanted, found)
    run.migrate(_THIRD, up, database)
    run.expect_same("what a third run changes", found, run.catalogue(database, "after a third run"))


def _judge_lock(run: MigrationRun, overlap: Overlap) -> None:
    if overlap.lock:
        run.ctx.fact("lock of the runs", overlap.lock)
    if overlap.passed_lock is not None:
        passed = run.ctx.expect(_PASSED, 2 if overlap.passed_lock else 1, equals=1)
        if not passed and not run.declared.direct:
            record_lock_limit(run.ctx)


def _judge(run: MigrationRun, overlap: Overlap) -> None:
    ctx, ends = run.ctx, {_ONE: overlap.one, _TWO: overlap.two}
    codes = [ended.exit_code for ended in ends.values()]
    said = " and ".join("none" if code is None else str(code) for code in codes)
    ctx.fact("exit codes of the two runs", said)
    for step, ended in ends.items():
        with contextlib.suppress(StepFailedError):  # the schema after it is judged as well
            run.judge(step, ended)
    if 0 not in codes:
        for step, ended in ends.items():
            run.require_rights(step, ended)
    if not ctx.expect("exit code of one of the two runs", "0" if 0 in codes else said, equals="0"):
        run.failed(overlap.one)


def _in_step(run: MigrationRun, database: str) -> Overlap:
    """Run two at a time, in step: each DDL statement waits until the other run is at one, waits for a lock or ended."""
    address, up, deadline_s = run.address(database), run.declared.up, run.declared.deadline_s
    with contextlib.ExitStack() as stack:
        holder, look, lock_look = (stack.enter_context(enter(run.ctx.lab, database)) for _ in range(3))
        gate = _Gate(holder, look)
        pool = stack.enter_context(ThreadPoolExecutor(2))
        holds_lock: Callable[[], bool] = lambda: bool(lock_look.rows(QUERIES["session_locks"]))  # noqa: E731
        first, second = (stack.enter_context(Relay(address, holds_lock)) for _ in range(2))
        second.go_on()  # only the first run is paused
        stack.callback(gate.open)
        second_ended = Event()
        one = pool.submit(run.run, _ONE, up, database, first, alone=second_ended.is_set)
        _wait(lambda: one.done() or first.is_paused or gate.look().at_gate > 0, deadline_s)
        two = pool.submit(run.run, _TWO, up, database, second, alone=one.done)
        two.add_done_callback(lambda _two: second_ended.set())
        _wait(lambda: two.done() or second.connections > 0, deadline_s)
        has_lock = first.is_paused
        most = 0 if has_lock else 1
        shown = _wait(
            lambda: one.done() or two.done() or (seen := gate.look()).at_gate > most or seen.elsewhere > 0,
            _SETTLES_S,
        )
        reached = gate.look().at_gate > 0
        # a first run that goes on or ends gives its lock back, and may itself be at the gate
        passed = reached if has_lock and shown and first.is_paused and not one.done() else None
        first.go_on()
        for _ in range(_MOST_TURNS):
            if one.done() or two.done() or gate.waited_for:
                break
            _wait(lambda: one.done() or two.done() or sum(gate.look()) > 1 or gate.waited_for, _TURN_S)
            gate.next_turn()
        gate.open()
        _wait(lambda: all((gate.look(), one.done(), two.done())), deadline_s)
        ended = one.result(), two.result()
        gate.remove()
        locked_later = first.locked_later or second.locked_later
        lock = _WATCHED if has_lock else _TOO_LATE if first.was_paused else _LOCKED_LATER if locked_later else ""
    return Overlap(one=ended[0], two=ended[1], lock=lock, passed_lock=passed, waited_for_gate=gate.waited_for)


def _side_by_side(run: MigrationRun, database: str) -> Overlap:
    """Run two at a time without stopping them: their first logins are answered at the same moment.

    :raises NotExercisedError: when one of them ends before the other one has logged in.
    """
    address, up = run.address(database), run.declared.up
    line = StartingLine(2)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        first, second = (stack.enter_context(Relay(address, line=line)) for _ in range(2))
        first_ended, second_ended = Event(), Event()

        def go(step: str, relay: Relay, ended: Event, other_ended: Event) -> CommandResult:
            try:
                return run.run(step, up, database, relay, alone=other_ended.is_set)
            finally:
                ended.set()
                line.give_up()

        one = pool.submit(go, _ONE, first, first_ended, second_ended)
        two = pool.submit(go, _TWO, second, second_ended, first_ended)
        overlap = Overlap(one=one.result(), two=two.result())
    if not line.was_crossed:
        raise NotExercisedError(
            "two runs that the harness does not stop did not overlap: one ended before the other logged in"
        )
    return overlap


class _Waiting(NamedTuple):
    """How many sessions of a database wait."""

    at_gate: int
    #: for locks of other sessions
    elsewhere: int


class _Gate:
    """Stops each DDL statement in a database until its turn comes."""

    def __init__(self, holder: Client, look: Client) -> None:
        """Close the gate.

        :param holder: a connection that holds it.
        :param look: another one, which looks at it.
        """
        self._holder, self._look = holder, look
        self._turn: int | None = 1
        #: whether a statement was seen that waits until older transactions end: each one at the gate is such a one
        self.waited_for = False
        holder.run(QUERIES["gate"])
        holder.run(f"SELECT pg_advisory_lock({GATE}, 1)")

    def look(self) -> _Waiting:
        """Return how many runs wait at the gate, and how many locks are waited for elsewhere."""
        [(at_gate, elsewhere, for_transactions)] = self._look.rows(QUERIES["waiting"])
        self.waited_for = self.waited_for or for_transactions > 0
        return _Waiting(at_gate, elsewhere)

    def next_turn(self) -> None:
        """Let those go on that wait at the gate, and stop the others at their next DDL statement."""
        if self._turn is not None:
            self._holder.run(f"SELECT pg_advisory_lock({GATE}, {self._turn + 1})")
            self._holder.run(QUERIES["next_turn"])
            self._holder.run(f"SELECT pg_advisory_unlock({GATE}, {self._turn})")
            self._turn += 1

    def open(self) -> None:
        """Let everything pass from now on."""
        self._turn = None
        self._holder.run("SELECT pg_advisory_unlock_all()")

    def remove(self) -> None:
        """Remove the gate, so that it is in no catalogue.

        :raises NotExercisedError: when the commands left a lock behind that the removal has to wait for.
        """
        self._holder.run(f"SET lock_timeout = '{_REMOVED_S}s'")
        try:
            self._holder.run(QUERIES["no_gate"])
        except SqlError as error:
            if error.sqlstate != _LOCK_NOT_AVAILABLE:
                raise
            prepared = [str(gid) for (gid,) in self._look.rows(_PREPARED)]
            holder = f"the prepared transaction {', '.join(prepared)}" if prepared else "a session"
            raise NotExercisedError(f"{holder} of the commands still has locks after both runs") from None


def _wait(seen: Callable[[], bool], deadline_s: float) -> bool:
    """Wait until a condition holds, or the deadline passes, and return whether it held."""

    def probe() -> bool:
        if not seen():
            raise NotYet("not yet")
        return True

    try:
        return poll(probe, what="two runs at a time", deadline_s=deadline_s, interval_s=0.01)
    except TimedOutError:
        return False
