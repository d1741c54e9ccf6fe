"""Forced shares and moves: two clients on one server connection, or one client on two.

A single client stays on one server connection in every pool mode, so a probe that forces nothing proves nothing. Each
function records the pids of both server connections, and raises NotExercisedError when it could not force them.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, TypeVar

from harness.checks.record import NotExercisedError
from harness.errors import TimedOutError
from harness.libpq import finish, start
from harness.model import PoolMode
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.context import CheckContext
    from harness.database import Client

A = TypeVar("A")
B = TypeVar("B")

#: the pool modes in which a client changes server connections, and shares them
MOVING = frozenset({PoolMode.TRANSACTION, PoolMode.STATEMENT})

_SPARE_CLIENTS = 12
_OTHER_CLIENTS = 2
_DEADLINE_S = 5.0


def relay(ctx: CheckContext, first: Callable[[Client], A], second: Callable[[Client], B]) -> tuple[A, B]:
    """Run `first` for one client, then `second` for another on the same server connection; return both results.

    Behind a pooler, the other is a second client that gets the same server connection. Without one, it is a second
    request that gets the same connection from the application's own pool.

    :raises NotExercisedError: when the second client did not get the server connection of the first.
    """
    client = ctx.client()
    one = first(client)
    before = client.server_pid()
    if ctx.mode is None:
        other = client
        ctx.probed("the application's own pool reuses one connection", before, before)
    else:
        other = follower(ctx, client, ctx.client)
    two = second(other)
    if (after := other.server_pid()) != before:
        raise NotExercisedError(f"could not keep two clients on one server connection: pids {before}, {after}")
    return one, two


def _client_on(ctx: CheckContext, pid: int, connect: Callable[[], Client] | None = None) -> Client:
    """Connect until a client gets this server connection; the other clients keep theirs meanwhile."""
    spare: list[Client] = []
    try:
        for _ in range(_SPARE_CLIENTS):
            client = (connect or ctx.client)()
            if client.server_pid() == pid:
                return client
            spare.append(client)
            if len(spare) >= (ctx.topology.pooler.default_pool_size if ctx.topology.pooler else 1):
                break
    finally:
        for client in spare:
            client.close()
    raise NotExercisedError(f"no new client got the released server connection {pid}")


@contextlib.contextmanager
def moved(ctx: CheckContext, client: Client, others: Callable[[], Client] | None = None) -> Iterator[None]:
    """Keep the client's last server connection busy, so that the client gets another one within the block.

    :param others: connects the clients that keep it busy; by default clients of the application.
    :raises NotExercisedError: when the client kept its server connection.
    """
    before = client.server_pid()
    with _busy(ctx, before, others):
        after = client.server_pid()
        if after == before:
            raise NotExercisedError(f"the client kept the server connection {before}")
        ctx.probed("another client occupies the server connection, so the first gets another", before, after)
        yield


@contextlib.contextmanager
def pressed(ctx: CheckContext, client: Client, others: Callable[[], Client] | None = None) -> Iterator[None]:
    """Let other clients work within the block. In modes that move clients, this client gets another server connection.

    :param others: connects the other clients, of the same pool; by default clients of the application.
    :raises NotExercisedError: when the mode moves clients, and this one kept its server connection.
    """
    if ctx.mode in MOVING:
        with moved(ctx, client, others):
            yield
        return
    before = client.server_pid()
    with _working(ctx, others):
        ctx.probed("other clients work, then the client continues", before, client.server_pid())
        yield


@contextlib.contextmanager
def elsewhere(ctx: CheckContext, client: Client, before: int) -> Iterator[None]:
    """Let other clients work within the block, while this client sends nothing.

    :param before: the pid of the server connection that the client used last.
    :raises NotExercisedError: when the mode moves clients, and this one is still on `before` afterwards.
    """
    moves = ctx.mode in MOVING
    with _busy(ctx, before) if moves else _working(ctx):
        yield
        after = client.server_pid()
    if moves and before == after:
        raise NotExercisedError(f"the client kept the server connection {before}")
    ctx.probed("other clients work, then the client continues", before, after)


@contextlib.contextmanager
def _working(ctx: CheckContext, others: Callable[[], Client] | None = None) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(_OTHER_CLIENTS):
            holder = (others or ctx.plain_client)()
            stack.callback(holder.close)
            stack.enter_context(holder.transaction())
            holder.server_pid()
        yield


def follower(ctx: CheckContext, client: Client, connect: Callable[[], Client] | None = None) -> Client:
    """Return another client that the pooler serves on the server connection of the first.

    In session mode the first client disconnects, and the next one gets its server connection. Without a pooler both
    clients are connected, each on its own server connection.

    :param connect: connects the other client; by default a client of the application.
    :raises NotExercisedError: when no other client got that server connection.
    """
    if ctx.mode is PoolMode.SESSION:
        return successor(ctx, client, connect)
    return neighbour(ctx, client, (connect or ctx.plain_client)())


def successor(ctx: CheckContext, client: Client, connect: Callable[[], Client] | None = None) -> Client:
    """Disconnect a client, and return the next one that the pooler serves on its server connection.

    :param connect: connects the next client; by default a client of the application.
    :raises NotExercisedError: when no other client got that server connection.
    """
    connect = connect or ctx.plain_client
    before = client.server_pid()
    client.close()
    if ctx.mode is None:  # without a pooler the server connection ends with its client
        # a busy server needs a moment to end it and to release its locks
        until(ctx, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {before}", 0, _DEADLINE_S)
        other = connect()
        how = "the first client disconnects, and its server connection ends"
    elif ctx.mode is PoolMode.SESSION:
        other = _client_on(ctx, before, connect)
        how = "the first client disconnects, the second gets its server connection"
    else:
        other = connect()
        how = "the first client disconnects, the second gets its server connection"
        if (after := other.server_pid()) != before:
            raise NotExercisedError(f"the next client got the server connection {after}, not the released {before}")
    ctx.probed(how, before, other.server_pid())
    return other


def neighbour(ctx: CheckContext, client: Client, other: Client | None = None) -> Client:
    """Return another client while the first one is connected and idle; in modes that share, on its server connection.

    :param other: the other client; by default a new client of the application.
    :raises NotExercisedError: when the mode shares server connections, and the other client got another one.
    """
    mine = client.server_pid()
    other = other or ctx.plain_client()
    theirs = other.server_pid()
    shares = ctx.mode in MOVING
    if shares and theirs != mine:
        raise NotExercisedError(f"could not make two clients share a server connection: pids {mine}, {theirs}")
    how = "two clients, one after the other, on one server connection" if shares else "two clients, both connected"
    ctx.probed(how, mine, theirs)
    return other


@contextlib.contextmanager
def _busy(ctx: CheckContext, pid: int, others: Callable[[], Client] | None = None) -> Iterator[None]:
    """Occupy server connections until this one is among them; at least one stays free."""
    size = ctx.topology.pooler.default_pool_size if ctx.topology.pooler else 1
    with contextlib.ExitStack() as stack:
        for _ in range(size - 1):
            holder = (others or ctx.plain_client)()
            stack.callback(holder.close)
            if _occupy(ctx, holder, stack) == pid:
                break
        else:
            raise NotExercisedError(f"could not occupy the server connection {pid}")
        yield


def _occupy(ctx: CheckContext, holder: Client, stack: contextlib.ExitStack) -> int:
    """Keep one server connection busy until the stack unwinds, and return its pid."""
    if ctx.mode is not PoolMode.STATEMENT:
        stack.enter_context(holder.transaction())
        return holder.server_pid()
    # statement mode has no transaction blocks: a statement waits for a lock that the direct connection holds
    key = secrets.randbits(62)
    ctx.admin.value("SELECT pg_advisory_lock(%s)", [key])
    stack.callback(finish, holder)
    stack.callback(ctx.admin.value, "SELECT pg_advisory_unlock(%s)", [key])
    start(holder, f"SELECT pg_advisory_xact_lock({key})")
    return waiting_pid(ctx, f"({key})")


def waiting_pid(ctx: CheckContext, text: str) -> int:
    """Return the pid of the server process whose statement contains a text and waits for a lock or for time to pass.

    :raises NotExercisedError: when no such statement waits within five seconds.
    """

    def waiting() -> int:
        found = ctx.admin.rows(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type IN ('Lock', 'Timeout')"
            " AND position(%s IN query) > 0 AND pid <> pg_backend_pid()",
            [text],
        )
        if not found:
            raise NotYet("no statement waits")
        return int(found[0][0])

    try:
        return poll(waiting, what="a statement that waits for its lock", deadline_s=_DEADLINE_S)
    except TimedOutError as error:
        raise NotExercisedError(f"could not make a statement wait: {error.what}") from None


def until(ctx: CheckContext, question: str, answer: object, deadline_s: float) -> None:
    """Poll a query on the direct connection until it returns a value.

    :param question: a query; the first column of its first row counts.
    :param answer: the value to wait for.
    :param deadline_s: seconds.
    :raises NotExercisedError: when the deadline passed.
    """

    def probe() -> None:
        if (seen := ctx.admin.value(question)) != answer:
            raise NotYet(str(seen))

    try:
        poll(probe, what=question, deadline_s=deadline_s)
    except TimedOutError as error:
        raise NotExercisedError(str(error)) from None


def waiters_at(gate: int) -> str:
    """Return a query for :func:`until`: the number of statements that wait for an advisory lock.

    :param gate: the key of the lock, of 32 bits.
    """
    return f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = {gate}"
