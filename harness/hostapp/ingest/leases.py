"""The uploads that a worker works on, and a thread that renews their leases."""

from __future__ import annotations

import logging
import time
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

import psycopg

from ..log_lines import described

if TYPE_CHECKING:
    from .work_queue import Claimed, WorkQueue

_LOG = logging.getLogger("ingest.leases")


class Leases:
    """Knows which claims are this worker's, by its own clock: without renewal, a lease passes here first.

    A worker that was frozen, or whose database is away, therefore ends its downloads before another one begins them.
    """

    def __init__(self, queue: WorkQueue, *, lease_s: float) -> None:
        self._queue = queue
        self._lease_s = lease_s
        self._lock = Lock()
        self._claims: dict[str, Claimed] = {}
        self._until: dict[str, float] = {}
        self._closing = Event()

    def start(self) -> None:
        """Begin to renew leases, three times in the time of one."""
        Thread(target=self._renew_until_closed, name="leases", daemon=True).start()

    def close(self) -> None:
        self._closing.set()

    def hold(self, upload: Claimed, since: float) -> None:
        """Add a claim.

        :param since: when it was asked for, on the monotonic clock.
        """
        with self._lock:
            self._claims[upload.id] = upload
            self._until[upload.id] = since + self._lease_s

    def drop(self, upload: Claimed) -> None:
        """Forget a claim, whose upload is finished, postponed or lost."""
        with self._lock:
            self._claims.pop(upload.id, None)
            self._until.pop(upload.id, None)

    @property
    def held(self) -> list[Claimed]:
        with self._lock:
            return list(self._claims.values())

    def is_held(self, upload: Claimed) -> bool:
        """Return whether no other worker can have claimed the upload by now."""
        with self._lock:
            return time.monotonic() < self._until.get(upload.id, 0.0)

    def renew(self) -> None:
        """Renew all leases now.

        :raises psycopg.Error: when the database does not answer.
        """
        claims = {upload.id: upload.claim for upload in self.held}
        if not claims:
            return
        since = time.monotonic()
        renewed = self._queue.renew(claims)
        with self._lock:
            for name, claim in claims.items():
                # meanwhile it may have been dropped, and claimed again
                if name in self._claims and self._claims[name].claim == claim:
                    self._until[name] = since + self._lease_s if name in renewed else 0.0

    def _renew_until_closed(self) -> None:
        while not self._closing.wait(self._lease_s / 3):
            try:
                self.renew()
            except psycopg.Error as error:
                _LOG.warning("the leases could not be renewed: %s", described(error))
