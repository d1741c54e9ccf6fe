"""Pooling: advisory locks and notifications, which connect clients with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.occupation import require_two_connections, settled, until
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import follower, neighbour, pressed
from harness.libpq import finish, simple, start
from harness.suites.pooling.probes import LEAKS, LOCKS, LOST, probe, works_here

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client
    from harness.model import Outcome

KEY = 4242
HELD = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {KEY} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
#: timeouts for something that is expected to happen, and for something that is not
PATIENT_S, SOON_S = 5.0, 0.25


@probe(
    "advisory-lock",
    "session advisory lock: excludes other clients",
    group=LOCKS,
    claim="while one client holds a session advisory lock, no other client gets it",
)
def advisory_lock(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    client.value(f"SELECT pg_advisory_lock({KEY})")
    other = neighbour(ctx, client)
    if ctx.sabotaged and works_here(ctx, "advisory-lock"):
        ctx.admin.value("SELECT pg_terminate_backend(%s)", [client.server_pid()])
        until(ctx, HELD, 0, PATIENT_S)
    elif ctx.sabotaged:
        simple(other, "SELECT pg_advisory_unlock_all()")
        ctx.admin.value(f"SELECT pg_advisory_lock({KEY})")
    acquired = other.value(f"SELECT pg_try_advisory_lock({KEY})")
    ctx.fact("the other client got the lock, too", acquired)
    return LEAKS if acquired else WORKS


@probe(
    "advisory-unlock",
    "session advisory lock: released by its holder",
    group=LOCKS,
    claim="a client can release the session advisory lock that it took",
)
def advisory_unlock(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    client.value(f"SELECT pg_advisory_lock_shared({KEY})")
    with pressed(ctx, client):
        if ctx.sabotaged:
            verb = "unlock" if works_here(ctx, "advisory-unlock") else "lock"
            client.value(f"SELECT pg_advisory_{verb}_shared({KEY})")
        released = client.value(f"SELECT pg_advisory_unlock_shared({KEY})")
    ctx.fact("locks still held, as the direct connection shows", ctx.admin.value(HELD))
    return WORKS if released else LOST


@probe(
    "advisory-orphan",
    "session advisory lock: released when its holder disconnects",
    group=LOCKS,
    claim="when a client that holds a session advisory lock disconnects, the lock is released",
)
def advisory_orphan(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    client.value(f"SELECT pg_advisory_lock({KEY})")
    pid = client.server_pid()
    if ctx.sabotaged and works_here(ctx, "advisory-orphan"):
        start(ctx.another_owner(), f"SELECT pg_advisory_lock({KEY})")
    client.close()
    other = ctx.plain_client()
    after = other.server_pid()
    ctx.probed("the holder disconnects, and the pooler serves the next client", pid, after)
    if ctx.sabotaged and not works_here(ctx, "advisory-orphan"):
        simple(other, "SELECT pg_advisory_unlock_all()")
    try:
        patient = works_here(ctx, "advisory-orphan") and not ctx.sabotaged
        until(ctx, HELD, 0, PATIENT_S if patient else SOON_S)
    except NotExercisedError:
        return LEAKS
    return WORKS


@probe(
    "advisory-xact-lock",
    "transaction advisory lock",
    group=LOCKS,
    claim="a transaction advisory lock excludes other clients until its transaction ends, and no longer",
)
def advisory_xact_lock(ctx: CheckContext) -> Outcome:
    require_two_connections(ctx)
    client, other = ctx.plain_client(), ctx.plain_client()
    gate = KEY + 1
    ctx.admin.value(f"SELECT pg_advisory_lock({gate})")
    # a single statement takes the lock and waits at the gate, so the probe needs no transaction block
    start(client, f"SELECT pg_advisory_xact_lock({KEY}), pg_advisory_xact_lock({gate})")
    until(ctx, HELD, 1, PATIENT_S)
    during = other.value(f"SELECT pg_try_advisory_xact_lock({KEY})")
    ctx.admin.value(f"SELECT pg_advisory_unlock({gate})")
    finish(client)
    if ctx.sabotaged:
        ctx.admin.value(f"SELECT pg_advisory_lock({KEY})")
    after = other.value(f"SELECT pg_try_advisory_xact_lock({KEY})")
    ctx.probed("one client holds the lock, another requests it", client.server_pid(), other.server_pid())
    if during:
        return LEAKS
    return WORKS if after else LOST


@probe(
    "listen",
    "LISTEN: notifications reach the listening client",
    group=LOCKS,
    claim="a client that listens receives the notifications of its channel",
)
def listen(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    client.run("LISTEN news")
    works = works_here(ctx, "listen")
    if ctx.sabotaged and works:
        client.run("UNLISTEN news")
    with pressed(ctx, client):
        if ctx.sabotaged and not works:
            client.run("LISTEN news")
            simple(client, "NOTIFY news, 'from the control'")
        ctx.admin.run("NOTIFY news, 'for the listener'")
        client.server_pid()
        received = _notifications(client, PATIENT_S if works else SOON_S)
    ctx.fact("notifications received", received)
    return WORKS if received else LOST


@probe(
    "notify-apart",
    "LISTEN: notifications reach no other client",
    group=LOCKS,
    claim="a client that does not listen receives no notification from another client's channel",
)
def notify_apart(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    client.run("LISTEN news")
    other = follower(ctx, client)
    if ctx.sabotaged:
        other.run("LISTEN news" if works_here(ctx, "notify-apart") else "UNLISTEN *")
    # the server sends a listening session its own notifications before ReadyForQuery
    other.run("NOTIFY news, 'private'")
    received = _notifications(other, SOON_S)
    ctx.fact("notifications that reached a client that never listened", received)
    return LEAKS if received else WORKS


@probe(
    "notify",
    "NOTIFY",
    group=LOCKS,
    claim="a notification that a client sends reaches a listener on a direct connection",
)
def notify(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    ctx.admin.run("LISTEN news")
    client.run("NOTIFY news, 'sent'" if not ctx.sabotaged else "SELECT 1")
    ctx.admin.value("SELECT 1")
    return WORKS if "sent" in _notifications(ctx.admin, SOON_S if ctx.sabotaged else PATIENT_S) else LOST


def _notifications(client: Client, timeout_s: float) -> list[str]:
    return [notification.payload for notification in client.notifies(timeout=timeout_s, stop_after=1)]
