"""PgQueuer: enqueues jobs, works on them, cancels and schedules them."""

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import psycopg
from effects import (
    ATTEMPTS,
    CONCURRENCY,
    CRON_S,
    DATABASE_URL,
    DIRECT_URL,
    LEASE_S,
    PAYLOAD,
    POLL_S,
    enqueued,
    perform_async,
)
from pgqueuer import DatabaseRetryEntrypointExecutor, PgQueuer, PsycopgDriver, Queries

PREPARE = {"prepare_threshold": None} if os.environ.get("PREPARE") == "off" else {}
#: whether a job is deleted or held after its last failed attempt
ON_FAILURE = os.environ.get("ON_FAILURE", "delete")
WORKER_URL = DIRECT_URL if os.environ.get("WORK") == "direct" else DATABASE_URL
#: keeps the key of the scheduled job, for workers that start later
SCHEDULE = Path("pgqueuer.schedule")
SCHEDULED = SCHEDULE.read_text() if SCHEDULE.exists() else ""


def body(key):
    return json.dumps({"key": int(key), **PAYLOAD}).encode()


async def connect(url=DATABASE_URL):
    return await psycopg.AsyncConnection.connect(url, autocommit=True, **PREPARE)


async def install():
    queries = Queries(PsycopgDriver(await connect()))
    if not await queries.has_table("pgqueuer"):
        await queries.install()


async def enqueue(first, last):
    keys = range(int(first), int(last) + 1)
    queries = Queries(PsycopgDriver(await connect()))
    await queries.enqueue(["job"] * len(keys), [body(key) for key in keys], [0] * len(keys))
    enqueued(*keys)


def retries(parameters):
    """Retry in the database. The first attempt has the number 0."""
    return DatabaseRetryEntrypointExecutor(
        parameters=parameters, max_attempts=ATTEMPTS - 1, initial_delay=timedelta(seconds=1)
    )


async def work():
    pgq = PgQueuer(PsycopgDriver(await connect(WORKER_URL)))

    @pgq.entrypoint("job", executor_factory=retries, on_failure=ON_FAILURE)
    async def job(job):
        payload = json.loads(job.payload)
        await perform_async(payload.pop("key"), attempt=job.attempts + 1, job=job.id, payload=payload)

    if SCHEDULED:

        @pgq.schedule("scheduled", f"* * * * * */{CRON_S}")
        async def scheduled(schedule):
            window = int(schedule.next_run.timestamp()) // CRON_S - 1
            await perform_async(int(SCHEDULED), attempt=window, job=schedule.id, payload=PAYLOAD)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pgq.shutdown.set)
    await pgq.run(
        dequeue_timeout=timedelta(seconds=POLL_S),
        batch_size=max(CONCURRENCY // 2, 1),
        max_concurrent_tasks=CONCURRENCY,
        heartbeat_timeout=timedelta(seconds=LEASE_S),
    )


async def cancel(key):
    queries = Queries(PsycopgDriver(await connect()))
    for waiting in await queries.browse_queue(limit=1000, statuses=["queued"]):
        if json.loads(waiting.payload)["key"] == int(key):
            await queries.mark_job_as_cancelled([waiting.id])


async def schedule(key):
    await asyncio.to_thread(SCHEDULE.write_text, key)


async def in_transaction(rolled_back, committed):
    caller = await connect()
    queries = Queries(PsycopgDriver(caller))
    async with caller.transaction(force_rollback=True):
        await queries.enqueue("job", body(rolled_back))
    async with caller.transaction():
        await queries.enqueue("job", body(committed))
    enqueued(int(committed))


commands = (install, enqueue, work, cancel, schedule, in_transaction)
asyncio.run({run.__name__: run for run in commands}[sys.argv[1]](*sys.argv[2:]))
