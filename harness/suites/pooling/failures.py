"""Pooling: full pools, timeouts and changed passwords. These probes disrupt all other checks."""

from __future__ import annotations

import contextlib
import re
import select
import time
from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.occupation import until, waiters_at, waiting_pid
from harness.checks.record import NotApplicableError, NotExercisedError
from harness.checks.registry import TRANSACTION_BLOCKS, Capability
from harness.database import SqlError, console, cut
from harness.errors import TimedOutError
from harness.lab.effective import effective_limits
from harness.libpq import Reply, finish, simple, start
from harness.model import Behaviour, Outcome
from harness.suites.pooling.connections import log_in_raw, refused
from harness.suites.pooling.probes import CONNECTIONS, LOST, fails, failure_of, probe, works_here
from harness.waiting import NotYet, poll
from harness.wire.messages import ClosedError, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from harness.database import Client, Endpoint

CONSOLE = Capability(
    "a console that sets timeouts",
    "the chain has no single PgBouncer process whose settings can be changed while it runs",
    lambda topology: (
        topology.pooler is not None and topology.pooler.product == "pgbouncer" and topology.pooler.instances == 1
    ),
)
_DEADLINE_S = 6.0
#: most clients that fill a pool
_MOST_HOLDERS = 64
#: a timeout that does not expire within the probe
_FAR_S = 60
#: timeouts are set to one second, and PgBouncer checks for expired ones three times a second
_SILENCE_S = 2.4
#: a login that takes longer may never be answered
_STUCK_S = 1.0
#: how long another login then waits: a pooler that loops takes a whole core meanwhile
_STUCK_TOO_S = 5.0
_STUCK_TOO_AS_DOCUMENTED_S = 2.0
_BACK_S = 30.0


@contextlib.contextmanager
def pooler_with(ctx: CheckContext, **settings: object) -> Iterator[None]:
    """Change settings of the running pooler, and restore them at the end of the block.

    :raises NotApplicableError: for a setting that this version does not have.
    """
    endpoint = ctx.lab.console()
    if endpoint is None:
        raise NotApplicableError(CONSOLE.lacking)
    before = {row["key"]: row["value"] for row in console(endpoint, "SHOW CONFIG")}
    for name in settings:
        if name not in before:
            version = ctx.pooler.version if ctx.pooler else ""
            raise NotApplicableError(f"PgBouncer {version} has no setting {name}")
    try:
        for name, value in settings.items():
            console(endpoint, f"SET {name} = '{value}'")
        yield
    finally:
        for name in settings:
            console(endpoint, f"SET {name} = '{before[name]}'")


def _wait_at(ctx: CheckContext, client: Client, gate: int) -> None:
    """Start a statement that waits for an advisory lock, and return when the server shows it waiting."""
    start(client, f"SELECT pg_advisory_xact_lock({gate})")
    waiting_pid(ctx, f"({gate})")


def _message_while_idle(client: Client) -> Reply | None:
    """Wait until an idle client receives a message, and return the answer to its next statement.

    Returns None when no message arrives before the timeouts that the probes set have expired.
    """

    def message_arrived() -> None:
        with contextlib.suppress(SqlError):  # the connection is known to be lost already
            incoming = select.poll()
            incoming.register(client.fileno(), select.POLLIN)
            if not incoming.poll(0):
                raise NotYet("no message")

    try:
        poll(message_arrived, what="the end of a connection", deadline_s=_SILENCE_S, interval_s=0.02)
    except TimedOutError:
        return None
    return simple(client, "SELECT 1")


def _timeout(ctx: CheckContext, answer: Reply | None, reason: str = "") -> Outcome:
    """Return the outcome of a timeout.

    :param answer: what the client received; None when it received nothing.
    :param reason: the text that PgBouncer's message must contain. PgBouncer uses one SQLSTATE for every error, so only
        the text distinguishes them.
    :raises NotExercisedError: when the client received a PgBouncer error about something else.
    """
    if answer is None:  # the timeout expired without an effect
        return LOST
    if not answer.is_error:
        return WORKS
    ctx.fact("error that the client received", answer.message)
    if answer.sqlstate == "08P01" and reason not in answer.message.replace("_", " "):
        raise NotExercisedError(f"unexpected error {answer.message!r}, expected one about {reason!r}")
    return failure_of(answer)


