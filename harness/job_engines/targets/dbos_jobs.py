"""DBOS: enqueues workflows, works on them, cancels, approves, schedules and forks them."""

import os
import sys
import threading

import sqlalchemy
from dbos import DBOS, DBOSClient, SetWorkflowID
from effects import (
    ATTEMPTS,
    CONCURRENCY,
    CRON_S,
    DATABASE_URL,
    PAYLOAD,
    POLL_S,
    VARIANT,
    WORKER,
    enqueued,
    perform,
    report,
)

QUEUE, APPLICATION, APPROVAL = "jobs", "harness-jobs", "approval"
PREPARE = {"prepare_threshold": None} if os.environ.get("PREPARE") == "off" else {}
CONFIG = {"name": APPLICATION, "system_database_url": DATABASE_URL, "log_level": "WARNING"}
if VARIANT == "pooler":
    CONFIG |= {
        "executor_id": WORKER,
        "use_listen_notify": False,
        "sys_db_pool_size": 5,
        "db_engine_kwargs": {"connect_args": PREPARE},
    }
URL = sqlalchemy.make_url(DATABASE_URL).set(drivername="postgresql+psycopg")
DBOS(config=CONFIG)


def workflow_id(key):
    return f"job-{key}"


def own_key():
    """Return the key of the running workflow: a fork has the arguments of its original, and an id of its own."""
    return int(DBOS.workflow_id.removeprefix("job-"))


@DBOS.step(retries_allowed=True, max_attempts=ATTEMPTS, interval_seconds=4, backoff_rate=1)
def effect(key, payload, window=None):
    attempt = DBOS.step_status.current_attempt + 1 if window is None else window
    return perform(key, attempt=attempt, job=DBOS.workflow_id, payload=payload)


@DBOS.step()
def report_waiting(key):
    report(key, "waiting", job=DBOS.workflow_id)


@DBOS.workflow(name="job")
def job(payload):
    return effect(own_key(), payload)


@DBOS.workflow(name="approved")
def approved(payload):
    report_waiting(own_key())
    DBOS.recv(APPROVAL, timeout_seconds=3600)
    return effect(own_key(), payload)


@DBOS.workflow(name="parent")
def parent(payload, first, last):
    handles = []
    for key in range(first, last + 1):
        with SetWorkflowID(workflow_id(key)):
            handles.append(DBOS.enqueue_workflow(QUEUE, job, payload))
    for handle in handles:
        handle.get_result()
    return effect(own_key(), payload)


@DBOS.workflow(name="scheduled")
def scheduled(at, context):
    return effect(context["key"], context["payload"], window=int(at.timestamp()) // CRON_S)


def launch():
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLL_S)


def install():
    launch()
    DBOS.destroy()


def work():
    launch()
    threading.Event().wait()


def connect():
    """Return the client that an application without workflows uses, and its SQLAlchemy engine."""
    engine = sqlalchemy.create_engine(URL, connect_args=PREPARE)
    return DBOSClient(system_database_engine=engine, application_name=APPLICATION), engine


def options(key, workflow="job"):
    return {"queue_name": QUEUE, "workflow_name": workflow, "workflow_id": workflow_id(key)}


def enqueue(first, last):
    client, _ = connect()
    for key in range(int(first), int(last) + 1):
        client.enqueue(options(key), PAYLOAD)
        enqueued(key)


def cancel(key):
    connect()[0].cancel_workflow(workflow_id(key))


def waiting(key):
    connect()[0].enqueue(options(key, "approved"), PAYLOAD)
    enqueued(int(key))


def approve(key):
    connect()[0].send(workflow_id(key), "approved", topic=APPROVAL)


def schedule(key):
    context = {"key": int(key), "payload": PAYLOAD}
    cron = f"*/{CRON_S} * * * * *"
    timetable = {"schedule_name": "windows", "workflow_name": "scheduled", "schedule": cron, "context": context}
    connect()[0].apply_schedules([timetable])


def fork(key, new):
    with SetWorkflowID(workflow_id(new)):
        connect()[0].fork_workflow(workflow_id(key), 1, queue_name=QUEUE)
    enqueued(int(new))


def children(key, first, last):
    connect()[0].enqueue(options(key, "parent"), PAYLOAD, int(first), int(last))
    enqueued(int(key))


def in_transaction(rolled_back, committed):
    client, engine = connect()
    with engine.connect() as caller:
        client.enqueue_in_transaction(caller, options(rolled_back), PAYLOAD)
        caller.rollback()
        client.enqueue_in_transaction(caller, options(committed), PAYLOAD)
        caller.commit()
    enqueued(int(committed))


commands = (install, enqueue, work, cancel, waiting, approve, schedule, fork, children, in_transaction)
{run.__name__: run for run in commands}[sys.argv[1]](*sys.argv[2:])
