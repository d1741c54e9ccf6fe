"""Jobs as tasks of absurd."""

import os
import signal
import sys
import time

import absurdctl
import psycopg
from absurd_sdk import Absurd
from effects import (
    ATTEMPTS,
    CONCURRENCY,
    CRON_S,
    DATABASE_URL,
    LEASE_S,
    PAYLOAD,
    POLL_S,
    WORKER,
    enqueued,
    perform,
    report,
)


def connect(*, autocommit=True):
    prepare_threshold = None if os.environ.get("PREPARE") == "off" else 5  # 5 is psycopg's default
    return psycopg.connect(DATABASE_URL, autocommit=autocommit, prepare_threshold=prepare_threshold)


connection = connect()
app = Absurd(connection, queue_name="default")


def spawn(task, key, *, client=app, once="", **params):
    """Enqueue a task. The idempotency key makes a second call return the first task."""
    return client.spawn(
        task,
        {"key": key, "payload": PAYLOAD, **params},
        max_attempts=ATTEMPTS,
        retry_strategy={"kind": "fixed", "base_seconds": 1},
        idempotency_key=once or f"job-{key}",
        queue="default",
    )


def effect(params, ctx):
    """Do the job in a step: a retry after the step's checkpoint does not repeat it.

    The run of a cron window has the window's number in place of an attempt.
    """
    about = {"attempt": params.get("window"), "job": ctx.task_id, "payload": params["payload"]}
    ctx.step("effect", lambda: perform(params["key"], heartbeat=ctx.heartbeat, **about))


@app.register_task("job")
def job(params, ctx):
    effect(params, ctx)
    if params.get("child"):
        ctx.emit_event(f"done-{params['key']}")


@app.register_task("approval")
def approval(params, ctx):
    ctx.step("ask", lambda: report(params["key"], "waiting", job=ctx.task_id))
    ctx.await_event(f"approved-{params['key']}")
    effect(params, ctx)


def spawn_child(key):
    spawn("job", key, child=True)
    enqueued(key)


@app.register_task("parent")
def parent(params, ctx):
    children = range(params["first"], params["last"] + 1)
    for key in children:
        ctx.step(f"spawn-{key}", lambda key=key: spawn_child(key))
    for key in children:
        ctx.await_event(f"done-{key}")
    effect(params, ctx)


def window(at):
    """Return the number of a cron window."""
    return int(at // CRON_S)


@app.register_task("cron")
def cron(params, ctx):
    """Enqueue the job of a window, and the task of the next one: each once, by its idempotency key."""
    ctx.sleep_until("window", params["window"] * CRON_S)
    spawn("job", params["key"], once=f"cron-job-{params['key']}-{params['window']}", window=params["window"])
    schedule(params["key"], max(params["window"], window(time.time())) + 1)


def schedule(key, number):
    spawn("cron", key, once=f"cron-{key}-{number}", window=number)


def install():
    # what `absurdctl init` does by psql
    (installed,) = connection.execute("SELECT to_regnamespace('absurd') IS NOT NULL").fetchone()
    if not installed:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    app.create_queue()


def work():
    signal.signal(signal.SIGTERM, lambda *_: app.stop_worker())
    app.start_worker(worker_id=WORKER, claim_timeout=int(LEASE_S), concurrency=CONCURRENCY, poll_interval=POLL_S)


def cancel(key):
    # the idempotency key finds the task
    app.cancel_task(spawn("job", key)["task_id"])


def in_transaction(key, new):
    with connect(autocommit=False) as caller:
        spawn("job", key, client=Absurd(caller))
        caller.rollback()
        spawn("job", new, client=Absurd(caller))
        caller.commit()
    enqueued(new)


command, *given = sys.argv[1:]
keys = [int(word) for word in given]
if command == "install":
    install()
elif command == "work":
    work()
elif command == "enqueue":
    for key in range(keys[0], keys[1] + 1):
        spawn("job", key)
        enqueued(key)
elif command == "cancel":
    cancel(*keys)
elif command == "waiting":
    spawn("approval", *keys)
    enqueued(*keys)
elif command == "approve":
    app.emit_event(f"approved-{keys[0]}")
elif command == "schedule":
    schedule(keys[0], window(time.time()) + 1)
elif command == "children":
    spawn("parent", keys[0], first=keys[1], last=keys[2])
    enqueued(keys[0])
elif command == "in_transaction":
    in_transaction(*keys)
else:
    sys.exit(f"unknown command {command}")
