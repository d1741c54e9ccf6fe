"""Server connections that other clients keep busy, so that the pooler has no choice which one it hands out.

The order in which a pooler hands out free server connections is its own: last in first out, round robin, or whichever
process accepts first. With one free server connection every order gives the same.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from harness.checks.record import NotExercisedError
from harness.errors import TimedOutError
from harness.lab.effective import effective_limits, least_connections, most_clients
from harness.libpq import finish, start
from harness.model import PoolMode
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.checks.context import CheckContext
    from harness.database import Client

#: the pool modes in which a client changes server connections, and shares them
MOVING = frozenset({PoolMode.TRANSACTION, PoolMode.STATEMENT})

_OTHER_CLIENTS = 2
DEADLINE_S = 5.0


def settle(ctx: CheckContext, client: Client, connect: Callable[[], Client] | None = None) -> None:
    """Keep all server connections of a client's pool busy but one, where the mode moves clients.

    From now on the client and all others of its pool share the free one, in whichever order the pooler hands them out.
    It lasts until the client is forced to move, until the next call, or until the check ends.

    :param connect: connects the clients that keep the others busy; by default clients of the application.
    :raises NotExercisedError: when several stay free.
    """
    if ctx.mode not in MOVING:
        return
    _release(ctx)
    pid_of(client)  # the pool has at least one
    held = _Held(ctx, client, connect)
    ctx.occupied.callback(held.release)
    least = least_connections(ctx.lab.evidence)
    held.occupy_until(
        lambda: len(free := held.free()) <= 1 and len(free) + len(held.by_pid) >= least,
        "a single free server connection",
    )
    if not held.free() and len(held.by_pid) >= least > 1:  # the pool may be full
        held.release_one(other_than=0)
    ctx.settled_on = pid_of(client)


def settled(ctx: CheckContext, connect: Callable[[], Client] | None = None) -> Client:
    """Connect a client, and :func:`settle` it.

    :param connect: connects the client and the others; by default clients of the application.
    """
    client = (connect or ctx.plain_client)()
    settle(ctx, client, connect)
    return client


def require_clients(ctx: CheckContext, count: int) -> None:
    """Require that the pooler admits a number of clients at the same time.

    :raises NotExercisedError: when its limit is lower.
    """
    most = most_clients(ctx.lab.evidence)
    if most is not None and most < count:
        raise NotExercisedError(f"the pooler admits {most} clients, and this takes {count}")


def require_two_connections(ctx: CheckContext) -> None:
    """Require that two clients can work at the same time.

    :raises NotExercisedError: when the limits of the pool, the database or the role allow one server connection.
    """
    limits = effective_limits(ctx.lab.evidence)
    if limits is not None and limits.largest < 2:  # noqa: PLR2004 -- the name says it
        raise NotExercisedError("the pool has a single server connection, so no other client works at the same time")


def most_others(ctx: CheckContext, count: int) -> int:
    """Return how many other clients can work while one does: `count`, or as many as the pool has room for."""
    limits = effective_limits(ctx.lab.evidence)
    return min(count, limits.largest - 1) if limits else count


def require_settled(ctx: CheckContext, pid: int) -> None:
    """Require the server connection that the client was settled on.

    :raises NotExercisedError: when the pool has grown, so that the client's state may be on another one.
    """
    if ctx.settled_on not in {None, pid}:
        raise NotExercisedError(f"the client's statements ran on the server connection {ctx.settled_on}, then on {pid}")


@contextlib.contextmanager
def busy(ctx: CheckContext, client: Client, pid: int, connect: Callable[[], Client] | None = None) -> Iterator[None]:
    """Keep a server connection busy within the block, and leave one other for the clients of the pool.

    :param pid: the server process of the connection.
    :param connect: connects the clients that keep it busy; by default clients of the application.
    :raises NotExercisedError: when it could not be occupied.
    """
    require_two_connections(ctx)
    _release(ctx)
    held = _Held(ctx, client, connect)
    with contextlib.closing(held):
        held.occupy_until(lambda: pid in held.by_pid and len(held.free()) <= 1, f"the server connection {pid} is busy")
        if not held.free():  # the pool may be full
            held.release_one(other_than=pid)
        yield


@contextlib.contextmanager
def working(ctx: CheckContext, connect: Callable[[], Client] | None = None) -> Iterator[None]:
    """Let two other clients work within the block, or one if the pool has two server connections.

    In session mode each keeps its server connection, and so does the client of the probe.

    :param connect: connects them; by default clients of the application.
    :raises NotExercisedError: when none of them gets a server connection.
    """
    require_two_connections(ctx)
    count = most_others(ctx, _OTHER_CLIENTS)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            holder = (connect or ctx.plain_client)()
            stack.callback(holder.close)
            pid_of(holder)
            stack.enter_context(holder.transaction())
        yield


def pid_of(client: Client) -> int:
    """Return the pid of the server process that serves a client now.

    :raises NotExercisedError: when no server connection became free for the client, within five seconds or the time
        that the pooler lets it wait.
    :raises SqlError: when the client has lost its connection.
    """
    start(client, "SELECT pg_backend_pid()")
    try:
        answer = finish(client, DEADLINE_S)
    except TimedOutError:
        raise NotExercisedError("no server connection became free for a client") from None
    require_served(answer.message)
    return client.server_pid() if answer.is_error else int(answer.value or 0)


def waited_too_long(message: str) -> bool:
    """Return whether PgBouncer closed a client because it waited too long for a server connection of a full pool."""
    return "query wait timeout" in message.replace("_", " ")


def require_served(message: str) -> None:
    """Require that an error is about something else than a full pool, which the check's own clients have filled.

    :raises NotExercisedError: when the client got no server connection.
    """
    if waited_too_long(message):
        raise NotExercisedError("a client waited for a server connection longer than query_wait_timeout")


def _release(ctx: CheckContext) -> None:
    ctx.occupied.close()
    ctx.settled_on = None


class _Held:
    """The server connections of a client's pool that other clients keep busy."""

    def __init__(self, ctx: CheckContext, client: Client, connect: Callable[[], Client] | None) -> None:
        self._ctx = ctx
        self._role = client.info.user
        self._connect = connect or ctx.plain_client
        #: what frees a server connection, by its pid
        self.by_pid: dict[int, contextlib.ExitStack] = {}

    def free(self) -> set[int]:
        return self._ctx.server_connections(self._role) - self.by_pid.keys()

    def occupy_until(self, done: Callable[[], bool], what: str) -> None:
        def enough() -> None:
            if not done():
                self._occupy_one()
                raise NotYet(f"{len(self.by_pid)} busy, {len(self.free())} free")

        try:
            poll(enough, what=what, deadline_s=DEADLINE_S, interval_s=0.0)
        except TimedOutError as error:
            raise NotExercisedError(str(error)) from None

    def release_one(self, *, other_than: int) -> None:
        for pid in [pid for pid in self.by_pid if pid != other_than][:1]:
            self.by_pid.pop(pid).close()

    def release(self) -> None:
        for stack in self.by_pid.values():
            stack.close()
        self.by_pid.clear()

    close = release

    def _occupy_one(self) -> None:
        holder = self._connect()
        stack = contextlib.ExitStack()
        stack.callback(holder.close)
        try:
            pid = self._occupy(holder, stack)
        except BaseException:
            stack.close()
            raise
        self.by_pid[pid] = stack

    def _occupy(self, holder: Client, stack: contextlib.ExitStack) -> int:
        """Keep one server connection busy until the stack unwinds, and return its pid."""
        ctx = self._ctx
        if ctx.mode is not PoolMode.STATEMENT:
            stack.enter_context(holder.transaction())
            return pid_of(holder)
        # statement mode has no transaction blocks: a statement waits for a lock that the direct connection holds
        key = secrets.randbits(62)
        ctx.admin.value("SELECT pg_advisory_lock(%s)", [key])
        stack.callback(finish, holder)
        stack.callback(ctx.admin.value, "SELECT pg_advisory_unlock(%s)", [key])
        start(holder, f"SELECT pg_advisory_xact_lock({key})")
        return waiting_pid(ctx, f"({key})")


def waiting_pid(ctx: CheckContext, text: str) -> int:
    """Return the pid of the server process of this database whose statement contains a text and waits.

    :raises NotExercisedError: when no such statement waits within five seconds.
    """

    def waiting() -> int:
        found = ctx.admin.rows(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type IN ('Lock', 'Timeout')"
            " AND datname = current_database() AND position(%s IN query) > 0 AND pid <> pg_backend_pid()",
            [text],
        )
        if not found:
            raise NotYet("no statement waits")
        return int(found[0][0])

    try:
        return poll(waiting, what="a statement that waits for its lock", deadline_s=DEADLINE_S)
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
    """Return a query for :func:`until`: the number of statements in this database that wait for an advisory lock.

    :param gate: the key of the lock, of 32 bits.
    """
    return (
        f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = {gate}"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
