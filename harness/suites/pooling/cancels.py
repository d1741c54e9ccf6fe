"""Pooling: cancel requests. Each arrives on a connection of its own, so a pooler has to find the statement it is for."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from harness.checks.documented import WORKS
from harness.checks.occupation import MOVING, settle, settled, until, waiters_at, waiting_pid
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import follower
from harness.database import SqlError
from harness.errors import TimedOutError
from harness.libpq import finish, start
from harness.model import Behaviour, Outcome
from harness.suites.pooling.connections import log_in_raw
from harness.suites.pooling.probes import CONNECTIONS, LOST, WRONG, probe, works_here
from harness.wire.messages import ClosedError, ServerError
from harness.wire.sockets import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.database import Client

_ATTEMPTS = 12
#: the key of the advisory lock that the bystander waits for
_BYSTANDER = 4999
_DEADLINE_S = 5.0
#: longer than every wait of the check for one statement
_LONGEST_S = 60.0
#: how long to wait for a cancellation that is not expected
_SOON_S = 0.4
#: statements of a few milliseconds, so that some end before their cancel request arrives
_ROUNDS = 16
_CANCELLED = "57014"


class _Statement(Protocol):
    """A statement that runs, and what its client can do with it."""

    def start(self, statement: str) -> None: ...
    def cancel(self) -> None: ...
    def was_cancelled(self) -> bool: ...
    def close(self) -> None: ...


class _ByLibpq:
    """The client of libpq 17 and later: the cancel request uses TLS where the client's connection does."""

    def __init__(self, ctx: CheckContext) -> None:
        self._client = ctx.plain_client()

    def start(self, statement: str) -> None:
        start(self._client, statement)

    def cancel(self) -> None:
        self._client.cancel_safe(timeout=_DEADLINE_S)

    def was_cancelled(self) -> bool:
        return finish(self._client).sqlstate == _CANCELLED

    def close(self) -> None:
        self._client.close()


class _ByPacket:
    """A client that sends its cancel request as libpq's PQcancel does: unencrypted, and without another message."""

    def __init__(self, ctx: CheckContext) -> None:
        self._wire = log_in_raw(ctx.lab.chain(ctx.database), {})

    def start(self, statement: str) -> None:
        self._wire.deadline = Deadline(_LONGEST_S)
        self._wire.send_query(statement)

    def cancel(self) -> None:
        self._wire.cancel(Deadline(_DEADLINE_S))

    def was_cancelled(self) -> bool:
        try:
            self._wire.rows()
        except ServerError as error:
            return error.sqlstate == _CANCELLED
        except ClosedError:  # the statement ended with its connection
            return False
        return False

    def close(self) -> None:
        self._wire.close()


def _cancels(name: str, title: str, connect: Callable[[CheckContext], _Statement]) -> tuple[Check, Control]:
    @probe(
        name,
        title,
        group=CONNECTIONS,
        claim=f"{title}: it cancels the statement of the client that sent it, and no other",
    )
    def cancel(ctx: CheckContext) -> Outcome:
        """Cancel a statement, several times if processes share one address, since any of them may get the request."""
        pooler = ctx.topology.pooler
        attempts = _ATTEMPTS if pooler and pooler.instances > 1 else 1
        cancelled, request_failed = [], False
        bystander = ctx.plain_client()
        ctx.admin.value(f"SELECT pg_advisory_lock({_BYSTANDER})")
        start(bystander, f"SELECT pg_advisory_xact_lock({_BYSTANDER})")
        waiting_pid(ctx, f"({_BYSTANDER})")
        works = works_here(ctx, name)
        for number in range(attempts):
            gate = 5000 + number
            with contextlib.closing(connect(ctx)) as client:
                ctx.admin.value(f"SELECT pg_advisory_lock({gate})")
                client.start(f"SELECT pg_advisory_xact_lock({gate})")
                pid = waiting_pid(ctx, f"({gate})")
                if not ctx.sabotaged:
                    try:
                        client.cancel()
                    except (SqlError, ClosedError, TimedOutError) as error:
                        ctx.fact("error of the cancel request", str(error))
                        request_failed = True
                elif not works:
                    ctx.admin.value("SELECT pg_cancel_backend(%s)", [pid])
                ended = _ends_before(ctx, gate, _DEADLINE_S if works and not ctx.sabotaged else _SOON_S)
                ctx.admin.value(f"SELECT pg_advisory_unlock({gate})")
                cancelled.append(client.was_cancelled() and ended)
        ctx.fact("statements cancelled, and attempts", [sum(cancelled), len(cancelled)])
        ctx.admin.value(f"SELECT pg_advisory_unlock({_BYSTANDER})")
        if finish(bystander).is_error:
            return WRONG
        if all(cancelled):
            return WORKS
        return Outcome(behaviour=Behaviour.FAILS) if request_failed else LOST

    return cancel


CANCELS = (
    *_cancels("cancel", "cancel request", _ByLibpq),
    *_cancels("cancel-old", "cancel request of libpq before version 17", _ByPacket),
)


def _ends_before(ctx: CheckContext, gate: int, deadline_s: float) -> bool:
    """Return whether the statement that waits for an advisory lock ends before the deadline, without the lock."""
    try:
        until(ctx, waiters_at(gate), 0, deadline_s)
    except NotExercisedError:
        return False
    return True


@probe(
    "cancel-late",
    "cancel request that arrives after its statement ended",
    group=CONNECTIONS,
    claim="a cancel request that arrives after its statement ended cancels no statement of another client",
)
def cancel_late(ctx: CheckContext) -> Outcome:
    """Cancel statements that end by themselves, while another client uses the same server connection next."""
    client = settled(ctx)
    hit = 0
    if ctx.mode in MOVING:
        hit = _race(ctx, client)
        # while a cancel request is on its way, PgBouncer uses no connection that it is for, and may open another
        settle(ctx, client)
    other, gate = follower(ctx, client), 5100
    ctx.admin.value(f"SELECT pg_advisory_lock({gate})")
    start(other, f"SELECT pg_advisory_xact_lock({gate})")
    pid = waiting_pid(ctx, f"({gate})")
    if not ctx.sabotaged:
        try:
            client.cancel_safe(timeout=_DEADLINE_S)
        except SqlError as error:
            ctx.fact("error of the cancel request", str(error))
    elif works_here(ctx, "cancel-late"):  # as a pooler that forwards the request when another client has the connection
        ctx.admin.value("SELECT pg_cancel_backend(%s)", [pid])
    _ends_before(ctx, gate, _SOON_S)
    ctx.admin.value(f"SELECT pg_advisory_unlock({gate})")
    hit += finish(other).sqlstate == _CANCELLED
    ctx.fact("statements of the other client that were cancelled", hit)
    return WRONG if hit else WORKS


def _race(ctx: CheckContext, client: Client) -> int:
    """Cancel short statements, each of which another client's follows, and return how many of the other's were cancelled."""
    other = ctx.plain_client()
    late = hit = 0
    with ThreadPoolExecutor(1) as sender:
        for number in range(_ROUNDS):
            start(client, f"SELECT pg_sleep({number % 4 / 1000})")
            sent = sender.submit(_send, client)
            late += finish(client).sqlstate != _CANCELLED
            start(other, "SELECT pg_sleep(0.004)")
            hit += finish(other).sqlstate == _CANCELLED
            sent.result()
    ctx.fact("short statements that ended before their cancel request arrived", f"{late} of {_ROUNDS}")
    return hit


def _send(client: Client) -> None:
    try:
        client.cancel_safe(timeout=_DEADLINE_S)
    except SqlError:  # the request may be refused when it is late
        return
