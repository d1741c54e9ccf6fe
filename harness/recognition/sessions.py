"""The sessions of a probe through one address: their number is limited, and all of them are closed cleanly."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Self

from harness.errors import DatabaseError
from harness.recognition.findings import PROBE_ERRORS
from harness.recognition.pace import Pace
from harness.wire import PROTOCOL_3_0, Deadline, LoginError, Message, Wire, authentication_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from harness.recognition.route import Route

#: the time for the servers to roll back at the end; after it the sockets are closed without waiting
_CLOSING_S = 0.5


class Sessions:
    """Opens sessions through one route, never more than allowed, and closes the open ones at the end."""

    def __init__(self, route: Route, deadline: Deadline, most: int, pace: Pace | None = None) -> None:
        """Open no session yet.

        :param route: the address and the login.
        :param deadline: ends every wait of every session.
        :param most: the limit of sessions that are open at the same time.
        :param pace: receives the duration of each login.
        """
        self.route = route
        self.deadline = deadline
        self.most = most
        self.pace = pace or Pace()
        self.opened: list[Wire] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(self.opened)

    @property
    def is_full(self) -> bool:
        return len(self.opened) >= self.most

    def connect(self, within_s: float = 60.0) -> Wire:
        """Connect without sending anything.

        :param within_s: the timeout of this session in seconds, within the common deadline.
        :raises DatabaseError: when the limit of sessions is reached, or the server is unreachable.
        """
        if self.is_full:
            raise DatabaseError(f"{self.most} connections are open, and more are not allowed")
        wire = Wire.open(self.route.address, self.deadline.within(within_s))
        self.opened.append(wire)
        return wire

    def start_login(
        self,
        parameters: Mapping[str, str] | None = None,
        *,
        version: tuple[int, int] = PROTOCOL_3_0,
        dbname: str = "",
        within_s: float = 60.0,
    ) -> tuple[Wire, Message]:
        """Connect, use TLS if libpq did, and return the session with the first Authentication message.

        :param parameters: startup parameters in addition to user and database.
        :param version: the protocol version to request.
        :param dbname: another database than the route's.
        :raises ServerError: when the server refuses; the connection is then closed.
        """
        began = time.monotonic()
        wire = self.connect(within_s)
        try:
            if self.route.tls and wire.offers_tls():
                wire.encrypt(self.route.tls)
            login = {"user": self.route.user, "database": dbname or self.route.dbname, **(parameters or {})}
            request = wire.start_login(login, version)
        except BaseException:
            self.drop(wire)
            raise
        self.pace.note(time.monotonic() - began)
        return wire, request

    def open(self, parameters: Mapping[str, str] | None = None, *, dbname: str = "", within_s: float = 60.0) -> Wire:
        """Return a logged-in session; after the login, the common deadline ends its waits.

        Without parameters the session has no application_name, because a pooler would keep it on the server connection.

        :raises ServerError: when the server refuses.
        :raises LoginError: when the login needs a method that only libpq supports.
        """
        began = time.monotonic()
        wire, request = self.start_login(parameters, dbname=dbname, within_s=within_s)
        try:
            self._require_allowed(request)
            wire.log_in(request, self.route.user, self.route.password)
        except BaseException:
            self.drop(wire)
            raise
        self.pace.note(time.monotonic() - began)
        wire.deadline = self.deadline
        return wire

    def _require_allowed(self, request: Message) -> None:
        name = authentication_name(request)
        if self.route.scram_only and name not in {"scram-sha-256", "nothing"}:
            raise LoginError(f"the connection string forbids a login by {name}")

    def drop(self, wire: Wire) -> None:
        """Close a session that is not in a transaction."""
        wire.close()
        if wire in self.opened:
            self.opened.remove(wire)

    def close(self, sessions: Iterable[Wire]) -> None:
        """Roll back and close sessions. A session that waits for a server connection gets one from the others first.

        PgBouncer closes a server connection if its client disconnects in a transaction or while it waits.
        """
        closing, deadline = list(sessions), Deadline(_CLOSING_S)
        try:
            for wire in closing:
                wire.deadline = deadline
            waiting = [
                wire for wire in closing if not wire.status and not wire.in_pipeline and wire.announced_pid is not None
            ]
            for wire in closing:
                if wire not in waiting:
                    self._roll_back_and_drop(wire)
            for wire in waiting:
                with contextlib.suppress(*PROBE_ERRORS):
                    wire.rows()
                self._roll_back_and_drop(wire)
        finally:
            for wire in closing:
                self.drop(wire)

    def _roll_back_and_drop(self, wire: Wire) -> None:
        with contextlib.suppress(*PROBE_ERRORS):
            if wire.in_pipeline:
                wire.sync()
            if wire.status in {"T", "E"}:
                wire.query("ROLLBACK")
        self.drop(wire)
