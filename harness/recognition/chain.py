"""Sessions through one address: counted, and every one of them ended gently."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from harness.errors import DatabaseError
from harness.recognition.findings import TROUBLE
from harness.wire import PROTOCOL_3_0, Deadline, LoginError, Message, Wire, authentication_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from harness.recognition.direct_probe import Route

#: how long the servers may take to roll back when we leave; after that the sockets are just closed
_FAREWELL_S = 0.5


class Chain:
    """Opens sessions, never more at a time than allowed, and closes whatever is open at the end."""

    def __init__(self, route: Route, deadline: Deadline, most: int) -> None:
        self.route = route
        self.deadline = deadline
        self.most = most
        self.sessions: list[Wire] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(self.sessions)

    @property
    def is_full(self) -> bool:
        return len(self.sessions) >= self.most

    def dial(self, within_s: float = 60.0) -> Wire:
        """Connect, and say nothing yet."""
        if self.is_full:
            raise DatabaseError(f"{self.most} connections are open, and no more are allowed")
        wire = Wire.open(self.route.address, self.deadline.within(within_s))
        self.sessions.append(wire)
        return wire

    def greet(
        self,
        parameters: Mapping[str, str] | None = None,
        *,
        version: tuple[int, int] = PROTOCOL_3_0,
        dbname: str = "",
        within_s: float = 60.0,
    ) -> tuple[Wire, Message]:
        """Connect, encrypt where libpq did, and return the session with the first Authentication message.

        :raises ServerError: when the server refuses; the connection is closed then.
        """
        wire = self.dial(within_s)
        try:
            if self.route.tls and wire.offers_tls():
                wire.encrypt(self.route.tls)
            named = {"user": self.route.user, "database": dbname or self.route.dbname, **(parameters or {})}
            return wire, wire.greet(named, version)
        except BaseException:
            self.drop(wire)
            raise

    def open(self, parameters: Mapping[str, str] | None = None, *, dbname: str = "", within_s: float = 60.0) -> Wire:
        """Return a session that is logged in; later its waits end at the chain's own deadline.

        Without parameters it has not even an application_name: a pooler would leave that on the server connection.

        :raises ServerError: when the server refuses. :raises LoginError: when only libpq could log in.
        """
        wire, asked = self.greet(parameters, dbname=dbname, within_s=within_s)
        try:
            self._require_allowed(asked)
            wire.log_in(asked, self.route.user, self.route.password)
        except BaseException:
            self.drop(wire)
            raise
        wire.deadline = self.deadline
        return wire

    def _require_allowed(self, asked: Message) -> None:
        name = authentication_name(asked)
        if self.route.scram_only and name not in {"scram-sha-256", "nothing"}:
            raise LoginError(f"the connection string forbids a login by {name}")

    def drop(self, wire: Wire) -> None:
        """Close a session that is in no transaction."""
        wire.close()
        if wire in self.sessions:
            self.sessions.remove(wire)

    def close(self, sessions: Iterable[Wire]) -> None:
        """End transactions, then sessions; one that waits for a server connection gets one meanwhile.

        A client that just vanishes from a transaction, or from a queue, makes PgBouncer close a server connection.
        """
        leaving, farewell = list(sessions), Deadline(_FAREWELL_S)
        try:
            for wire in leaving:
                wire.deadline = farewell
            waiting = [wire for wire in leaving if not wire.status and not wire.piping and wire.told_pid is not None]
            for wire in leaving:
                if wire not in waiting:
                    self._leave(wire)
            for wire in waiting:
                with contextlib.suppress(*TROUBLE):
                    wire.rows()
                self._leave(wire)
        finally:
            for wire in leaving:
                self.drop(wire)

    def _leave(self, wire: Wire) -> None:
        with contextlib.suppress(*TROUBLE):
            if wire.piping:
                wire.sync()
            if wire.status in {"T", "E"}:
                wire.query("ROLLBACK")
        self.drop(wire)
