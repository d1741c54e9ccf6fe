"""The clients of the mixed load: each runs one operation after another, and knows the outcome of all of them."""

from __future__ import annotations

import contextlib
import time
from array import array
from collections import Counter
from collections.abc import Callable
from threading import Lock, Timer
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges.soak import PLANNED, REPLAY
from harness.database import SqlError, describe, is_lost
from harness.suites.soak.tables import actor_of

if TYPE_CHECKING:
    from threading import Event

    from harness.checks.context import CheckContext
    from harness.model.history import Outcome
    from harness.store import Journal

_COLUMNS = "(client, seq, request, value)"
_VALUES = "%s::integer, %s::bigint, %s::text, %s::text"
#: a request that is sent again changes nothing
_ONCE = "ON CONFLICT (request) DO NOTHING"
_INSERT = f"INSERT INTO public.soak_writes {_COLUMNS} VALUES ({_VALUES}) {_ONCE}"
#: actor and insert in one statement, which is one transaction and one round trip
_ONE_STATEMENT = f"""
WITH actor AS MATERIALIZED (SELECT set_config(%s, %s, true))
INSERT INTO public.soak_writes {_COLUMNS} SELECT {_VALUES} FROM actor {_ONCE}"""
_CHANGE = "UPDATE public.soak_contended SET hits = hits + 1 WHERE client = %s"
_CANCEL_AFTER_S, _SLEEP_S, _CANCEL_S = 0.1, 3.0, 5.0


