"""Forced shares and moves: two clients on one server connection, or one client on two.

A single client stays on one server connection in every pool mode, so a probe that forces nothing proves nothing. Each
function records the pids of both server connections, and raises NotExercisedError when it could not force them. State
that a probe sets before a share or a move must be on the client's one server connection: `settle` the client first.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from harness.checks.occupation import MOVING, busy, pid_of, require_settled, settle, until, working
from harness.checks.record import NotExercisedError
from harness.database import SqlError
from harness.errors import TimedOutError
from harness.lab.effective import effective_limits
from harness.model import PoolMode
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.context import CheckContext
    from harness.database import Client

A = TypeVar("A")
B = TypeVar("B")

_ENDED_S = 5.0
#: a pooler with many processes needs about as many clients as processes, one after another on a busy machine
_RELEASED_S = 25.0
#: a pooler that ends a server connection with its client does it at once
_ENDS_S = 1.0
_TRIALS = 3
#: clients that connect until one is served by the same process of a pooler with several
_PROCESSES = 12


def relay(ctx: CheckContext, first: Callable[[Client], A], second: Callable[[Client], B]) -> tuple[A, B]:
    """Run `first` for one client, then `second` for another on the same server connection; return both results.

    Behind a pooler, the other is a second client that gets the same server connection. Without one, and behind a
    pooler that ends a server connection with its client, it is a second request that gets the same connection from the
    application's own pool.

    :raises NotExercisedError: when the second client did not get the server connection of the first.
    """
    alone = ctx.mode is None or (ctx.mode is PoolMode.SESSION and ends_with_client(ctx))
    client = ctx.client()
    settle(ctx, client)
    one = first(client)
    before = client.server_pid()
    if alone:
        other = client
        ctx.probed("the application's own pool reuses one connection", before, before)
    else:
        other = follower(ctx, client, ctx.client)
    two = second(other)
    if (after := other.server_pid()) != before:
        raise NotExercisedError(f"could not keep two clients on one server connection: pids {before}, {after}")
    return one, two


@contextlib.contextmanager
def moved(ctx: CheckContext, client: Client, others: Callable[[], Client] | None = None) -> Iterator[None]:
    """Keep the client's last server connection busy, so that the client gets another one within the block.

    :param others: connects the clients that keep it busy; by default clients of the application.
    :raises NotExercisedError: when the client kept its server connection.
    """
    before = pid_of(client)
    require_settled(ctx, before)
    with busy(ctx, client, before, others):
        after = pid_of(client)
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
    with working(ctx, others):
        ctx.probed("other clients work, then the client continues", before, client.server_pid())
        yield


@contextlib.contextmanager
def elsewhere(ctx: CheckContext, client: Client, before: int) -> Iterator[None]:
    """Let other clients work within the block, while this client sends nothing.

    :param before: the pid of the server connection that the client used last.
    :raises NotExercisedError: when the mode moves clients, and this one is still on `before` afterwards.
    """
    moves = ctx.mode in MOVING
    if moves:
        require_settled(ctx, before)
    with busy(ctx, client, before) if moves else working(ctx):
        yield
        after = pid_of(client)
    if moves and before == after:
        raise NotExercisedError(f"the client kept the server connection {before}")
    ctx.probed("other clients work, then the client continues", before, after)


def follower(ctx: CheckContext, client: Client, connect: Callable[[], Client] | None = None) -> Client:
    """Return another client that the pooler serves on the server connection of the first.

    In session mode the first client disconnects, and the next one gets its server connection. Without a pooler both
    clients are connected, each on its own server connection.

    :param connect: connects the other client; by default a client of the application.
    :raises NotExercisedError: when no other client got that server connection.
    """
    if ctx.mode is PoolMode.SESSION:
        return successor(ctx, client, connect)
    return neighbour(ctx, client, connect=connect)


def successor(ctx: CheckContext, client: Client, connect: Callable[[], Client] | None = None) -> Client:
    """Disconnect a client, and return the next one that the pooler serves on its server connection.

    Without a pooler, and behind a pooler that ends a server connection with its client, the next client gets another.

    :param connect: connects the next client; by default a client of the application.
    :raises NotExercisedError: when no other client got that server connection.
    """
    connect = connect or ctx.plain_client
    before = client.server_pid()
    how = "the first client disconnects, the second gets its server connection"
    if ctx.mode in MOVING:
        require_settled(ctx, before)
        client.close()
        other = connect()
        if (after := other.server_pid()) != before:
            raise NotExercisedError(f"the next client got the server connection {after}, not the released {before}")
    elif ctx.mode is None or ends_with_client(ctx):
        client.close()
        # a busy server needs a moment to end it and to release its locks
        until(ctx, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {before}", 0, _ENDED_S)
        other = connect()
        how = "the first client disconnects, and its server connection ends"
    else:
        with ctx.lab.hunting:
            client.close()
            other = _client_on(ctx, before, connect)
    ctx.probed(how, before, other.server_pid())
    return other


def _client_on(ctx: CheckContext, pid: int, connect: Callable[[], Client]) -> Client:
    """Connect until a client gets this server connection; the other clients keep theirs meanwhile.

    Checks have databases of their own, and a pooler's process may drop a server connection to serve another database.
    Therefore the caller stops the other checks from connecting.
    """
    spare: list[Client] = []

    def served() -> Client:
        if not ctx.admin.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid]):
            raise NotExercisedError(f"the server connection {pid} ended before another client got it")
        try:
            client = connect()
        except SqlError as error:  # all processes are occupied: begin again
            _close(spare)
            raise NotYet(str(error)) from None
        if pid_of(client) == pid:
            return client
        spare.append(client)
        raise NotYet(f"{len(spare)} others")

    try:
        return poll(served, what=f"a client on the released server connection {pid}", deadline_s=_RELEASED_S)
    except TimedOutError as error:
        raise NotExercisedError(str(error)) from None
    finally:
        _close(spare)


def _close(clients: list[Client]) -> None:
    for client in clients:
        client.close()
    clients.clear()


def ends_with_client(ctx: CheckContext) -> bool:
    """Return whether the pooler ends a server connection when its client disconnects, as three trials show.

    Then no other client ever gets the server connection. The answer is found once for a topology. A pool with a single
    server connection has no room for a trial next to a client; there, the next client either gets it or does not.
    """
    limits = effective_limits(ctx.lab.evidence)
    if limits is not None and limits.largest == 1:
        return False
    with ctx.lab.hunting:
        if ctx.lab.ends_with_client is None:
            ctx.lab.ends_with_client = all(_ended(ctx) for _ in range(_TRIALS))
        return ctx.lab.ends_with_client


def _ended(ctx: CheckContext) -> bool:
    client = ctx.plain_client()
    pid = client.server_pid()
    client.close()
    with contextlib.closing(ctx.plain_client()) as other:
        if other.server_pid() == pid:
            return False
    try:
        until(ctx, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}", 0, _ENDS_S)
    except NotExercisedError:
        return False
    return True


def neighbour(
    ctx: CheckContext, client: Client, other: Client | None = None, *, connect: Callable[[], Client] | None = None
) -> Client:
    """Return another client while the first one is connected and idle; in modes that share, on its server connection.

    :param other: the other client; by default a new client of the application.
    :param connect: connects the other client, again if another process of the pooler serves it.
    :raises NotExercisedError: when the mode shares server connections, and the other client got another one.
    """
    connect = connect or ctx.plain_client
    mine = pid_of(client)
    shares = ctx.mode in MOVING
    if shares:
        require_settled(ctx, mine)
    tries = _PROCESSES if shares and other is None else 1
    for _ in range(tries):
        candidate = other or connect()
        theirs = pid_of(candidate)
        if theirs == mine or not shares:
            break
    else:
        raise NotExercisedError(f"could not make two clients share a server connection: pids {mine}, {theirs}")
    how = "two clients, one after the other, on one server connection" if shares else "two clients, both connected"
    ctx.probed(how, mine, theirs)
    return candidate
