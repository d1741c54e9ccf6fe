"""Writers: clients that perform audited units of work, and record what they sent and what was acknowledged.

Each writer has an actor and keys of its own. A unit of work writes the table `writes`, and inserts the writer and its
number into the table `operations`. No unit of work is sent twice.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from harness.audit.actor import Actor
from harness.checks.record import NotExercisedError
from harness.database import SqlError, describe
from harness.errors import ServiceFailedError
from harness.model import INTERRUPTED
from harness.suites.resilience.connections import DEADLINE_S, Connections
from harness.suites.resilience.outcomes import outcome_of
from harness.suites.resilience.tables import spelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.context import CheckContext
    from harness.database import Client, Endpoint
    from harness.model.history import Outcome
    from harness.store import Journal
    from harness.suites.resilience.connections import Slot

#: seconds from the begin of a unit of work to the next one of the same writer: eight writers leave the processor free
_PACE_S = 0.04
#: the pause after an error grows from the first to the second, seconds
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.4
#: an application that acknowledges before it commits keeps its transaction open until a fault that is due has met it,
#: but no longer than this part of the time that a unit of work may take
_OPEN_PART = 0.5
_KEYS_OF_A_WRITER = 1_000_000_000
#: what a writer does in turn; it inserts where it has no key to update or delete
_OPERATIONS = ("insert", "update", "insert", "update", "delete")

_STATEMENTS = {
    "insert": "INSERT INTO public.writes (id, client, value) VALUES (%(key)s, %(client)s, %(value)s)",
    "update": "UPDATE public.writes SET value = %(value)s WHERE id = %(key)s",
    "delete": "DELETE FROM public.writes WHERE id = %(key)s",
}
_NUMBER = "INSERT INTO public.operations (client, seq) VALUES (%s, %s)"


class Unit(Struct, frozen=True, kw_only=True):
    """One unit of work."""

    client: int
    seq: int
    operation: str
    key: str
    value: str


class RowMissingError(Exception):
    """The row that a unit of work updates or deletes is not there. The unit of work is rolled back."""


class Writers:
    """Writers in threads. They start with the block, and have ended when it ends."""

    def __init__(
        self,
        ctx: CheckContext,
        journal: Journal,
        endpoint: Callable[[], Endpoint],
        count: int,
        interrupted: Event,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Start none yet.

        :param endpoint: returns the address that they connect to.
        :param interrupted: set when the run has to end; nobody waits for a writer then.
        :param deadline_s: how long one unit of work may take.
        """
        self.count = count
        self._interrupted = interrupted
        self._deadline_s = deadline_s
        self._ctx = ctx
        self._journal = journal
        self._connections = Connections(count, endpoint, ctx.prepare_threshold)
        self._stopping = Event()
        self._changed = Condition()
        #: by writer: when its last acknowledged unit of work began, in seconds of the journal
        self._succeeded: dict[int, float] = {}
        self._errors: dict[int, str] = {}
        self._answers = 0
        self._fault_due = False
        #: transactions whose success was acknowledged already
        self._acknowledged_open = 0
        self._failure: Exception | None = None
        self._threads = [
            Thread(target=self._write, args=(client,), name=f"writer-{client}", daemon=True)
            for client in range(1, count + 1)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is None:
            self._raise_failure()

    def stop(self) -> None:
        """End the writers and their connections; a second call does nothing. The unit of work under way ends first."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(self._deadline_s)
        self._connections.cut()
        for thread in self._threads:
            thread.join()
        self._connections.close()

    @property
    def answers(self) -> int:
        """How many units of work ended, whatever their outcome."""
        return self._answers

    def wait_for_answers(self, count: int, deadline_s: float) -> None:
        """Wait until so many units of work have ended in all, or the deadline has passed."""
        self._wait(lambda: self._answers >= count, deadline_s)

    @contextlib.contextmanager
    def fault_due(self) -> Iterator[None]:
        """Inject a fault within the block: it meets what the application does wrong.

        An application that acknowledges its work before it commits has such a transaction open when the block begins.
        """
        with self._changed:
            self._fault_due = True
        try:
            if self._ctx.application.acknowledges_early:
                self._wait(lambda: self._acknowledged_open > 0, self._deadline_s)
            yield
        finally:
            with self._changed:
                self._fault_due = False
                self._changed.notify_all()

    def wait_for_all(self, since: float, deadline_s: float, what: str) -> None:
        """Wait until every writer had a unit of work acknowledged that began at a time or later.

        :param since: seconds of the journal.
        :param what: completes the sentence "no unit of work was acknowledged …".
        :raises NotExercisedError: when one had none, with its last error.
        """

        def late() -> list[int]:
            return [client for client in range(1, self.count + 1) if self._succeeded.get(client, -1.0) < since]

        self._wait(lambda: not late(), deadline_s)
        if missing := late():
            errors = list(dict.fromkeys(self._errors.get(client, "no error") for client in missing))
            raise NotExercisedError(
                f"{len(missing)} of {self.count} writers had no unit of work acknowledged {what} within "
                f"{deadline_s:g} s; their last errors: {'; '.join(errors[:3])}"
            )

    def _raise_failure(self) -> None:
        """Raise what broke a writer: a mistake of the harness, which no verdict may hide."""
        if self._failure:
            raise self._failure

    def _wait(self, done: Callable[[], bool], deadline_s: float) -> None:
        """Wait, unless a writer broke.

        :raises NotExercisedError: when the check was ended or interrupted meanwhile.
        """
        end = time.monotonic() + deadline_s
        with self._changed:
            while not done() and (left := end - time.monotonic()) > 0:
                self._changed.wait(min(left, 0.1))
                self._raise_failure()
                self._ctx.require_undisturbed()
                if self._interrupted.is_set():
                    raise NotExercisedError(INTERRUPTED)

    # --- in the thread of a writer ------------------------------------------------------------------

    def _write(self, client: int) -> None:
        actor = Actor("user", f"writer-{client}")
        keys: deque[str] = deque()
        seq, pause = 0, _SHORTEST_PAUSE_S
        try:
            while not self._stopping.is_set():
                began, seq = time.monotonic(), seq + 1
                unit = next_unit(client, seq, keys)
                invoked = self._journal.seconds
                self._journal.invoke(
                    client, seq, unit.operation, key=unit.key, value=unit.value, actor=spelled(actor.reference)
                )
                outcome, error = self._attempt(unit, actor)
                if outcome == "ok":
                    pause, left = _SHORTEST_PAUSE_S, _PACE_S - (time.monotonic() - began)
                    if unit.operation != "delete":
                        keys.append(unit.key)
                else:
                    left = pause
                    pause = min(2 * pause, _LONGEST_PAUSE_S)
                self._note(client, invoked, outcome, error)
                self._stopping.wait(max(left, 0.0))
        except Exception as failure:  # noqa: BLE001 -- raised again in the thread of the check
            self._failure = failure

    def _note(self, client: int, invoked: float, outcome: Outcome, error: str) -> None:
        with self._changed:
            self._answers += 1
            if outcome == "ok":
                self._succeeded[client] = invoked
                self._errors.pop(client, None)
            else:
                self._errors[client] = error
            self._changed.notify_all()

    def _attempt(self, unit: Unit, actor: Actor) -> tuple[Outcome, str]:
        """Perform a unit of work, and record its answer."""
        with self._connections.borrowed() as slot:
            outcome, error, answered = self._perform(slot, unit, actor)
            if outcome == "unknown" and self._ctx.application.repeats_unknown:
                self._perform(slot, unit, actor, again=True)
        if not answered:
            self._journal.answer(unit.client, unit.seq, outcome, error)
        return outcome, error

    def _perform(self, slot: Slot, unit: Unit, actor: Actor, *, again: bool = False) -> tuple[Outcome, str, bool]:
        """Return the outcome, the error, and whether the answer is recorded already."""
        commit_sent = answered = False
        try:
            with slot.deadline(self._deadline_s):
                client = slot.client()
                with self._ctx.audited(client, actor):
                    self._send(client, unit, again=again)
                    if self._ctx.application.acknowledges_early:
                        self._journal.answer(unit.client, unit.seq, "ok")
                        answered = True
                        self._keep_open()
                    commit_sent = True  # the end of the block sends it
        except RowMissingError as missing:
            return "fail", str(missing), answered
        except ServiceFailedError as error:  # a service that is down may have no address
            return "fail", error.what, answered
        except SqlError as error:
            slot.discard()
            return outcome_of(error, commit_sent=commit_sent), describe(error), answered
        return "ok", "", answered

    def _keep_open(self) -> None:
        """Keep a transaction open whose success is acknowledged, until a fault that is due has met it."""
        with self._changed:
            self._acknowledged_open += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._fault_due, self._deadline_s * _OPEN_PART)
            self._acknowledged_open -= 1

    def _send(self, client: Client, unit: Unit, *, again: bool) -> None:
        parameters = {"client": unit.client, "key": int(unit.key), "value": unit.value}
        statement = _STATEMENTS[unit.operation]
        if again and unit.operation == "insert":
            statement += " ON CONFLICT DO NOTHING"
        written = client.execute(statement.encode(), parameters).rowcount
        if written != 1 and not again:
            raise RowMissingError(f"the row {unit.key} is missing, so it cannot be changed")
        client.run(_NUMBER, [unit.client, unit.seq])


def next_unit(client: int, seq: int, keys: deque[str]) -> Unit:
    """Return the next unit of work of a writer. A key that it takes from `keys` is its to give back."""
    operation = _OPERATIONS[seq % len(_OPERATIONS)] if keys else "insert"
    # a number, since many trails keep no other keys of deleted rows
    key = str(client * _KEYS_OF_A_WRITER + seq) if operation == "insert" else keys.popleft()
    return Unit(
        client=client, seq=seq, operation=operation, key=key, value="" if operation == "delete" else f"{client}-{seq}"
    )
