"""A queue in one table: SKIP LOCKED, a lease that a job renews, and retries."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import effects
import psycopg
from psycopg.types.json import Jsonb

INSTALL = """
CREATE TABLE IF NOT EXISTS jobs (key integer PRIMARY KEY, payload jsonb NOT NULL, state text NOT NULL DEFAULT 'waiting',
    attempt integer NOT NULL DEFAULT 0, due timestamptz NOT NULL DEFAULT now())"""
INSERT = "INSERT INTO jobs (key, payload) VALUES (%s, %s)"
# a job that runs is due again when its lease ends
CLAIM = """
UPDATE jobs SET state = 'running', attempt = attempt + 1, due = now() + make_interval(secs => %s)
WHERE key = (SELECT key FROM jobs WHERE state IN ('waiting', 'running') AND due <= now()
    ORDER BY due LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING key, attempt, payload"""
# only the attempt that holds the job may renew or end it
UPDATE = """
UPDATE jobs SET state = %s, due = now() + make_interval(secs => %s)
WHERE key = %s AND attempt = %s AND state = 'running'"""
CANCEL = "UPDATE jobs SET state = 'cancelled' WHERE key = %s AND state = 'waiting'"

# each statement is a transaction of its own, and none is prepared: the next one may run on another server connection.
# The threads of a worker share this connection, so all of them end with it, and a supervisor starts the worker again
database = psycopg.connect(effects.DATABASE_URL, autocommit=True, prepare_threshold=None)


def install():
    database.execute(INSTALL)


def enqueue(first, last):
    for key in range(first, last + 1):
        database.execute(INSERT, (key, Jsonb(effects.PAYLOAD)))
        effects.enqueued(key)


def work():
    with ThreadPoolExecutor(effects.CONCURRENCY) as threads:
        for ended in as_completed([threads.submit(take_jobs) for _ in range(effects.CONCURRENCY)]):
            ended.result()


def take_jobs():
    while True:
        if claimed := database.execute(CLAIM, (effects.LEASE_S,)).fetchone():
            run(*claimed)
        else:
            time.sleep(effects.POLL_S)


def run(key, attempt, payload):
    def update(state, seconds):
        database.execute(UPDATE, (state, seconds, key, attempt))

    try:
        effects.perform(
            key, attempt=attempt, job=key, payload=payload, heartbeat=lambda: update("running", effects.LEASE_S)
        )
    except effects.PlannedFailureError:
        update("waiting" if attempt < effects.ATTEMPTS else "failed", 1)
    else:
        update("done", 0)


def cancel(key):
    database.execute(CANCEL, (key,))


def in_transaction(rolled_back, committed):
    with database.transaction(force_rollback=True):
        database.execute(INSERT, (rolled_back, Jsonb(effects.PAYLOAD)))
    with database.transaction():
        database.execute(INSERT, (committed, Jsonb(effects.PAYLOAD)))
    effects.enqueued(committed)


COMMANDS = {"install": install, "enqueue": enqueue, "work": work, "cancel": cancel, "in_transaction": in_transaction}
COMMANDS[sys.argv[1]](*map(int, sys.argv[2:]))
