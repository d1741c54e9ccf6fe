"""Pooling: locks and messages, which tie clients to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import follower, neighbour, pressed, until
from harness.libpq import finish, simple, start
from harness.suites.pooling.probes import LEAKS, LOCKS, LOST, feature, works_here

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
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
def advisory_lock(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    client.value(f"SELECT pg_advisory_lock({KEY})")
    other = neighbour(ctx, client)
    if ctx.sabotaged and works_here(ctx, "advisory-lock"):
        ctx.admin.value("SELECT pg_terminate_backend(%s)", [client.server_pid()])
        until(ctx, HELD, 0, PATIENT_S)
    elif ctx.sabotaged:
        simple(other, "SELECT pg_advisory_unlock_all()")
        ctx.admin.value(f"SELECT pg_advisory_lock({KEY})")
    got = other.value(f"SELECT pg_try_advisory_lock({KEY})")
    ctx.fact("both were told that they hold the lock", got)
    return LEAKS if got else WORKS


@feature(
    "advisory-unlock",
    "session advisory lock: released by its holder",
    group=LOCKS,
    claim="a client can release the session advisory lock that it took",
)
def advisory_unlock(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    client.value(f"SELECT pg_advisory_lock_shared({KEY})")
    with pressed(ctx, client):
        if ctx.sabotaged:
            verb = "unlock" if works_here(ctx, "advisory-unlock") else "lock"
            client.value(f"SELECT pg_advisory_{verb}_shared({KEY})")
        released = client.value(f"SELECT pg_advisory_unlock_shared({KEY})")
    ctx.fact("held after that, seen from the direct connection", ctx.admin.value(HELD))
    return WORKS if released else LOST


@feature(
    "advisory-orphan",
    "session advisory lock: gone with its holder",
    group=LOCKS,
    claim="when a client that held a session advisory lock has disconnected, nobody holds it",
)
def advisory_orphan(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    client.value(f"SELECT pg_advisory_lock({KEY})")
    pid = client.server_pid()
    if ctx.sabotaged and works_here(ctx, "advisory-orphan"):
        start(ctx.another_owner(), f"SELECT pg_advisory_lock({KEY})")
    client.close()
    other = ctx.plain_client()
    after = other.server_pid()
    ctx.probed("the holder disconnects, the next client is served", pid, after)
    if ctx.sabotaged and not works_here(ctx, "advisory-orphan"):
        simple(other, "SELECT pg_advisory_unlock_all()")
    try:
        patient = works_here(ctx, "advisory-orphan") and not ctx.sabotaged
        until(ctx, HELD, 0, PATIENT_S if patient else SOON_S)
    except NotExercisedError:
        return LEAKS
    return WORKS


@feature(
    "advisory-xact-lock",
    "transaction advisory lock",
    group=LOCKS,
    claim="a transaction advisory lock keeps others out until its statement or transaction ends, and no longer",
)
def advisory_xact_lock(ctx: CheckContext) -> Outcome:
    client, other = ctx.plain_client(), ctx.plain_client()
    gate = KEY + 1
    ctx.admin.value(f"SELECT pg_advisory_lock({gate})")
    # one statement that holds the lock and waits for the gate: it needs no transaction block
    start(client, f"SELECT pg_advisory_xact_lock({KEY}), pg_advisory_xact_lock({gate})")
    until(ctx, HELD, 1, PATIENT_S)
    during = other.value(f"SELECT pg_try_advisory_xact_lock({KEY})")
    ctx.admin.value(f"SELECT pg_advisory_unlock({gate})")
    finish(client)
    if ctx.sabotaged:
        ctx.admin.value(f"SELECT pg_advisory_lock({KEY})")
    after = other.value(f"SELECT pg_try_advisory_xact_lock({KEY})")
    ctx.probed("one holds the lock, the other asks", client.server_pid(), other.server_pid())
    if during:
        return LEAKS
    return WORKS if after else LOST


@feature(
    "listen",
    "LISTEN: notifications reach who listens",
    group=LOCKS,
    claim="a client that listens gets the notifications of its channel",
)
def listen(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    client.run("LISTEN news")
    works = works_here(ctx, "listen")
    if ctx.sabotaged and works:
        client.run("UNLISTEN news")
    with pressed(ctx, client):
        if ctx.sabotaged and not works:
            client.run("LISTEN news")
            simple(client, "NOTIFY news, 'from this control'")
        ctx.admin.run("NOTIFY news, 'for who listens'")
        client.server_pid()
        got = _notifications(client, PATIENT_S if works else SOON_S)
    ctx.fact("notifications received", got)
    return WORKS if got else LOST


@feature(
    "notify-apart",
    "LISTEN: notifications reach nobody else",
    group=LOCKS,
    claim="a client that does not listen gets no notification of another's channel",
)
def notify_apart(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    client.run("LISTEN news")
    other = follower(ctx, client)
    if ctx.sabotaged:
        other.run("LISTEN news" if works_here(ctx, "notify-apart") else "UNLISTEN *")
    # a session that listens gets its own notifications before it is told that it is idle again
    other.run("NOTIFY news, 'private'")
    got = _notifications(other, SOON_S)
    ctx.fact("notifications that reached a client that never listened", got)
    return LEAKS if got else WORKS


@feature(
    "notify",
    "NOTIFY",
    group=LOCKS,
    claim="a notification that a client sends reaches who listens on a direct connection",
)
def notify(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    ctx.admin.run("LISTEN news")
    client.run("NOTIFY news, 'sent'" if not ctx.sabotaged else "SELECT 1")
    ctx.admin.value("SELECT 1")
    return WORKS if "sent" in _notifications(ctx.admin, SOON_S if ctx.sabotaged else PATIENT_S) else LOST


def _notifications(client: Client, timeout_s: float) -> list[str]:
    return [each.payload for each in client.notifies(timeout=timeout_s, stop_after=1)]