@probe(
    "full-pool",
    "full pool: wait longer than query_wait_timeout",
    group=CONNECTIONS,
    claim="a client that waits for a server connection longer than query_wait_timeout gets an error that says so",
    needs=(CONSOLE,),
    serial_group="timeouts",
    disrupts=True,
)
def full_pool(ctx: CheckContext) -> Outcome:
    limits = effective_limits(ctx.lab.evidence)
    if limits is None or limits.largest > _MOST_HOLDERS:
        raise NotExercisedError(f"filling the pool takes more than {_MOST_HOLDERS} clients: {limits}")
    size, gate = limits.largest, 6000
    ctx.admin.value(f"SELECT pg_advisory_lock({gate})")
    holders = [ctx.plain_client() for _ in range(size)]
    try:
        for holder in holders:
            start(holder, f"SELECT pg_advisory_xact_lock({gate})")
        # some of them wait for the reserve pool
        until(ctx, waiters_at(gate), size, _DEADLINE_S + limits.reserve_after_s)
        with pooler_with(ctx, query_wait_timeout=1 if not ctx.sabotaged else _FAR_S):
            waiting = ctx.connect(ctx.lab.chain(ctx.database))
            start(waiting, "SELECT 1")
            if ctx.sabotaged:
                ctx.admin.value(f"SELECT pg_advisory_unlock({gate})")
                holders[0].close()  # in session mode only a disconnect releases the server connection
            began = time.monotonic()
            answer = finish(waiting)
            ctx.fact("seconds until the client got its answer", round(time.monotonic() - began, 1))
    finally:
        ctx.admin.value(f"SELECT pg_advisory_unlock({gate})")
        for holder in holders:
            if not holder.closed:
                finish(holder)
    return _timeout(ctx, answer, "query wait timeout")


