"""procrastinate: enqueues jobs, works on them, cancels and schedules them."""

import asyncio
import os
import sys
from pathlib import Path

import procrastinate
import psycopg
from effects import ATTEMPTS, CONCURRENCY, CRON_S, DATABASE_URL, LEASE_S, PAYLOAD, POLL_S, enqueued, perform_async

LISTEN = os.environ.get("LISTEN") != "off"
RETRY_STALLED = os.environ.get("RETRY_STALLED") == "on"
#: keeps the key of the scheduled job, for workers that start later
SCHEDULE = Path("procrastinate.schedule")
SCHEDULED = SCHEDULE.read_text() if SCHEDULE.exists() else ""

connection = {"prepare_threshold": None} if os.environ.get("PREPARE") == "off" else {}
# psycopg's pool keeps four connections open by default
size = int(os.environ.get("POOL_SIZE", "4"))
app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=DATABASE_URL, kwargs=connection, min_size=size, max_size=size),
    worker_defaults={"concurrency": CONCURRENCY},
    # a window that passed before a worker started is not made up for
    periodic_defaults={"max_delay": CRON_S / 2},
)
# the first attempt has the number 0
retries = procrastinate.RetryStrategy(max_attempts=ATTEMPTS - 1, wait=1) if ATTEMPTS > 1 else False


@app.task(name="job", pass_context=True, retry=retries)
async def job(context, key, **payload):
    await perform_async(key, attempt=context.job.attempts + 1, job=context.job.id, payload=payload)


async def scheduled(context, key, timestamp, **payload):
    await perform_async(key, attempt=timestamp // CRON_S, job=context.job.id, payload=payload)


async def retry_stalled(timestamp):  # noqa: ARG001 -- procrastinate passes it by name
    """Retry the jobs of workers without a heartbeat, as procrastinate's documentation recommends."""
    for stalled in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=LEASE_S):
        await app.job_manager.retry_job(stalled)


async def install():
    if not await app.check_connection_async():
        await app.schema_manager.apply_schema_async()


async def enqueue(first, last):
    keys = range(int(first), int(last) + 1)
    await job.batch_defer_async(*[{"key": key, **PAYLOAD} for key in keys])
    enqueued(*keys)


async def work():
    options = {"fetch_job_polling_interval": POLL_S, "listen_notify": LISTEN}
    if RETRY_STALLED:
        options |= {"update_heartbeat_interval": LEASE_S / 3, "stalled_worker_timeout": LEASE_S}
        task = app.task(name="retry-stalled", queueing_lock="retry-stalled")(retry_stalled)
        app.periodic(cron="* * * * * *")(task)
    if SCHEDULED:
        task = app.task(name="scheduled", pass_context=True)(scheduled)
        app.periodic(cron=f"* * * * * */{CRON_S}", task_kwargs={"key": int(SCHEDULED), **PAYLOAD})(task)
    await app.run_worker_async(**options)


async def cancel(key):
    for waiting in await app.job_manager.list_jobs_async(task=job.name, status="todo"):
        if waiting.task_kwargs["key"] == int(key):
            await app.job_manager.cancel_job_by_id_async(waiting.id)


async def schedule(key):
    await asyncio.to_thread(SCHEDULE.write_text, key)


async def in_transaction(rolled_back, committed):
    async with await psycopg.AsyncConnection.connect(DATABASE_URL, **connection) as caller:
        deferrer = job.configure(connection=caller)
        await deferrer.defer_async(key=int(rolled_back), **PAYLOAD)
        await caller.rollback()
        await deferrer.defer_async(key=int(committed), **PAYLOAD)
        await caller.commit()
    enqueued(int(committed))


async def main(command, *arguments):
    commands = (install, enqueue, work, cancel, schedule, in_transaction)
    async with app.open_async():
        await {run.__name__: run for run in commands}[command](*arguments)


asyncio.run(main(*sys.argv[1:]))
