"""Pooling: locks and messages, which tie clients to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import follower, neighbour, pressed, until
from harness.libpq import finish, simple, start
from harness.suites.pooling.probes import LEAKS, LOCKS, LOST, feature, works_here

if TYPE_CHECKING:
    from harness.checks.context import Bench
    from harness.database import Client
    from harness.model import Outcome

KEY = 4242
HELD = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {KEY} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
#: for what is expected to come, and for what is expected not to
PATIENT_S, SOON_S = 5.0, 0.25


@feature(
    "advisory-lock",
    "session advisory lock: keeps others out",
    group=LOCKS,
    claim="while one client holds a session advisory lock, no other client gets it",
)
def advisory_lock(bench: Bench) -> Outcome:
    client = bench.plain_client()
    client.value(f"SELECT pg_advisory_lock({KEY})")
    other = neighbour(bench, client)
    if bench.otherwise and works_here(bench, "advisory-lock"):
        bench.admin.value("SELECT pg_terminate_backend(%s)", [client.server_pid()])
        until(bench, HELD, 0, PATIENT_S)
    elif bench.otherwise:
        simple(other, "SELECT pg_advisory_unlock_all()")
        bench.admin.value(f"SELECT pg_advisory_lock({KEY})")
    got = other.value(f"SELECT pg_try_advisory_lock({KEY})")
    bench.fact("both were told that they hold the lock", got)
    return LEAKS if got else WORKS


@feature(
    "advisory-unlock",
    "session advisory lock: released by its holder",
    group=LOCKS,
    claim="a client can release the session advisory lock that it took",
)
def advisory_unlock(bench: Bench) -> Outcome:
    client = bench.plain_client()
    client.value(f"SELECT pg_advisory_lock_shared({KEY})")
    with pressed(bench, client):
        if bench.otherwise:
            verb = "unlock" if works_here(bench, "advisory-unlock") else "lock"
            client.value(f"SELECT pg_advisory_{verb}_shared({KEY})")
        released = client.value(f"SELECT pg_advisory_unlock_shared({KEY})")
    bench.fact("held after that, seen from the direct connection", bench.admin.value(HELD))
    return WORKS if released else LOST


@feature(
    "advisory-orphan",
    "session advisory lock: gone with its holder",
    group=LOCKS,
    claim="when a client that held a session advisory lock has disconnected, nobody holds it",
)
def advisory_orphan(bench: Bench) -> Outcome:
    client = bench.plain_client()
    client.value(f"SELECT pg_advisory_lock({KEY})")
    pid = client.server_pid()
    if bench.otherwise and works_here(bench, "advisory-orphan"):
        start(bench.another_owner(), f"SELECT pg_advisory_lock({KEY})")
    client.close()
    other = bench.plain_client()
    after = other.server_pid()
    bench.probed("the holder disconnects, the next client is served", pid, after)
    if bench.otherwise and not works_here(bench, "advisory-orphan"):
        simple(other, "SELECT pg_advisory_unlock_all()")
    try:
        patient = works_here(bench, "advisory-orphan") and not bench.otherwise
        until(bench, HELD, 0, PATIENT_S if patient else SOON_S)
    except NotExercisedError:
        return LEAKS
    return WORKS


@feature(
    "advisory-xact-lock",
    "transaction advisory lock",
    group=LOCKS,
    claim="a transaction advisory lock keeps others out until its statement or transaction ends, and no longer",
)
def advisory_xact_lock(bench: Bench) -> Outcome:
    client, other = bench.plain_client(), bench.plain_client()
    gate = KEY + 1
    bench.admin.value(f"SELECT pg_advisory_lock({gate})")
    # one statement that holds the lock and waits for the gate: it needs no transaction block
    start(client, f"SELECT pg_advisory_xact_lock({KEY}), pg_advisory_xact_lock({gate})")
    until(bench, HELD, 1, PATIENT_S)
    during = other.value(f"SELECT pg_try_advisory_xact_lock({KEY})")
    bench.admin.value(f"SELECT pg_advisory_unlock({gate})")
    finish(client)
    if bench.otherwise:
        bench.admin.value(f"SELECT pg_advisory_lock({KEY})")
    after = other.value(f"SELECT pg_try_advisory_xact_lock({KEY})")
    bench.probed("one holds the lock, the other asks", client.server_pid(), other.server_pid())
    if during:
        return LEAKS
    return WORKS if after else LOST


@feature(
    "listen",
    "LISTEN: notifications reach who listens",
    group=LOCKS,
    claim="a client that listens gets the notifications of its channel",
)
def listen(bench: Bench) -> Outcome:
    client = bench.plain_client()
    client.run("LISTEN news")
    works = works_here(bench, "listen")
    if bench.otherwise and works:
        client.run("UNLISTEN news")
    with pressed(bench, client):
        if bench.otherwise and not works:
            client.run("LISTEN news")
            simple(client, "NOTIFY news, 'from this control'")
        bench.admin.run("NOTIFY news, 'for who listens'")
        client.server_pid()
        got = _notifications(client, PATIENT_S if works else SOON_S)
    bench.fact("notifications received", got)
    return WORKS if got else LOST


@feature(
    "notify-apart",
    "LISTEN: notifications reach nobody else",
    group=LOCKS,
    claim="a client that does not listen gets no notification of another's channel",
)
def notify_apart(bench: Bench) -> Outcome:
    client = bench.plain_client()
    client.run("LISTEN news")
    other = follower(bench, client)
    if bench.otherwise:
        other.run("LISTEN news" if works_here(bench, "notify-apart") else "UNLISTEN *")
    # a session that listens gets its own notifications before it is told that it is idle again
    other.run("NOTIFY news, 'private'")
    got = _notifications(other, SOON_S)
    bench.fact("notifications that reached a client that never listened", got)
    return LEAKS if got else WORKS


@feature(
    "notify",
    "NOTIFY",
    group=LOCKS,
    claim="a notification that a client sends reaches who listens on a direct connection",
)
def notify(bench: Bench) -> Outcome:
    client = bench.plain_client()
    bench.admin.run("LISTEN news")
    client.run("NOTIFY news, 'sent'" if not bench.otherwise else "SELECT 1")
    bench.admin.value("SELECT 1")
    return WORKS if "sent" in _notifications(bench.admin, SOON_S if bench.otherwise else PATIENT_S) else LOST


def _notifications(client: Client, timeout_s: float) -> list[str]:
    return [each.payload for each in client.notifies(timeout=timeout_s, stop_after=1)]