class Tally:
    """The operations of all clients of a load, counted; threads share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: operations by name, as they are meant to end: a planned error that did not happen is not among them
        self.performed: Counter[str] = Counter()
        #: of acknowledged operations, ms
        self.latencies_ms = array("d")
        self.failed = 0

    def add(self, operation: str, outcome: Outcome, latency_ms: float, *, as_meant: bool) -> None:
        with self._lock:
            self.performed[operation] += as_meant
            if outcome == "ok":
                self.latencies_ms.append(latency_ms)
            else:
                self.failed += 1

    def lacking(self) -> list[str]:
        """Return the operations of which none has ended as it is meant to."""
        with self._lock:
            return [operation for operation in OPERATIONS if not self.performed[operation]]

    def since(self, acknowledged: int) -> tuple[list[float], int]:
        """Return the latencies after the first few acknowledged operations, and how many operations failed in all."""
        with self._lock:
            return list(self.latencies_ms[acknowledged:]), self.failed


class LoadClient:
    """One client of the mixed load. Each of its operations writes one row at most, under a number of its own."""

    def __init__(self, ctx: CheckContext, number: int, journal: Journal, tally: Tally) -> None:
        """Connect through the chain, and once more directly: as the rival that this client collides with."""
        self.number = number
        self.actor = actor_of(number)
        #: the numbers of its operations by outcome
        self.outcomes: dict[Outcome, array[int]] = {"ok": array("q"), "fail": array("q"), "unknown": array("q")}
        self._ctx = ctx
        self._application = ctx.application
        self._journal = journal
        self._tally = tally
        #: whether the harness ends what the client does
        self.cut = False
        self._seq = 0
        self._requests = 0
        self._client = ctx.client()
        self._rival = ctx.another_owner()
        self._rival.run("INSERT INTO public.soak_contended (client) VALUES (%s)", [number])

    def work(self, stop: Event, interval_s: float, begins_at: int) -> None:
        """Run one operation after another until the load ends, at a steady pace.

        :param begins_at: the place in the cycle of operations, so that clients do different things.
        """
        due, place = time.monotonic(), begins_at
        while not stop.wait(max(0.0, due - time.monotonic())):
            kind = CYCLE[place % len(CYCLE)]
            cycle = (place - begins_at) // len(CYCLE)
            (kind if cycle % kind.cycles == 0 else INSERT).run(self)
            place += 1
            due = max(due + interval_s, time.monotonic() - interval_s)
        self._client.close()
        self._rival.close()

    # --- the operations -----------------------------------------------------------------------------

    def insert(self) -> None:
        """Write a row in one statement."""
        self._attempt("insert", self._once, self._new_request())

    def retry_after_conflict(self) -> None:
        """Lose a serialization conflict after the write, and send the request again."""

        def lose(seq: int, request: str) -> bool:
            self._begin("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            wrote = self._write(seq, request)
            self._rival.run(_CHANGE, [self.number])
            self._client.run(_CHANGE, [self.number])
            self._client.run("COMMIT")
            return wrote

        request = self._new_request()
        if self._attempt("conflict", lose, request) == "fail":
            self._attempt("retry", self._once, request)

    def retry_after_lock(self) -> None:
        """Give up a transaction because another one holds a lock, and send the request again once it is free."""

        def give_up(seq: int, request: str) -> bool:
            with self._rival.transaction():
                self._rival.run(_CHANGE, [self.number])
                self._begin()
                wrote = self._write(seq, request)
                self._client.run("SELECT FROM public.soak_contended WHERE client = %s FOR UPDATE NOWAIT", [self.number])
            self._client.run("COMMIT")
            return wrote

        request = self._new_request()
        if self._attempt("lock", give_up, request) == "fail":
            self._attempt("retry", self._once, request)

    def cancel(self) -> None:
        """Cancel a statement after the write."""

        def sleep(seq: int, request: str) -> bool:
            self._begin()
            self._write(seq, request)
            timer = Timer(_CANCEL_AFTER_S, self._send_cancel)
            timer.start()
            try:
                self._client.run("SELECT pg_sleep(%s)", [_SLEEP_S])
            finally:
                timer.join()  # a cancel request that is still on its way would hit the next statement
            self._client.run("ROLLBACK")  # the request was lost
            return False

        self._attempt("cancellation", sleep, self._new_request())

    def replay(self) -> None:
        """Send a request, and then the same once more, as a client does that has lost the answer."""
        request = self._new_request()
        if self._attempt("insert", self._once, request) == "ok":
            self._attempt(REPLAY, self._once, request)

    def violate(self) -> None:
        """Break a constraint after the write."""

        def break_it(seq: int, request: str) -> bool:
            self._begin()
            wrote = self._write(seq, request)
            self._client.run(_INSERT, [self.number, seq, f"{request} again", ""])
            self._client.run("COMMIT")
            return wrote

        self._attempt("violation", break_it, self._new_request())

    def reconnect(self) -> None:
        """Close the connection, and write on a new one."""
        self._client.close()
        self._client = self._ctx.client()
        self._attempt("reconnect", self._once, self._new_request())

    # --- their parts ----------------------------------------------------------------------------------

    def _new_request(self) -> str:
        self._requests += 1
        return f"{self.number}/{self._requests}"

    def _row(self, seq: int, request: str) -> list[object]:
        return [self.number, seq, request, f"write {self.number}-{seq}"]

    def _once(self, seq: int, request: str) -> bool:
        """Write a row with its actor in one statement, where the convention for actors allows it."""
        convention = self._application.convention
        if not convention.is_local:
            self._application.declare(self._client, self.actor)
            return self._write(seq, request)
        if not convention.setting:
            self._begin()
            wrote = self._write(seq, request)
            self._client.run("COMMIT")
            return wrote
        setting = [convention.setting, convention.spell(self.actor)]
        return self._client.run(_ONE_STATEMENT, [*setting, *self._row(seq, request)]) == 1

    def _begin(self, first: str = "") -> None:
        self._application.begin_audited(self._client, self.actor, first=first)

    def _write(self, seq: int, request: str) -> bool:
        return self._client.run(_INSERT, self._row(seq, request)) == 1

    def _send_cancel(self) -> None:
        with contextlib.suppress(SqlError):
            self._client.cancel_safe(timeout=_CANCEL_S)

    def _attempt(self, operation: str, act: Callable[[int, str], bool], request: str) -> Outcome:
        """Run one operation, and record its outcome: in the history unless it is an ordinary acknowledgement.

        :param act: gets the number of the operation and its request, and returns whether it wrote its row.
        """
        self._seq += 1
        seq, began, said = self._seq, time.monotonic(), ""
        planned = operation in PLANNED or operation == REPLAY
        if planned:
            self._journal.invoke(self.number, seq, operation, key=request, actor=self.actor.id or "")
        outcome: Outcome
        try:
            outcome = "ok" if act(seq, request) else "fail"
        except SqlError as error:
            outcome, said = "unknown" if is_lost(error) else "fail", describe(error)
            if self.cut and outcome == "unknown":
                operation = "interrupted"
            self._recover()
        latency_ms = (time.monotonic() - began) * 1000
        if said and not planned:
            self._journal.invoke(self.number, seq, operation, key=request, actor=self.actor.id or "")
        if said or planned:
            self._journal.answer(self.number, seq, outcome, said)
        self.outcomes[outcome].append(seq)
        self._tally.add(operation, outcome, latency_ms, as_meant=_is_as_meant(operation, outcome, said))
        return outcome

    def _recover(self) -> None:
        """Leave a failed transaction, on a new connection where the old one has ended."""
        try:
            self._client.run("ROLLBACK")
        except SqlError:
            self._client.close()
            self._client = self._ctx.client()


def _is_as_meant(operation: str, outcome: Outcome, said: str) -> bool:
    if operation in PLANNED:
        return said.startswith(PLANNED[operation])
    return outcome == ("fail" if operation == REPLAY else "ok") and not said


class Kind(Struct, frozen=True, kw_only=True):
    """A kind of work."""

    run: Callable[[LoadClient], None]
    #: how often it occurs in a cycle
    times: int
    #: it occurs in every cycle, or in each second, third, … one; an insert takes its place in the others
    cycles: int = 1


INSERT = Kind(run=LoadClient.insert, times=10)
#: the mix
KINDS = (
    INSERT,
    Kind(run=LoadClient.retry_after_conflict, times=2),
    Kind(run=LoadClient.retry_after_lock, times=2),
    Kind(run=LoadClient.cancel, times=1),
    Kind(run=LoadClient.replay, times=2),
    Kind(run=LoadClient.violate, times=2),
    Kind(run=LoadClient.reconnect, times=1, cycles=20),
)
#: the order in which a client works: the rare kinds first, then inserts
CYCLE = tuple(kind for kind in reversed(KINDS) for _ in range(kind.times))
#: the operations that a load must have performed, each as it is meant to end
OPERATIONS = ("insert", "conflict", "lock", "retry", "cancellation", REPLAY, "violation", "reconnect")
