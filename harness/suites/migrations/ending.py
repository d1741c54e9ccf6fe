"""When the harness ends a command: one that waits for a lock for ever, and an application that has started."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from harness.database import SqlError
from harness.suites.migrations.queries import QUERIES, enter

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.database import Client

#: a run that waits for an idle server connection is ended after so many looks, one a second
_MOST_LOOKS, _BETWEEN_LOOKS_S = 8, 1.0
#: an application that listens gets this time to finish its start, seconds
_LISTENS_S = 1.0


class Hung:
    """Says when a command has to end: with the run, or when it waits for a lock of a session that is idle.

    Behind a transaction pool a session-level lock stays with a server connection of a run that has ended.
    """

    SIGN = "process "

    def __init__(self, ctx: CheckContext, database: str, alone: Callable[[], bool]) -> None:
        self._ctx, self._database, self._alone = ctx, database, alone
        self._client: Client | None = None
        self._next = time.monotonic() + _BETWEEN_LOOKS_S
        self._looks = 0
        #: what it waits for; "" unless it had to end for that
        self.reason = ""

    def is_over(self) -> bool:
        if self._ctx.lab.is_closed or self.reason:
            return True
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _BETWEEN_LOOKS_S
            found = self._look() if self._alone() else ""
            self._looks = self._looks + 1 if found else 0
            if self._looks >= _MOST_LOOKS:
                self.reason = f"{self.SIGN}{found}"
        return bool(self.reason)

    def _look(self) -> str:
        with contextlib.suppress(SqlError):
            if self._client is None:
                self._client = enter(self._ctx.lab, self._database)
            return self._client.value(QUERIES["waits_for_idle"]) or ""
        return ""

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class Started:
    """Says when an application has started: it listens on its port, or its time is over."""

    def __init__(self, seconds: float, closed: Callable[[], bool]) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self._end = time.monotonic() + seconds
        self._closed = closed
        #: when it began to listen
        self.listened: float | None = None

    def is_over(self) -> bool:
        if self.listened is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=0.2):
                self.listened = time.monotonic()
        now = time.monotonic()
        return self._closed() or now >= self._end or (self.listened is not None and now >= self.listened + _LISTENS_S)
