"""Two runs of a project's migrations at the same time: one waits or fails, and the schema is whole after them."""

from __future__ import annotations

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.record import NotExercisedError
from harness.errors import TimedOutError
from harness.host.command import CommandResult
from harness.suites.migrations.advice import record_lock_limit
from harness.suites.migrations.running import GATE, QUERIES, StepFailedError
from harness.suites.migrations.stepping import Relay
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
#: how long a run that has connected may take to its lock or its first DDL, seconds
_SETTLES_S = 6.0
#: two runs go through their DDL statements in step until so many turns have passed
_MOST_TURNS = 60
#: a run that is at no DDL statement and waits for no lock is waited for, seconds
_TURN_S = 1.0
#: the end of a statement that took longer than its session, its client or the pooler allows
_TIMED_OUT = re.compile(r"due to (statement|transaction) timeout|query(_| read | )timeout", re.IGNORECASE)


class Overlap(Struct, frozen=True, kw_only=True):
    """The result of two runs at the same time."""

    one: CommandResult
    two: CommandResult
    #: the session-level advisory lock of a run, and whether the other run was watched meanwhile; "" without one
    lock: str
    #: whether the second run began to change the schema while the first one held its lock; None when it neither did
    #: that, nor waited, nor ended
    passed_lock: bool | None

    @property
    def timed_out(self) -> bool:
        """Whether no run succeeded, and a statement that the harness stopped may have waited for too long."""
        ends = (self.one, self.two)
        return all(ended.exit_code != 0 for ended in ends) and any(_TIMED_OUT.search(ended.output) for ended in ends)


def concurrent(run: MigrationRun) -> None:
    """Compare the schema after two runs at a time with that after one, and let a third run change nothing."""
    up, ctx = run.declared.up, run.ctx
    alone = run.new_database("alone")
    run.migrate("a run alone", up, alone)
    wanted = run.catalogue(alone, "after a run alone")
    ctx.expect("a run alone creates objects", wanted.has_objects, equals=True)
    database = run.new_database("both")
    overlap = _overlap(run, database)
    _judge(run, overlap)
    run.expect_no_locks("two runs at a time", database)
    run.interfere("both", database)
    found = run.catalogue(database, "after two runs at a time")
    run.expect_same(LEFT, wanted, found)
    run.migrate(_THIRD, up, database)
    run.expect_same("what a third run changes", found, run.catalogue(database, "after a third run"))


def _judge(run: MigrationRun, overlap: Overlap) -> None:
    ctx = run.ctx
    ctx.fact("exit codes of the two runs", [overlap.one.exit_code, overlap.two.exit_code])
    if overlap.lock:
        ctx.fact("lock of the runs", overlap.lock)
    if overlap.passed_lock is not None:
        passed = ctx.expect(_PASSED, 2 if overlap.passed_lock else 1, equals=1)
        if not passed and not run.declared.direct:
            record_lock_limit(ctx)
    for step, ended in ((_ONE, overlap.one), (_TWO, overlap.two)):
        with contextlib.suppress(StepFailedError):  # the schema after it is judged as well
            run.judge(step, ended)
    if overlap.timed_out:
        raise NotExercisedError(
            "neither of two runs at a time succeeded, and a statement timed out: the harness lets each DDL statement "
            "wait for the other run; try a longer statement_timeout"
        )
    codes = [overlap.one.exit_code, overlap.two.exit_code]
    if not ctx.expect("one of the two runs succeeds", 0 in codes, equals=True):
        run.failed(overlap.one)


def _overlap(run: MigrationRun, database: str) -> Overlap:
    """Run two at a time, in step: each DDL statement waits until the other run is at one, waits for a lock or ended."""
    address, up, deadline_s = run.address(database), run.declared.up, run.declared.deadline_s
    with contextlib.ExitStack() as stack:
        connect = run.ctx.lab.connect_admin
        gate = _Gate(stack.enter_context(connect(database)), stack.enter_context(connect(database)))
        lock_look = stack.enter_context(connect(database))
        pool = stack.enter_context(ThreadPoolExecutor(2))
        holds_lock: Callable[[], bool] = lambda: bool(lock_look.rows(QUERIES["session_locks"]))  # noqa: E731
        first, second = (stack.enter_context(Relay(address, holds_lock)) for _ in range(2))
        second.go_on()  # only the first run is paused
        stack.callback(gate.open)
        second_ended = Event()
        one = pool.submit(run.run, _ONE, up, database, first, alone=second_ended.is_set)
        _wait(lambda: one.done() or first.is_paused or gate.reached() > 0, deadline_s)
        two = pool.submit(run.run, _TWO, up, database, second, alone=one.done)
        two.add_done_callback(lambda _two: second_ended.set())
        _wait(lambda: two.done() or second.connections > 0, deadline_s)
        has_lock = first.is_paused
        most = 0 if has_lock else 1
        shown = _wait(
            lambda: one.done() or two.done() or gate.reached() > most or gate.waits() > 0,
            _SETTLES_S,
        )
        reached = gate.reached() > 0
        # a first run that goes on or ends gives its lock back, and may itself be at the gate
        passed = reached if has_lock and shown and first.is_paused and not one.done() else None
        first.go_on()
        for _ in range(_MOST_TURNS):
            if one.done() or two.done():
                break
            _wait(lambda: one.done() or two.done() or gate.reached() + gate.waits() > 1, _TURN_S)
            gate.next_turn()
        gate.open()
        ended = one.result(), two.result()
        gate.remove()
        locked_later = first.locked_later or second.locked_later
        lock = _WATCHED if has_lock else _TOO_LATE if first.was_paused else _LOCKED_LATER if locked_later else ""
    return Overlap(one=ended[0], two=ended[1], lock=lock, passed_lock=passed)


class _Gate:
    """Stops each DDL statement in a database until its turn comes."""

    def __init__(self, holder: Client, look: Client) -> None:
        """Close the gate.

        :param holder: a connection that holds it.
        :param look: another one, which looks at it.
        """
        self._holder, self._look = holder, look
        self._turn: int | None = 1
        holder.run(QUERIES["gate"])
        holder.run(f"SELECT pg_advisory_lock({GATE}, 1)")

    def reached(self) -> int:
        """Return how many runs wait at the gate."""
        return int(self._look.value(QUERIES["at_gate"]))

    def waits(self) -> int:
        """Return how many locks are waited for elsewhere."""
        return int(self._look.value(QUERIES["waits"]))

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
        """Remove the gate, so that it is in no catalogue."""
        self._holder.run(QUERIES["no_gate"])


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