@probe(
    "too-many-clients",
    "more clients than max_client_conn",
    group=CONNECTIONS,
    claim="a client beyond max_client_conn is refused with an error that says so",
    needs=(CONSOLE,),
    serial_group="too-many-clients",
    disrupts=True,
)
def too_many_clients(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    with pooler_with(ctx, max_client_conn=1 if not ctx.sabotaged else 50):
        outcome = _login_outcome(ctx, "max_client_conn|no more connections")
    client.value("SELECT 1")
    return outcome


def _login_outcome(ctx: CheckContext, reason: str, endpoint: Endpoint | None = None) -> Outcome:
    """Log in and return the outcome; with raw protocol messages, because libpq drops the SQLSTATE of a failed login.

    :param reason: a pattern that the message of a refusal must match.
    :param endpoint: where to log in; the chain, as the application's role, by default.
    :raises NotExercisedError: when the login is refused for another reason.
    """
    try:
        with contextlib.closing(log_in_raw(endpoint or ctx.lab.chain(ctx.database), {})) as wire:
            wire.query("SELECT 1")
    except (ServerError, ClosedError) as error:
        ctx.fact("error that the client received", error.what)
        if not re.search(reason, error.what):
            raise NotExercisedError(
                f"unexpected refusal {error.what!r}, expected one that matches {reason!r}"
            ) from None
        return refused(error)
    return WORKS


@probe(
    "idle-transaction",
    "idle transaction: idle_transaction_timeout",
    group=CONNECTIONS,
    claim="a client whose transaction is idle longer than idle_transaction_timeout gets an error that says so",
    needs=(CONSOLE, TRANSACTION_BLOCKS),
    serial_group="timeouts",
    disrupts=True,
)
def idle_transaction(ctx: CheckContext) -> Outcome:
    return _in_a_transaction(ctx, "idle_transaction_timeout")


def _in_a_transaction(ctx: CheckContext, setting: str) -> Outcome:
    client = ctx.plain_client()
    with pooler_with(ctx, **{setting: 1 if not ctx.sabotaged else _FAR_S}):
        begun = simple(client, "BEGIN; SELECT 1")
        if begun.is_error:
            raise NotExercisedError(f"could not begin a transaction: {begun.message}")
        return _timeout(ctx, _message_while_idle(client), setting.replace("_", " "))


@probe(
    "transaction-timeout",
    "long transaction: transaction_timeout",
    group=CONNECTIONS,
    claim="a client whose transaction lasts longer than transaction_timeout gets an error that says so",
    needs=(CONSOLE, TRANSACTION_BLOCKS),
    serial_group="transaction-timeout",
    disrupts=True,
)
def transaction_timeout(ctx: CheckContext) -> Outcome:
    return _in_a_transaction(ctx, "transaction_timeout")


@probe(
    "query-timeout",
    "long statement: query_timeout",
    group=CONNECTIONS,
    claim="a client whose statement runs longer than query_timeout gets an error that says so",
    needs=(CONSOLE,),
    serial_group="query-timeout",
    disrupts=True,
)
def query_timeout(ctx: CheckContext) -> Outcome:
    client, gate = ctx.plain_client(), 6001
    ctx.admin.value(f"SELECT pg_advisory_lock({gate})")
    _wait_at(ctx, client, gate)
    with pooler_with(ctx, query_timeout=1 if not ctx.sabotaged else _FAR_S):
        try:
            answer = finish(client, _SILENCE_S)
        except TimedOutError:
            return LOST
        finally:
            ctx.admin.value("SELECT pg_advisory_unlock_all()")
    return _timeout(ctx, answer, "query timeout")


@probe(
    "client-idle",
    "idle client: client_idle_timeout",
    group=CONNECTIONS,
    claim="a client that is idle longer than client_idle_timeout gets an error that says so",
    needs=(CONSOLE,),
    serial_group="timeouts",
    disrupts=True,
)
def client_idle(ctx: CheckContext) -> Outcome:
    defect = (entry := ctx.documented("client-idle")) is not None and entry.defect
    client = ctx.plain_client()
    if not (ctx.sabotaged and defect):  # despite the defect, a client that has run no statement is closed
        client.value("SELECT 1")
    with pooler_with(ctx, client_idle_timeout=_FAR_S if ctx.sabotaged and not defect else 1):
        return _timeout(ctx, _message_while_idle(client), "client idle timeout")


@probe(
    "server-idle-transaction",
    "idle transaction: the server's idle_in_transaction_session_timeout",
    group=CONNECTIONS,
    claim="a client whose transaction is idle longer than the server allows gets the error 25P03",
    needs=(TRANSACTION_BLOCKS,),
    serial_group="timeouts",
    disrupts=True,
)
def server_idle_transaction(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    timeout = "100ms" if not ctx.sabotaged else "60s"
    simple(client, f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{timeout}'")
    return _timeout(ctx, _message_while_idle(client))


@probe(
    "changed-password",
    "password changed on the server but not in the pooler",
    group=CONNECTIONS,
    claim="a new client gets an error when the password on the server differs from the one in the pooler",
    needs=(CONSOLE,),
    serial_group="changed-password",
    disrupts=True,
)
def changed_password(ctx: CheckContext) -> Outcome:
    owner = ctx.lab.roles.owner
    endpoint = ctx.lab.through(owner, ctx.database)
    if not ctx.sabotaged:
        ctx.admin.run("ALTER ROLE harness_owner PASSWORD 'changed'")
    try:
        return _login_outcome(ctx, "password|authentication|login", endpoint)
    finally:
        ctx.admin.run(f"ALTER ROLE harness_owner PASSWORD '{owner.verifier}'")


@probe(
    "startup-options-empty",
    "startup parameter options: -c= without a name",
    group=CONNECTIONS,
    claim="a login whose options have an empty name is answered, and the pooler continues to serve other clients",
    serial_group="startup-options-empty",
    disrupts=True,
)
def startup_options_empty(ctx: CheckContext) -> Outcome:
    """Send what makes PgBouncer 1.20 to 1.26.0 loop forever with some settings (CVE-2026-107349)."""
    chain, works = ctx.lab.chain(ctx.database), works_here(ctx, "startup-options-empty")
    client = ctx.plain_client()
    client.value("SELECT 1")
    options = "-c=" if works or not ctx.sabotaged else "-c TimeZone=UTC"
    try:
        with contextlib.closing(log_in_raw(chain, {"options": options}, deadline_s=_STUCK_S)) as wire:
            wire.query("SELECT 1")
        ctx.fact("answer to the login", "accepted")
    except (ServerError, ClosedError) as error:
        ctx.fact("answer to the login", error.what)
    except TimedOutError:
        return _stuck(ctx, chain, _STUCK_TOO_S if works else _STUCK_TOO_AS_DOCUMENTED_S)
    if ctx.sabotaged and works:
        cut(client)
    answer = simple(client, "SELECT 1")
    if answer.is_error:
        return fails(answer)
    ctx.plain_client().value("SELECT 1")
    return WORKS


def _stuck(ctx: CheckContext, chain: Endpoint, deadline_s: float) -> Outcome:
    """Return *hangs* if the pooler answers no other login either, and start it again.

    :param deadline_s: of the other login.
    :raises NotExercisedError: when another login is answered, so that the first may only have been slow.
    """
    try:
        with contextlib.closing(log_in_raw(chain, {}, deadline_s=deadline_s)):
            pass
    except TimedOutError as error:
        ctx.fact("another login", error.what)
        ctx.lab.outermost.kill()
        ctx.lab.outermost.restart()
        return Outcome(behaviour=Behaviour.HANGS)
    raise NotExercisedError("the login got no answer, but another login did")
