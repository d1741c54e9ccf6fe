"""Pooling: server processes that end, server restarts, and the time while the server is down."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.occupation import settled, waiting_pid
from harness.checks.record import NotExercisedError
from harness.database import SqlError, connect
from harness.errors import TimedOutError
from harness.libpq import finish, simple, start
from harness.model import Behaviour, Outcome
from harness.suites.pooling.connections import log_in_raw, refused
from harness.suites.pooling.failures import CONSOLE, pooler_with
from harness.suites.pooling.probes import CONNECTIONS, WRONG, fails, probe, works_here
from harness.waiting import NotYet, poll
from harness.wire.messages import ClosedError, NotPostgresError, ServerError
from harness.wire.sockets import Deadline

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client
    from harness.libpq import Reply

#: a statement that does not end within the probe
_FAR_S = 60
_BACK_S = 30.0
#: how long a client waits for an error while the server is down
_PATIENT_S = 1.0
#: what PgBouncer waits by default between two attempts to log in (https://www.pgbouncer.org/config.html#server_login_retry)
_DEFAULT_LOGIN_RETRY_S = 15


@probe(
    "terminated-idle",
    "server process that ends: idle client",
    group=CONNECTIONS,
    claim="a client that was idle when its server process was terminated can continue",
)
def terminated_idle(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    pid = client.server_pid()
    works = works_here(ctx, "terminated-idle")
    if not (ctx.sabotaged and not works):
        ctx.admin.value("SELECT pg_terminate_backend(%s, 5000)", [pid])
    if ctx.sabotaged and works:
        client.pgconn.finish()
    return _outcome(ctx, simple(client, "SELECT 1"))


@probe(
    "terminated-busy",
    "server process that ends: client with a running statement",
    group=CONNECTIONS,
    claim="a client whose server process is terminated during a statement gets an error",
)
def terminated_busy(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    if ctx.sabotaged:
        return _outcome(ctx, simple(client, "SELECT 1"))
    ctx.admin.value("SELECT pg_terminate_backend(%s, 5000)", [_begin_far(ctx, client)])
    return _interrupted(ctx, finish(client))


def _begin_far(ctx: CheckContext, client: Client) -> int:
    """Begin a statement that does not end within the probe, and return the server process that runs it."""
    # not a wait for a lock: its holder also ends with the server, and may end first
    start(client, f"SELECT pg_sleep({_FAR_S})")
    return waiting_pid(ctx, f"pg_sleep({_FAR_S})")


def _interrupted(ctx: CheckContext, answer: Reply) -> Outcome:
    """Return the outcome of a statement whose server process ended: an answer without an error is wrong."""
    return _outcome(ctx, answer) if answer.is_error else WRONG


def _outcome(ctx: CheckContext, answer: Reply) -> Outcome:
    if not answer.is_error:
        return WORKS
    ctx.fact("error that the client received", answer.message)
    return fails(answer)


# --- these end every connection --------------------------------------------------------------------------------


@probe(
    "restart-idle",
    "server restart: idle client",
    group=CONNECTIONS,
    claim="a client that was idle during a server restart can continue",
    serial_group="restart-idle",
    disrupts=True,
)
def restart_idle(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    client.value("SELECT 1")
    works = works_here(ctx, "restart-idle")
    if not (ctx.sabotaged and not works):
        _restart(ctx)
    if ctx.sabotaged and works:
        client.pgconn.finish()
    return _outcome(ctx, simple(client, "SELECT 1"))


@probe(
    "restart-busy",
    "server restart: client with a running statement",
    group=CONNECTIONS,
    claim="a client whose statement runs during a server restart gets an error",
    serial_group="restart-busy",
    disrupts=True,
)
def restart_busy(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    if ctx.sabotaged:
        return _outcome(ctx, simple(client, "SELECT 1"))
    _begin_far(ctx, client)
    _restart(ctx)
    return _interrupted(ctx, finish(client))


@probe(
    "immediate-shutdown",
    "immediate shutdown of the server: client with a running statement",
    group=CONNECTIONS,
    claim="a client whose statement runs during an immediate shutdown of the server gets an error",
    serial_group="immediate-shutdown",
    disrupts=True,
)
def immediate_shutdown(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    if ctx.sabotaged:
        return _outcome(ctx, simple(client, "SELECT 1"))
    _begin_far(ctx, client)
    try:
        ctx.lab.postgres.stop("SIGQUIT")
        return _interrupted(ctx, finish(client))
    finally:
        _restart(ctx)


@probe(
    "server-down",
    "server that is down: new client",
    group=CONNECTIONS,
    claim="a new client gets an error while the server is down, with the pooler's default retry settings",
    serial_group="server-down",
    disrupts=True,
)
def server_down(ctx: CheckContext) -> Outcome:
    """Record what two clients receive, one after the other; the first decides the outcome."""
    ctx.plain_client().server_pid()
    by_default = (
        pooler_with(ctx, server_login_retry=_DEFAULT_LOGIN_RETRY_S)
        if CONSOLE.given(ctx.topology)
        else contextlib.nullcontext()
    )
    try:
        with by_default:
            if not ctx.sabotaged:
                ctx.lab.postgres.stop("SIGQUIT")
            outcomes = [_new_client(ctx, which) for which in ("the first new client", "the second new client")]
    finally:
        if not ctx.sabotaged:
            _restart(ctx)
    return outcomes[0]


def _new_client(ctx: CheckContext, which: str) -> Outcome:
    began = time.monotonic()
    try:
        with contextlib.closing(log_in_raw(ctx.lab.chain(ctx.database), {})) as wire:
            wire.deadline = Deadline(_PATIENT_S)
            wire.query("SELECT 1")
        outcome, received = WORKS, "an answer"
    except (ServerError, ClosedError) as error:
        outcome, received = refused(error), error.what
    except NotPostgresError as error:
        outcome, received = Outcome(behaviour=Behaviour.FAILS), error.what
    except TimedOutError:
        outcome, received = Outcome(behaviour=Behaviour.HANGS), "nothing"
    ctx.fact(which, f"{outcome}: {received}, after {time.monotonic() - began:.1f} s")
    return outcome


def _restart(ctx: CheckContext) -> None:
    """Start PostgreSQL again, and wait until the chain answers a new client.

    :raises NotExercisedError: when it does not within the deadline.
    """
    ctx.lab.postgres.restart()
    ctx.forget_connections()
    began = time.monotonic()

    def answered() -> None:
        try:
            with connect(ctx.lab.chain(ctx.database), connect_timeout_s=2) as client:
                client.value("SELECT 1")
        except SqlError as error:
            raise NotYet(str(error)) from None

    try:
        poll(answered, what="an answer through the chain after the restart", deadline_s=_BACK_S)
    except TimedOutError as error:
        raise NotExercisedError(error.what) from None
    ctx.fact("seconds until a new client was answered", round(time.monotonic() - began, 1))
