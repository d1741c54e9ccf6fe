"""The connections that the writers share, as an application shares those of its pool, with a deadline for their use."""

from __future__ import annotations

import contextlib
import time
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from harness.database import Client, Side, SqlError, connect, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.database import Endpoint

#: how long one unit of work may take by default, then its connection is cut
DEADLINE_S = 4.0
_CONNECT_S = 3
_TICK_S = 0.1


class Slot:
    """A place for one connection. A writer that holds the slot opens it if it is missing or broken."""

    def __init__(self, open_client: Callable[[], Client]) -> None:
        self._open = open_client
        self._client: Client | None = None
        self._lock = Lock()
        self._until = float("inf")

    def client(self) -> Client:
        """Return the connection, and open it first where necessary.

        :raises SqlError: when it cannot be opened.
        """
        if self._client is None:
            opened = self._open()
            with self._lock:
                self._client = opened
        return self._client

    def discard(self) -> None:
        """Close the connection: it is not used again."""
        with self._lock:
            if self._client:
                with contextlib.suppress(SqlError):
                    self._client.close()
            self._client = None

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Cut the connection if the block takes longer."""
        self._until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._until = float("inf")

    def cut_if_late(self) -> None:
        """Break the connection when its deadline has passed: the writer that waits on it gets an error."""
        with self._lock:
            if self._client and time.monotonic() > self._until:
                cut(self._client)

    def cut(self) -> None:
        """Break the connection."""
        with self._lock:
            if self._client:
                cut(self._client)


class Connections:
    """A fixed number of connections. They are used in turn, so that each one serves every writer."""

    def __init__(self, count: int, endpoint: Callable[[], Endpoint], prepare_threshold: int | None) -> None:
        """Open none yet.

        :param endpoint: returns the address; a restart may change it.
        """

        def open_client() -> Client:
            return connect(
                endpoint(),
                application_name="application",
                prepare_threshold=prepare_threshold,
                connect_timeout_s=_CONNECT_S,
                side=Side.APPLICATION,
            )

        self._slots = [Slot(open_client) for _ in range(count)]
        self._free: SimpleQueue[Slot] = SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._closed = Event()
        self._watch = Thread(target=self._cut_late_ones, name="deadlines", daemon=True)
        self._watch.start()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Slot]:
        """Return the slot that was not used for the longest time; the block has it alone."""
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)

    def cut(self) -> None:
        """Break all connections, so that no writer waits any longer."""
        for slot in self._slots:
            slot.cut()

    def close(self) -> None:
        """Close all connections, once no writer uses one."""
        self._closed.set()
        self._watch.join()
        for slot in self._slots:
            slot.discard()

    def _cut_late_ones(self) -> None:
        while not self._closed.wait(_TICK_S):
            for slot in self._slots:
                slot.cut_if_late()
