"""Forcing two clients onto one server connection, and one client onto another.

A lone client sees one backend in every pool mode, so a probe that forces nothing proves nothing. Each
function records both pids, and raises NotExercisedError when it could not force what it wanted.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from harness.checks.bench import Bench, NotExercisedError
from harness.model import PoolMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.database import Client

A = TypeVar("A")
B = TypeVar("B")

_SPARE_CLIENTS = 12


def relay(bench: Bench, first: Callable[[Client], A], second: Callable[[Client], B]) -> tuple[A, B]:
    """Run `first`, then `second` for somebody else on the same server connection.

    Who the somebody else is depends on the topology: another client that the pooler gives the same
    server connection; or, where no pooler is, another request that the application's own pool gives the
    same connection.

    :raises NotExercisedError: when the second did not get the first one's server connection.
    """
    mode = bench.topology.pool_mode
    client = bench.client()
    one = first(client)
    before = client.server_pid()
    if mode is None:
        other, how = client, "the application's own pool hands one connection on"
    elif mode is PoolMode.SESSION:
        client.close()
        other, how = _client_on(bench, before), "the first client disconnects, the second gets its server connection"
    else:
        other, how = bench.client(), "two clients, one after the other, on one server connection"
    got = other.server_pid()
    two = second(other)
    after = other.server_pid()
    if not before == got == after:
        raise NotExercisedError(f"could not make two clients share a server connection: pids {before}, {got}, {after}")
    bench.probed(how, before, after)
    return one, two


def _client_on(bench: Bench, pid: int) -> Client:
    """Connect until a client gets this server connection; the others hold theirs meanwhile."""
    spare: list[Client] = []
    try:
        for _ in range(_SPARE_CLIENTS):
            client = bench.client()
            if client.server_pid() == pid:
                return client
            spare.append(client)
            if len(spare) >= (bench.topology.pooler.default_pool_size if bench.topology.pooler else 1):
                break
    finally:
        for client in spare:
            client.close()
    raise NotExercisedError(f"could not get the released server connection {pid} again")


@contextlib.contextmanager
def moved(bench: Bench, client: Client) -> Iterator[None]:
    """Keep the client's last server connection busy, so that within the block it gets another.

    :raises NotExercisedError: when it kept the one it had.
    """
    before = client.server_pid()
    size = bench.topology.pooler.default_pool_size if bench.topology.pooler else 1
    with contextlib.ExitStack() as stack:
        for _ in range(size - 1):
            holder = bench.client()
            stack.callback(holder.close)
            stack.enter_context(holder.transaction())
            if holder.server_pid() == before:
                break
        else:
            raise NotExercisedError(f"could not occupy the server connection {before}")
        after = client.server_pid()
        if after == before:
            raise NotExercisedError(f"the client kept the server connection {before}")
        bench.probed("another client occupies the server connection, so the first gets another", before, after)
        yield
