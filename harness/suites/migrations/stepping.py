"""A relay in front of the address that a migration gets: it counts connections, and can pause a run that holds a lock.

A session-level advisory lock belongs to a server connection. Behind a transaction pool the connection goes back to the
pool while the run still believes that it holds the lock. The relay looks after each answer outside of a transaction
whether the database has such a lock, and keeps that answer back until :meth:`Relay.go_on`: another run can then be
watched while this one holds the lock.
"""

from __future__ import annotations

import contextlib
from threading import Barrier, BrokenBarrierError, Event
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace

from harness.wire.link import Link
from harness.wire.readers import PlainReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from harness.database import Endpoint

#: ReadyForQuery of a session that is in no transaction
_IDLE = b"Z\0\0\0\5I"
#: a run whose answer nobody releases goes on after this, seconds
_LONGEST_PAUSE_S = 60.0


class _Watched(PlainReader):
    """Reads the messages of one connection, and reports each answer after which the session is in no transaction."""

    def __init__(self, at_idle: Callable[[], None]) -> None:
        super().__init__()
        self._at_idle = at_idle

    def answers(self, data: bytes) -> bytes:
        """Return the complete messages, once the listener has seen the last one."""
        answer = super().answers(data)
        if answer.endswith(_IDLE):
            self._at_idle()
        return answer


class StartingLine:
    """Keeps the answer to the first login of each run back until all runs have logged in."""

    def __init__(self, runs: int) -> None:
        self._crossed = Event()
        self._barrier = Barrier(runs, self._crossed.set, _LONGEST_PAUSE_S)

    def wait(self) -> None:
        """Wait for the other runs, and go on without them when one has ended or does not come."""
        with contextlib.suppress(BrokenBarrierError):
            self._barrier.wait()

    def give_up(self) -> None:
        """Let the runs go on that wait for others."""
        self._barrier.abort()

    @property
    def was_crossed(self) -> bool:
        """Whether all runs went on at the same moment."""
        return self._crossed.is_set()


class Relay:
    """Accepts connections on loopback, and forwards them to an address until it is closed."""

    def __init__(
        self, to: Endpoint, holds_lock: Callable[[], bool] | None = None, line: StartingLine | None = None
    ) -> None:
        """Start to listen.

        :param holds_lock: returns whether an idle session of the database holds an advisory lock. The first run that does
            is paused. Without it nothing is.
        :param line: where the run waits for others when it has logged in.
        """
        self._holds_lock, self._line = holds_lock, line
        self._released, self._paused, self._locked_later = Event(), Event(), Event()
        self._link = Link(lambda: (to.host, to.port), reader=lambda: _Watched(self._after_answer))
        host, port = self._link.address
        self.address = replace(to, host=host, port=port)
        self._link.start()

    def __enter__(self) -> Self:
        """Return the relay itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the relay."""
        self.go_on()
        if self._line is not None:
            self._line.give_up()
        self._link.close()

    @property
    def connections(self) -> int:
        """How many connections it has accepted."""
        return self._link.counts().accepted

    @property
    def is_paused(self) -> bool:
        """Whether a run waits here while it holds a lock."""
        return self._paused.is_set() and not self._released.is_set()

    @property
    def was_paused(self) -> bool:
        """Whether a run has waited here, also when it goes on already."""
        return self._paused.is_set()

    @property
    def locked_later(self) -> bool:
        """Whether a lock was first seen when no run was paused any more."""
        return self._locked_later.is_set()

    def go_on(self) -> None:
        """Let a paused run go on, and pause none from now on."""
        self._released.set()

    def _after_answer(self) -> None:
        if (line := self._line) is not None:
            self._line = None  # the first login of the run is enough
            line.wait()
        if self._holds_lock is None or self._locked_later.is_set():
            return
        if not self._released.is_set():
            if self._holds_lock():
                self._paused.set()
                if not self._released.wait(_LONGEST_PAUSE_S):
                    self.go_on()
        elif not self._paused.is_set() and self._holds_lock():
            self._locked_later.set()
