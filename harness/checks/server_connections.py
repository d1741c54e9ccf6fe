"""Forcing two clients onto one server connection, and one client onto another.

A lone client sees one backend in every pool mode, so a probe that forces nothing proves nothing. Each
function records both pids, and raises NotExercisedError when it could not force what it wanted.
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
_OTHERS = 2
_WAITING_S = 5.0


def relay(ctx: CheckContext, first: Callable[[Client], A], second: Callable[[Client], B]) -> tuple[A, B]:
    """Run `first`, then `second` for somebody else on the same server connection.

    Who the somebody else is depends on the topology: another client that the pooler gives the same
    server connection; or, where no pooler is, another request that the application's own pool gives the
    same connection.

    :raises NotExercisedError: when the second did not get the first one's server connection.
    """
    client = ctx.client()
    one = first(client)
    before = client.server_pid()
    if ctx.mode is None:
        other = client
        ctx.probed("the application's own pool hands one connection on", before, before)
    else:
        other = follower(ctx, client, ctx.client)
    two = second(other)
    if (after := other.server_pid()) != before:
        raise NotExercisedError(f"could not keep two clients on one server connection: pids {before}, {after}")
    return one, two


def _client_on(ctx: CheckContext, pid: int, who: Callable[[], Client] | None = None) -> Client:
    """Connect until a client gets this server connection; the others hold theirs meanwhile."""
    spare: list[Client] = []
    try:
        for _ in range(_SPARE_CLIENTS):
            client = (who or ctx.client)()
            if client.server_pid() == pid:
                return client
            spare.append(client)
            if len(spare) >= (ctx.topology.pooler.default_pool_size if ctx.topology.pooler else 1):
                break
    finally:
        for client in spare:
            client.close()
    raise NotExercisedError(f"could not get the released server connection {pid} again")


@contextlib.contextmanager
def moved(ctx: CheckContext, client: Client, others: Callable[[], Client] | None = None) -> Iterator[None]:
    """Keep the client's last server connection busy, so that within the block it gets another.

    :raises NotExercisedError: when it kept the one it had.
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
    """Let others work meanwhile: the client gets another server connection, where the pool mode ever does that.

    :param others: who else works, in the same pool; clients of the application by default.
    :raises NotExercisedError: when the mode does that, and the client kept the one it had.
    """
    if ctx.mode in MOVING:
        with moved(ctx, client, others):
            yield
        return
    before = client.server_pid()
    with _working(ctx, others):
        ctx.probed("others work, and the client goes on", before, client.server_pid())
        yield


@contextlib.contextmanager
def elsewhere(ctx: CheckContext, client: Client, before: int) -> Iterator[None]:
    """Let others work meanwhile, and send nothing for the client: what it does last was on `before`.

    :raises NotExercisedError: when the mode moves clients, and it turns out that this one was not moved.
    """
    moves = ctx.mode in MOVING
    with _busy(ctx, before) if moves else _working(ctx):
        yield
        after = client.server_pid()
    if moves and before == after:
        raise NotExercisedError(f"the client kept the server connection {before}")
    ctx.probed("others work, and the client goes on", before, after)


@contextlib.contextmanager
def _working(ctx: CheckContext, others: Callable[[], Client] | None = None) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(_OTHERS):
            holder = (others or ctx.plain_client)()
            stack.callback(holder.close)
            stack.enter_context(holder.transaction())
            holder.server_pid()
        yield


def follower(ctx: CheckContext, client: Client, who: Callable[[], Client] | None = None) -> Client:
    """Return another client that the pooler serves with the first one's server connection.

    In session mode that is the next one after the first has disconnected; without a pooler there is none, and both
    are connected.

    :param who: connects another client; one of the application by default.
    :raises NotExercisedError: when no other client got that server connection.
    """
    if ctx.mode is PoolMode.SESSION:
        return successor(ctx, client, who)
    return neighbour(ctx, client, (who or ctx.plain_client)())


def successor(ctx: CheckContext, client: Client, who: Callable[[], Client] | None = None) -> Client:
    """Let a client disconnect, and return the next one that the pooler serves with its server connection.

    :raises NotExercisedError: when no other client got it.
    """
    who = who or ctx.plain_client
    before = client.server_pid()
    client.close()
    if ctx.mode is None:  # there is nothing to hand on: a server connection ends with its client
        # a busy server takes a moment to end it, and its locks with it
        until(ctx, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {before}", 0, _WAITING_S)
        other = who()
        how = "the first client disconnects, and so does its server connection"
    elif ctx.mode is PoolMode.SESSION:
        other = _client_on(ctx, before, who)
        how = "the first client disconnects, the second gets its server connection"
    else:
        other = who()
        how = "the first client disconnects, the second gets its server connection"
        if (after := other.server_pid()) != before:
            raise NotExercisedError(f"could not get the released server connection {before} again, but {after}")
    ctx.probed(how, before, other.server_pid())
    return other


def neighbour(ctx: CheckContext, client: Client, other: Client | None = None) -> Client:
    """Return another client while the first is connected and idle: on its server connection, if the mode shares them.

    :param other: who that is; a new client of the application by default.
    :raises NotExercisedError: when the mode shares server connections, and this other client got one of its own.
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
    """Occupy server connections until this one is among them; one at least stays free."""
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
    # a statement that waits for a lock which only the direct connection gives back: there are no transaction blocks
    key = secrets.randbits(62)
    ctx.admin.value("SELECT pg_advisory_lock(%s)", [key])
    stack.callback(finish, holder)
    stack.callback(ctx.admin.value, "SELECT pg_advisory_unlock(%s)", [key])
    start(holder, f"SELECT pg_advisory_xact_lock({key})")
    return waiting_pid(ctx, f"({key})")


def waiting_pid(ctx: CheckContext, text: str) -> int:
    """Return the pid of the backend whose statement holds this text, and waits for a lock or for time to pass.

    :raises NotExercisedError: when none does.
    """

    def waiting() -> int:
        found = ctx.admin.rows(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type IN ('Lock', 'Timeout')"
            " AND position(%s IN query) > 0 AND pid <> pg_backend_pid()",
            [text],
        )
        if not found:
            raise NotYet("nobody waits")
        return int(found[0][0])

    try:
        return poll(waiting, what="a statement that waits for its lock", deadline_s=_WAITING_S)
    except TimedOutError as error:
        raise NotExercisedError(f"could not make a statement wait: {error.what}") from None


def until(ctx: CheckContext, question: str, answer: object, deadline_s: float) -> None:
    """Wait for an answer on the direct connection.

    :raises NotExercisedError: when it does not come.
    """

    def probe() -> None:
        if (seen := ctx.admin.value(question)) != answer:
            raise NotYet(str(seen))

    try:
        poll(probe, what=question, deadline_s=deadline_s)
    except TimedOutError as error:
        raise NotExercisedError(str(error)) from None


def waiters_at(gate: int) -> str:
    """Return the question how many statements wait for an advisory lock."""
    return f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = {gate}"
