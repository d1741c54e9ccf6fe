"""One fault in a lab: an action harms a part of it and returns what showed the effect, and healing undoes the harm.

An action registers each step of the healing before the harm, and healing is complete wherever an injection ends. It
uses connections of its own: those of the check may be cut, or end with the fault.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from harness.checks.record import NotExercisedError
from harness.database import Client, SqlError, bounded, connect, console, database_on_console, describe
from harness.errors import HarnessError, ServiceFailedError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.engine.protocol import Service

T = TypeVar("T")

#: what PostgreSQL logs when it recovers because one of its processes crashed; until then it accepts connections
RECOVERS = "all server processes terminated; reinitializing"

_SEEN_S = 10.0
_BACK_S = 30.0
_LONGEST_S = 20
#: a pooler lets a client wait for minutes; then another attempt may be answered sooner
_ANSWERS_S = 5.0
_SQL = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND usename = %s AND backend_type = 'client backend'"


class Injection:
    """One fault of a lab: injected once, then healed. It is not thread-safe."""

    def __init__(self, ctx: CheckContext, act: Callable[[Injection], str]) -> None:
        self.ctx = ctx
        self.lab = ctx.lab
        self._act = act
        self._undo: list[Callable[[], str]] = []

    def inject(self) -> str:
        """Inject the fault, and return what showed its effect.

        :raises NotExercisedError: when it could not be injected, or its effect was not seen.
        """
        try:
            return self._act(self)
        except (HarnessError, SqlError) as error:
            raise NotExercisedError(f"the fault could not be injected: {_worded(error)}") from None

    def on_heal(self, undo: Callable[[], str]) -> None:
        """Register a step of the healing, before the harm; steps run in reverse order."""
        self._undo.append(undo)

    def heal(self) -> str:
        """Heal the fault, and return what was done; a second call does nothing, and so does one in a closed lab.

        :raises ServiceFailedError: when it cannot be healed; the other steps have run then.
        """
        done: list[str] = []
        failed: list[str] = []
        while self._undo:
            undo = self._undo.pop()
            if self.lab.is_closed:
                continue
            try:
                done.append(undo())
            except Exception as error:  # noqa: BLE001 -- the other steps have to run
                failed.append(_worded(error))
        if failed and not self.lab.is_closed:
            raise ServiceFailedError(
                f"the fault could not be healed: {'; '.join(failed)}", where=f"topology {self.lab.topology.name}"
            )
        return "; ".join(filter(None, done))

    # --- what actions need -------------------------------------------------------------------------------------

    def admin(self) -> Client:
        """Connect directly as superuser; the caller closes the connection. No statement lasts for ever."""
        return connect(
            self.lab.admin(self.ctx.database),
            application_name="pooler-harness fault",
            options=f"-c statement_timeout={_LONGEST_S}s",
            connect_timeout_s=5,
        )

    def server_processes(self, admin: Client) -> set[int]:
        """Return the server processes of the application's connections to the database of the check."""
        return {pid for (pid,) in admin.rows(_SQL, [self.ctx.database, self.lab.roles.app.name])}

    def await_server(self) -> str:
        """Wait until PostgreSQL answers a new direct connection, and drop connections that ended with it."""
        began = time.monotonic()
        self.ctx.forget_connections()
        seen(lambda: self.admin().close(), "an answer of PostgreSQL", _BACK_S)
        return f"PostgreSQL answers after {time.monotonic() - began:.2f} s"

    def await_chain(self) -> str:
        """Wait until the outermost service answers a new client."""
        began = time.monotonic()
        endpoint = self.lab.chain(self.ctx.database)

        def answered() -> None:
            with connect(endpoint, connect_timeout_s=2) as client, bounded(client, _ANSWERS_S):
                client.value("SELECT 1")

        seen(answered, "an answer through the chain", _BACK_S)
        return f"the chain answers after {time.monotonic() - began:.2f} s"

    def console(self, command: str) -> list[dict[str, str]]:
        """Run a command of PgBouncer's console."""
        endpoint = self.lab.console()
        if endpoint is None:
            raise NotExercisedError("the pooler has no console")
        return console(endpoint, command, longest_s=_LONGEST_S)

    def database_on_console(self) -> dict[str, str]:
        """Return the row of the check's database in PgBouncer's SHOW DATABASES."""
        endpoint = self.lab.console()
        row = database_on_console(endpoint, self.lab.chain(self.ctx.database)) if endpoint else None
        if row is None:
            raise NotExercisedError(f"no client has used the database {self.ctx.database} through the pooler yet")
        return row


def _worded(error: Exception) -> str:
    if isinstance(error, HarnessError):
        return error.what
    return describe(error) if isinstance(error, SqlError) else str(error)


def seen(probe: Callable[[], T], what: str, deadline_s: float = _SEEN_S) -> T:
    """Wait until a probe returns, and return its result. Errors of servers and :class:`NotYet` say that it has not happened yet.

    :raises TimedOutError: at the deadline.
    """

    def attempt() -> T:
        try:
            return probe()
        except SqlError as error:
            raise NotYet(" ".join(str(error).split())) from None

    return poll(attempt, what=what, deadline_s=deadline_s, interval_s=0.01)


def await_log(service: Service, before: int, text: str) -> None:
    """Wait until a service has logged a text.

    :param before: the length of its log before.
    """

    def logged() -> None:
        if text not in service.logs()[before:]:
            raise NotYet("nothing of that in the log")

    seen(logged, f"{text!r} in the log of {service.name}")
