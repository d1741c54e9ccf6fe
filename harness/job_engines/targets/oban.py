"""Jobs of Oban for Python."""

import asyncio
import os
import signal
import sys

from effects import ATTEMPTS, CONCURRENCY, DATABASE_URL, DIRECT_URL, LEASE_S, PAYLOAD, WORKER, enqueued, perform_async
from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool


@worker(queue="default", max_attempts=ATTEMPTS)
class Job:
    async def process(self, job):
        await perform_async(job.args["key"], attempt=job.attempt, job=job.id, payload=job.args["payload"])

    def backoff(self, _job):
        return 1


def new(key):
    return Job.new({"key": key, "payload": PAYLOAD})


async def create_pool():
    if os.environ.get("LISTEN") != "direct":
        return await Oban.create_pool(DATABASE_URL)
    # LISTEN uses the address of the pool alone; these arguments lead the pool's connections through the pooler
    through = {
        "host": os.environ["PGHOST"],
        "port": os.environ["PGPORT"],
        "user": os.environ["PGUSER"],
        "password": os.environ["PGPASSWORD"],
        "dbname": os.environ["PGDATABASE"],
        "prepare_threshold": None,
    }
    pool = AsyncConnectionPool(DIRECT_URL, kwargs=through, min_size=1, max_size=4, open=False)
    await pool.open(wait=True)
    return pool


async def work(pool):
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    lifeline = {"interval": 1.0, "rescue_after": LEASE_S}
    async with Oban(pool=pool, node=WORKER, queues={"default": CONCURRENCY}, lifeline=lifeline):
        await ended.wait()


async def enqueue(pool, first, last):
    keys = range(first, last + 1)
    await Oban(pool=pool).enqueue_many(new(key) for key in keys)
    enqueued(*keys)


async def cancel(pool, key):
    async with pool.connection() as connection:
        found = await connection.execute("SELECT id FROM oban_jobs WHERE args ->> 'key' = %s", (str(key),))
        (job,) = await found.fetchone()
    await Oban(pool=pool).cancel_job(job)


async def in_transaction(pool, key, other):
    oban = Oban(pool=pool)
    async with pool.connection() as connection:
        await oban.enqueue(new(key), conn=connection)
        await connection.rollback()
        await oban.enqueue(new(other), conn=connection)
    enqueued(other)


COMMANDS = {"install": install, "work": work, "enqueue": enqueue, "cancel": cancel, "in_transaction": in_transaction}


async def main(command, *keys):
    pool = await create_pool()
    try:
        await COMMANDS[command](pool, *map(int, keys))
    finally:
        await pool.close()


asyncio.run(main(*sys.argv[1:]))
