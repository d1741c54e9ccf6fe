"""What a check finds: expectations, probes and facts; and the two ways to say that there is nothing to judge."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

import msgspec

from harness.database import Client, SqlError, cut
from harness.model import BackendProbe, Expectation, FeatureOutcome, Limit, Severity

if TYPE_CHECKING:
    from harness.audit.target import AuditTarget
    from harness.host.site import Site

T = TypeVar("T")

_LONGEST = 400


class NotExercisedError(Exception):
    """The probe could not bring about what it wanted to observe: Not run, never OK."""


class NotApplicableError(Exception):
    """What the check is about is not there in this topology: N/A, with the one objective sentence that it carries."""


class CheckRecord:
    """Collects what one check finds out, and closes with it whatever it opened."""

    def __init__(self, target: AuditTarget) -> None:
        self.target = target
        self._stack = ExitStack()
        self._clients: list[Client] = []
        self.expectations: list[Expectation] = []
        self.probes: list[BackendProbe] = []
        self.facts: dict[str, str] = {}
        self.limit: Limit | None = None
        self.feature: FeatureOutcome | None = None
        self.severity: Severity | None = None
        #: a control: the probe steps in halfway, so that what is watched behaves otherwise than it is expected to
        self.sabotaged = False

    @property
    def site(self) -> Site:
        """The host application that paths are taken at."""
        raise NotExercisedError("no host application stands here")

    def expect(self, name: str, observed: T, *, equals: T) -> bool:
        """Compare one fact; the check goes on either way."""
        held = observed == equals
        self.expectations.append(Expectation(name=name, expected=spell(equals), observed=spell(observed), held=held))
        return held

    def fact(self, name: str, value: object) -> None:
        """Record something observed that is not judged."""
        self.facts[name] = spell(value)

    def left_behind(self, what: str) -> None:
        """Record what the check could not take away again."""
        self.facts["left behind"] = "; ".join(filter(None, (self.facts.get("left behind", ""), what)))

    def probed(self, how: str, first_pid: int, second_pid: int) -> None:
        self.probes.append(BackendProbe(how=how, first_pid=first_pid, second_pid=second_pid))

    def documented_limit(self, outcome: str, source: str) -> None:
        """Record that the check saw a documented limit at work: what happens, and who says so."""
        self.limit = Limit(outcome=outcome, source=source)

    def trail_limit(self, outcome: str) -> None:
        """Record a limit of the audit trail itself; one that its target documents nowhere is an Issue."""
        told = self.target.documentation
        found = "documented" if told else "documented nowhere that its target names"
        if self.expect(f"the limit that {outcome}", found, equals="documented"):
            self.documented_limit(outcome, told)

    def _keep(self, client: Client) -> Client:
        self._stack.callback(client.close)
        self._clients.append(client)
        return client

    def cut(self) -> None:
        """End every connection under whoever waits on it, in another thread."""
        for client in list(self._clients):
            cut(client)

    def close(self) -> None:
        with contextlib.suppress(SqlError):
            self._stack.close()


def spell(value: object) -> str:
    """Return a value as the evidence prints it: short text as it is, the rest as JSON."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = msgspec.json.encode(value, order="deterministic").decode()
        except (TypeError, ValueError):
            text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
