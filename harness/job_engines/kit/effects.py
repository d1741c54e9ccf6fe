"""The effects of a job, for worker programs in Python: two calls to the database of effects, past the pooler.

A program imports it as `effects`: its folder is on PYTHONPATH. It needs psycopg.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

#: through the chain, and past it
DATABASE_URL, DIRECT_URL = os.environ["DATABASE_URL"], os.environ["DIRECT_URL"]
WORKER, VARIANT = os.environ.get("WORKER", ""), os.environ.get("VARIANT", "")
LEASE_S, POLL_S = float(os.environ.get("LEASE_S", "0")), float(os.environ.get("POLL_S", "1"))
CONCURRENCY, ATTEMPTS = int(os.environ.get("CONCURRENCY", "4")), int(os.environ.get("ATTEMPTS", "3"))
#: the length of a cron window, in whole seconds: schedules are written in them
CRON_S = int(float(os.environ.get("CRON_S", "1")))
#: what each job is given besides its key
PAYLOAD: dict[str, Any] = json.loads(os.environ.get("PAYLOAD", "{}"))
#: how often a job renews its lease: several times within it
_RENEWS_S = max(LEASE_S / 4, 0.1)

_lock = threading.Lock()
_connection: psycopg.Connection[Any] | None = None


class PlannedFailureError(Exception):
    """The attempt is planned to fail. The program lets it pass to its engine, which retries the job."""


def perform(
    key: int,
    *,
    attempt: int | None = None,
    job: object = "",
    payload: dict[str, Any] | None = None,
    heartbeat: Callable[[], object] | None = None,
) -> int:
    """Do what the harness planned for a job, and return its key.

    It reports that the job begins, runs the job's SQL through the chain, takes the job's time, and reports its end.

    :param attempt: its number, from 1, if the engine says it.
    :param job: the engine's own id of the job.
    :param payload: what the job was given besides its key.
    :param heartbeat: renews the lease. It is called all the while if the harness planned that for this job.
    :raises PlannedFailureError: at the end of an attempt that is planned to fail.
    """
    given = json.dumps(payload) if payload is not None else None
    [(seconds, fails, renews, sql)] = _ask(
        "SELECT * FROM job_begin(%s::integer, %s, %s::integer, %s::integer, %s, %s::jsonb)",
        (key, WORKER, os.getpid(), attempt, str(job), given),
    )
    if sql:
        with psycopg.connect(DATABASE_URL, autocommit=True, prepare_threshold=None) as chain:
            chain.execute(sql)
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(left, _RENEWS_S) if renews and heartbeat else left)
        if renews and heartbeat:
            heartbeat()
    report(key, "failed" if fails else "done", attempt=attempt, job=job)
    if fails:
        raise PlannedFailureError(f"attempt of job {key} that is meant to fail")
    return key


async def perform_async(key: int, **about: Any) -> int:
    """Do the same as :func:`perform` in a thread, without blocking the event loop."""
    return await asyncio.to_thread(perform, key, **about)


def enqueued(*keys: int) -> None:
    """Report that jobs are enqueued. Call it after the commit."""
    for key in keys:
        report(key, "enqueued")


def report(key: int, phase: str, *, attempt: int | None = None, job: object = "") -> None:
    """Report a phase of a job."""
    _ask(
        "SELECT job_phase(%s::integer, %s, %s, %s::integer, %s::integer, %s)",
        (key, phase, WORKER, os.getpid(), attempt, str(job)),
    )


def _ask(statement: str, values: tuple[object, ...]) -> list[Any]:
    """Run a statement in the database of effects; once more on a new connection when the old one is lost."""
    global _connection  # noqa: PLW0603 -- one connection for all threads of the program
    with _lock:
        for last in (False, True):
            try:
                if _connection is None or _connection.closed:
                    _connection = psycopg.connect(os.environ["EFFECTS_URL"], autocommit=True, prepare_threshold=None)
                return _connection.execute(statement, values).fetchall()
            except psycopg.OperationalError:
                _connection = None
                if last:
                    raise
    raise AssertionError
