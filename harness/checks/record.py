"""The record of one check: its expectations, probes and facts. Two exceptions end a check without a judgement."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack
from threading import Event, RLock
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from harness.database import Client, Script, Side, SqlError, cut
from harness.model import INTERRUPTED, BackendProbe, EndedBy, Expectation, FeatureOutcome, Limit, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.audit.target import AuditTarget
    from harness.audit.target_file import Recorded
    from harness.host.site import Site

T = TypeVar("T")

_LONGEST = 400
#: how often a check that lets time pass looks whether it is disturbed, seconds
_LOOK_S = 0.05


class NotExercisedError(Exception):
    """The check could not create the situation that it observes: Not run, never OK. The message is the reason."""


class NotApplicableError(Exception):
    """The topology lacks the subject of the check: N/A. The message is the reason, in one objective sentence."""


class Ended(Struct, frozen=True):
    """The end of a check before it was complete."""

    #: None for a check that could not create its situation
    by: EndedBy | None
    #: one sentence without a full stop
    reason: str


class CheckRecord:
    """Collects the findings of one check, and owns the connections that the check opens.

    An action of the harness that disturbs the check ends the record first: no later expectation counts, because it may
    show the action and not the subject.
    """

    def __init__(self, target: AuditTarget) -> None:
        self.target = target
        #: the id of the check, and the name of the control that it runs under; "" for none
        self.check = self.control = ""
        #: what to undo when the check ends, in reverse order
        self._stack = ExitStack()
        #: clients that keep server connections busy; released before the next forced share or move
        self.occupied = ExitStack()
        #: the server process that all statements of the pool run on, while `occupied` keeps the others busy
        self.settled_on: int | None = None
        self._clients: list[Client] = []
        #: collects the statements of the clients that connect from now on; None for a check that nobody repeats by hand
        self.script: Script | None = None
        self._lock = RLock()
        #: set when the whole run ends
        self._interrupted = Event()
        #: None while the check runs undisturbed
        self.ended: Ended | None = None
        self._complete = False
        self.expectations: list[Expectation] = []
        self.probes: list[BackendProbe] = []
        self.facts: dict[str, str] = {}
        self.limit: Limit | None = None
        self.feature: FeatureOutcome | None = None
        self.severity: Severity | None = None
        #: whether the check ends its load itself after an interruption, and judges what was seen
        self._ends_in_order = False
        #: the number of the attempt, from 1
        self.attempt_number = 1
        #: set by a control: the probe itself changes the outcome, so that the feature does not behave as expected
        self.sabotaged = False

    @property
    def site(self) -> Site:
        """The host application whose paths the check runs.

        :raises NotExercisedError: when none is running.
        """
        raise NotExercisedError("no host application is running here")

    # --- the end of a check ------------------------------------------------------------------------

    def ends_with(self, interrupted: Event) -> None:
        """End the record as soon as the event is set."""
        self._interrupted = interrupted

    @property
    def interrupted(self) -> Event:
        """Set when the whole run ends: what the check still waits for, such as the end of a program, counts no more."""
        return self._interrupted

    def end(self, by: EndedBy, reason: str) -> None:
        """End the record, before an action of the harness disturbs the check. The first cause counts."""
        with self._lock:
            if not self._complete:
                self.ended = self.ended or Ended(by, reason)

    def complete(self) -> None:
        """Note that the body of the check ended: later actions of the harness do not disturb it."""
        with self._lock:
            self._notice_interruption()
            self._complete = True

    def discount(self, by: EndedBy, reason: str) -> None:
        """End the record for a failure that lasted for an unknown time: none of its expectations counts."""
        with self._lock:
            self.ended = Ended(by, reason)
            self.expectations = [replace(expectation, counts=False) for expectation in self.expectations]

    def _notice_interruption(self) -> None:
        if self._interrupted.is_set() and not self._ends_in_order:
            self.end(EndedBy.INTERRUPTION, INTERRUPTED)

    def require_undisturbed(self) -> None:
        """Return at once while the check runs undisturbed. A check that waits by itself calls it again and again.

        :raises NotExercisedError: when the check timed out, or the run was interrupted.
        """
        with self._lock:
            self._notice_interruption()
            if self.ended:
                raise NotExercisedError(self.ended.reason)

    def let_pass(self, seconds: float) -> None:
        """Let time pass in which nothing may happen, and stop as soon as the check is disturbed.

        :raises NotExercisedError: when the check timed out, or the run was interrupted.
        """
        end = time.monotonic() + seconds
        self.require_undisturbed()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))
            self.require_undisturbed()

    @property
    def is_ended(self) -> bool:
        """Whether the check timed out, or the run was interrupted."""
        with self._lock:
            self._notice_interruption()
            return self.ended is not None

    # --- findings ------------------------------------------------------------------------------------

    def add(self, expectation: Expectation) -> bool:
        """Record an expectation that was compared elsewhere, and return whether it counts."""
        with self._lock:
            self._notice_interruption()
            if self.ended:
                expectation = replace(expectation, counts=False)
            self.expectations.append(expectation)
            return expectation.counts

    def expect(self, name: str, observed: T, *, equals: T, consequence: bool = False) -> bool:
        """Compare one fact, record the comparison, and go on either way.

        :param name: controls name the expectation by it, and reports show it.
        :param observed: any value that can be compared; the evidence holds it as :func:`spell` prints it.
        :param equals: the expected value.
        :param consequence: whether it follows from other expectations of the check, such as the verdict on a test
            run from its failed tests. The reason of an Issue names the others first.
        :return: whether the expectation held.
        """
        held = observed == equals
        self.add(
            Expectation(name=name, expected=spell(equals), observed=spell(observed), held=held, consequence=consequence)
        )
        return held

    def when_ended(self, action: Callable[[], object]) -> None:
        """Run an action when the check ends, before the actions that were given earlier."""
        self._stack.callback(action)

    def fact(self, name: str, value: object) -> None:
        """Record an observation that is not judged. A second value under the same name replaces the first."""
        self.facts[name] = spell(value)

    def left_behind(self, what: str) -> None:
        """Record a resource that the check could not clean up."""
        self.facts["left behind"] = "; ".join(filter(None, (self.facts.get("left behind", ""), what)))

    def probed(self, how: str, first_pid: int, second_pid: int) -> None:
        """Record the server connections that a forced share or move was observed on.

        :param how: what forced it, in one sentence without a full stop.
        :param first_pid: the server's process before.
        :param second_pid: the server's process after: the same for a share, another for a move.
        """
        self.probes.append(BackendProbe(how=how, first_pid=first_pid, second_pid=second_pid))

    def documented_limit(self, outcome: str, source: str) -> None:
        """Record that the check observed a documented limit. It is reported only when the check is OK.

        :param outcome: what happens, in one sentence without a full stop.
        :param source: the address of the documentation.
        """
        self.limit = Limit(outcome=outcome, source=source)

    def trail_limit(self, outcome: str) -> None:
        """Record a limit of the audit trail itself. It is an Issue unless the target file has it among its `limits`."""
        limit = self.target.limit_of(self.check)
        observed = "documented" if limit else f"no entry for {self.check} among the `limits` of the target file"
        if self.expect(f"the limit that {outcome}", observed, equals="documented") and limit:
            self.documented_limit(outcome, self.target.place_of(limit))

    def records(self, property_: Recorded) -> bool:
        """Return whether the audit trail has a property. Expectations that depend on one that it lacks are left out."""
        return self.target.records(property_)

    def expected_ops(self, *operations: str) -> list[str]:
        """Return those of these operations that the audit trail records, in the same order.

        :param operations: insert, update, delete or truncate.
        """
        return [operation for operation in operations if self.target.records_operation(operation)]

    @property
    def clients_in_use(self) -> tuple[Client, ...]:
        """The connections that the check has opened."""
        return tuple(client for client in self._clients if not client.closed)

    def _keep(self, client: Client, side: Side | None = None) -> Client:
        client.side = side or client.side
        self._stack.callback(client.close)
        self._clients.append(client)
        return client

    def cut(self, by: EndedBy, reason: str, *shown: Expectation) -> None:
        """End the record, then break every open connection, so that a thread that waits on one gets an error.

        :param shown: what the cause shows of the subject. It counts unless the check has ended already.
        """
        with self._lock:
            if self._complete:
                return
            for expectation in shown:
                self.add(expectation)
            self.end(by, reason)
        for client in list(self._clients):
            cut(client)

    def close(self) -> None:
        """Close the connections, and undo what the check registered. Errors of servers are ignored."""
        with contextlib.suppress(SqlError):
            self.occupied.close()
        with contextlib.suppress(SqlError):
            self._stack.close()


def spell(value: object) -> str:
    """Return a value as the evidence prints it: text unchanged, other values as JSON; 400 characters at most."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = msgspec.json.encode(value, order="deterministic").decode()
        except (TypeError, ValueError):
            text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
