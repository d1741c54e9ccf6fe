"""The worker: claims uploads, downloads their files, and marks them as indexed or failed."""

from __future__ import annotations

import heapq
import logging
import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING

import psycopg

from ..correlation import correlation_id
from ..log_lines import described
from .backoff import delay
from .database import open_pool
from .ending import end_soon
from .leases import Leases
from .storage import AbandonedError, Storage, StoreError
from .work_queue import Claimed, LostClaimError, WorkQueue, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from .content import Content
    from .settings import Settings

_LOG = logging.getLogger("ingest.worker")
_SIGNALS = {signal.SIGTERM, signal.SIGINT}
#: for downloads to end after the signal, seconds; the claims of those that do not are given back as well
_GRACE_S = 1.0
#: between attempts to write a result while the database is away
_DATABASE_RETRY_S = 0.25


class Worker:
    """Claims as many uploads as it can process at a time, and sleeps until the next one is due."""

    def __init__(self, settings: Settings, queue: WorkQueue, storage: Storage) -> None:
        self._settings = settings
        self._queue = queue
        self._storage = storage
        self._leases = Leases(queue, lease_s=settings.lease_s)
        self._stopping = Event()
        self._wake = Condition()
        self._is_woken = False
        self._has_backlog = False
        #: when uploads are due that this worker postponed, on the monotonic clock
        self._due: list[float] = []

    def stop(self) -> None:
        """End the work; called from another thread."""
        self._stopping.set()
        self._wake_up()

    def run(self) -> bool:
        """Work until :meth:`stop`, and return whether all threads have ended."""
        self._leases.start()
        slots = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="slot")
        running: set[Future[None]] = set()
        while not self._stopping.is_set():
            running = {future for future in running if not future.done()}
            claimed = self._claim(self._settings.concurrency - len(running))
            running |= {slots.submit(self._process, upload) for upload in claimed}
            self._has_backlog = len(running) == self._settings.concurrency
            self._sleep()
        slots.shutdown(wait=False, cancel_futures=True)
        wait(running, timeout=_GRACE_S)
        for upload in self._leases.held:
            self._give_back(upload)
        self._leases.close()
        return all(future.done() for future in running)

    # --- claims ---------------------------------------------------------------------------------------

    def _claim(self, most: int) -> list[Claimed]:
        if most <= 0:
            return []
        since = time.monotonic()
        try:
            claimed = self._queue.claim(most, [upload.id for upload in self._leases.held])
        except psycopg.Error as error:
            _LOG.warning("no uploads could be claimed: %s", described(error))
            return []
        for upload in claimed:
            self._leases.hold(upload, since)
        return claimed

    def _sleep(self) -> None:
        """Sleep until the next poll, until an upload is due again, or until a slot is free for more work."""
        with self._wake:
            now = time.monotonic()
            while self._due and self._due[0] <= now:
                heapq.heappop(self._due)
            until = min([now + self._settings.poll_s, *self._due[:1]])
            self._wake.wait_for(lambda: self._is_woken, timeout=max(0.0, until - now))
            self._is_woken = False

    def _wake_up(self) -> None:
        with self._wake:
            self._is_woken = True
            self._wake.notify()

    # --- one upload -----------------------------------------------------------------------------------

    def _process(self, upload: Claimed) -> None:
        correlation_id.set(upload.correlation)
        try:
            self._try(upload)
        except LostClaimError:
            _LOG.warning("another worker has claimed the upload", extra=_about(upload))
        except psycopg.Error as error:  # the lease passes, and the upload is claimed again
            _LOG.warning("the upload waits for its lease: %s", described(error), extra=_about(upload))
        except Exception:  # noqa: BLE001 -- a thread cannot raise to its caller
            _LOG.exception("the upload waits for its lease", extra=_about(upload))
        finally:
            self._leases.drop(upload)
            correlation_id.set(None)
            if self._has_backlog:
                self._wake_up()

    def _try(self, upload: Claimed) -> None:
        settings = self._settings
        if upload.attempts >= settings.attempts:
            self._fail(upload, "the worker of the last attempt ended before the attempt did")
            return
        # a file that nobody has uploaded yet costs no attempt, as long as somebody can
        if not upload.attempts and not upload.is_expired and not self._is_there(upload):
            self._postpone(upload, upload.looks + 1, looked=True)
            return
        attempt = self._queue.begin_attempt(upload)
        try:
            content = self._storage.download(
                upload.key,
                content_type=upload.content_type,
                abandoned=lambda: self._stopping.is_set() or not self._leases.is_held(upload),
            )
        except AbandonedError:
            self._give_back(upload)
        except StoreError as error:
            self._retry_or_fail(upload, attempt, str(error))
        else:
            self._finish(upload, attempt, content)

    def _is_there(self, upload: Claimed) -> bool:
        try:
            return self._storage.exists(upload.key)
        except StoreError as error:
            _LOG.warning("the store was asked for the file: %s", error, extra=_about(upload))
            return False

    def _retry_or_fail(self, upload: Claimed, attempt: int, error: str) -> None:
        if attempt >= self._settings.attempts:
            self._fail(upload, error)
            return
        waits = self._postpone(upload, attempt)
        fields = {"attempt": attempt, "retry_in_s": round(waits, 3), "error": error}
        _LOG.warning("the download failed, another attempt follows", extra=_about(upload, **fields))

    def _finish(self, upload: Claimed, attempt: int, content: Content) -> None:
        try:
            self._written(lambda: self._queue.finish(upload, content))
        except psycopg.Error as error:
            if is_transient(error):
                raise
            # the database refuses this result, and may accept another one
            self._retry_or_fail(upload, attempt, f"the result could not be written: {described(error)}")
            return
        fields = {"attempt": attempt, "checksum": content.sha256, "bytes": content.size}
        _LOG.info("indexed", extra=_about(upload, **fields))

    def _fail(self, upload: Claimed, error: str) -> None:
        self._written(lambda: self._queue.fail(upload, error))
        _LOG.error("the upload failed permanently", extra=_about(upload, error=error))

    def _written(self, write: Callable[[], None]) -> None:
        """Write a result, again and again while the database is away or full. It names the number of its claim."""
        while True:
            try:
                write()
            except psycopg.Error as error:
                if not is_transient(error) or self._stopping.wait(_DATABASE_RETRY_S):
                    raise
            else:
                return

    def _postpone(self, upload: Claimed, failures: int, *, looked: bool = False) -> float:
        settings = self._settings
        waits = delay(failures, shortest_s=settings.shortest_delay_s, longest_s=settings.longest_delay_s)
        self._queue.postpone(upload, waits, looked=looked)
        with self._wake:
            heapq.heappush(self._due, time.monotonic() + waits)
        if waits < settings.poll_s:
            self._wake_up()
        return waits

    def _give_back(self, upload: Claimed) -> None:
        try:
            self._queue.give_back(upload)
        except psycopg.Error as error:
            _LOG.warning("the claim waits for its lease: %s", described(error), extra=_about(upload))
        except LostClaimError:
            _LOG.warning("another worker has claimed the upload", extra=_about(upload))
        else:
            _LOG.info("given back", extra=_about(upload))


def work(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT, and return the exit code."""
    # other threads inherit the mask, so that only the waiting thread receives signals
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    name = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    pool = open_pool(settings)
    worker = Worker(settings, WorkQueue(pool.connection, worker=name, lease_s=settings.lease_s), Storage(settings))

    def wait_for_signal() -> None:
        signal.sigwait(_SIGNALS)
        worker.stop()
        # a query to a frozen database ends with the process only; claims then wait for their leases
        end_soon()

    Thread(target=wait_for_signal, name="signals", daemon=True).start()
    _LOG.info("started", extra={"fields": {"worker": name, "concurrency": settings.concurrency}})
    ended = worker.run()
    _LOG.info("stopped", extra={"fields": {"worker": name}})
    if not ended:  # a thread waits for the store or the database; its claim was given back
        logging.shutdown()
        os._exit(0)
    pool.close(timeout=1.0)
    return 0


def _about(upload: Claimed, **fields: object) -> dict[str, dict[str, object]]:
    about = {"upload_id": upload.id, "key": upload.key, "correlation_id": upload.correlation}
    return {"fields": about | fields}
