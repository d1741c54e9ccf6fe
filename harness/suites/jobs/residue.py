"""The case `leaves-nothing`: what a worker keeps while it is idle, and what it leaves on server connections."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges.jobs import CHANNELS, LOCKS, PINNED, STATEMENTS, TRANSACTIONS
from harness.checks.record import NotExercisedError
from harness.errors import TimedOutError
from harness.model import PoolMode
from harness.suites.jobs.programs import WORKERS
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.database import Client
    from harness.suites.jobs.running import JobRun

_WORKER = WORKERS[0]
#: an idle worker is looked at so often; some looks may fall between two transactions
_LOOKS, _MISSED, _BETWEEN_LOOKS_S = 8, 2, 0.4
#: it repeats its statements so often by then, or as often as it can within, seconds
_REPEATS, _LONGEST_IDLE_S = 6, 8.0
#: a transaction that has done nothing but stay open for this long, seconds, is not one that polls
_OPEN_S = 0.1
#: sessions of a worker that ended are awaited for, seconds
_SETTLES_S, _UNDER_CONTROL_S = 10.0, 2.0
#: how often clients look at all server connections of a pool, and for how long each statement holds one, seconds
_TRIES, _HOLDS_S = 8, 0.5
#: while the worker runs, so many looks that find nothing more are enough: it may have connections past the pooler
_FRUITLESS = 3

_SESSIONS = """
SELECT pid, state LIKE 'idle in transaction%%' AND clock_timestamp() - xact_start >= %s * interval '1 s'
FROM pg_stat_activity WHERE datname = %s AND usename = %s
"""
_ADVISORY_LOCKS = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND d.datname = current_database()
"""
#: one statement, so that it runs in every pool mode; PgBouncer names the statements that it prepares itself
_ON_SERVER_CONNECTION = f"""
SELECT pg_backend_pid(), (SELECT count(*) FROM pg_prepared_statements WHERE name NOT LIKE 'PGBOUNCER%%'),
    (SELECT coalesce(array_agg(name), '{{}}') FROM pg_listening_channels() AS name), pg_sleep({_HOLDS_S})
"""


class OnServerConnection(Struct, frozen=True):
    """What a client finds on a server connection that others used before."""

    pid: int
    statements: int
    channels: list[str]


def leaves_nothing(run: JobRun) -> None:
    """Look at an idle worker, end it, and look at what is left."""
    run.use_prepared_database()
    if not run.warm_up():
        raise NotExercisedError("the worker did no job, so it may have left nothing")
    # drivers prepare a statement that is repeated, also during the looks
    idles_s = min(_REPEATS * run.settings.poll_s, _LONGEST_IDLE_S)
    run.ctx.let_pass(max(0.0, idles_s - _LOOKS * _BETWEEN_LOOKS_S))
    looks = []
    for _ in range(_LOOKS):
        run.ctx.let_pass(_BETWEEN_LOOKS_S)
        looks.append(sum(_sessions(run, _OPEN_S).values()))
    run.ctx.fact("server connections of an idle worker", len(_sessions(run)))
    run.ctx.fact("of them idle in a transaction, in each look", ", ".join(map(str, looks)))
    if not run.worker(_WORKER).is_running:
        raise NotExercisedError("the worker did not run to the end of the looks")
    if run.ctx.sharing_mode:
        # such a transaction keeps its server connection from all other clients
        run.left[PINNED] = kept_open(looks)
        # some workers UNLISTEN when they end, on any server connection: at times on the one that has their channels
        _look_at_shared_connections(run, "while the worker is idle", fruitless=_FRUITLESS)
    run.worker(_WORKER).stop()
    run.left[LOCKS] = run.left[TRANSACTIONS] = 0

    def clean() -> None:
        run.ctx.require_undisturbed()
        run.left[LOCKS], run.left[TRANSACTIONS] = _kept_by_sessions(run)
        if run.left[LOCKS] or run.left[TRANSACTIONS]:
            raise NotYet("something is left")

    settles_s = _UNDER_CONTROL_S if run.ctx.control else _SETTLES_S
    with contextlib.suppress(TimedOutError):
        poll(clean, what="sessions of the worker to end", deadline_s=settles_s, interval_s=0.2)
    # in session mode, the worker's server connections are in the pool now, for the next clients
    if run.ctx.mode is not None and (missed := _look_at_shared_connections(run, "after its end")):
        raise NotExercisedError(f"{missed} server connections of the pool were given to no client")


def kept_open(looks: list[int]) -> int:
    """Return how many server connections stay in a transaction, from the number in each look.

    A worker that opens its next transaction at once keeps one, too, so some looks may see less.
    """
    return sorted(looks)[_MISSED]


def _sessions(run: JobRun, open_s: float = 0.0) -> dict[int, bool]:
    """Return the server processes of the engine's database, and whether each is idle in a transaction of that age."""
    with run.ctx.lab.connect_admin() as admin:
        return dict(admin.rows(_SESSIONS, [open_s, run.database, run.ctx.lab.roles.app.name]))


def _kept_by_sessions(run: JobRun) -> tuple[int, int]:
    """Return the advisory locks in the engine's database, and its sessions that are idle in a transaction."""
    with run.ctx.lab.connect_admin(run.database) as admin:
        locks = admin.value(_ADVISORY_LOCKS)
    return int(locks), sum(_sessions(run).values())


def _look_at_shared_connections(run: JobRun, when: str, fruitless: int = _TRIES) -> int:
    """Record what is on the shared server connections now: it belongs to no client, even while the worker runs.

    :param fruitless: how many looks in a row that find none of the connections are enough.
    :return: how many free server connections were given to no client, such as those that a worker has past the pooler.
    """
    found, missed = _on_shared_connections(run, fruitless)
    statements, channels = sum(one.statements for one in found), channels_on(found)
    run.ctx.fact(f"on shared server connections {when}", f"{channels} channels, {statements} statements")
    run.left = most_left(run.left, {STATEMENTS: statements, CHANNELS: channels})
    return missed


def channels_on(connections: Iterable[OnServerConnection]) -> int:
    """Return the number of channels, each counted once: on how many connections LISTEN ran is up to chance."""
    return len({channel for one in connections for channel in one.channels})


def most_left(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """Return what any look saw: the larger number of each kind."""
    return before | {kind: max(number, before.get(kind, 0)) for kind, number in now.items()}


def _on_shared_connections(run: JobRun, fruitless: int) -> tuple[list[OnServerConnection], int]:
    """Return what later clients find on each server connection of the pool, and how many free ones they missed.

    A server connection in a transaction is not free: it is given to a client if the transaction ends meanwhile.
    """
    found: dict[int, OnServerConnection] = {}
    wanted = {pid for pid, is_open in _pooled(run).items() if not is_open}
    if run.ctx.mode is PoolMode.SESSION:
        _one_after_another(run, found)
    else:
        _side_by_side(run, found, fruitless)
    return list(found.values()), len((wanted & _pooled(run).keys()) - found.keys())


def _pooled(run: JobRun) -> dict[int, bool]:
    """Return the sessions of the engine's database without those that the check itself has past the pooler."""
    own = run.ctx.direct_pids()
    return {pid: is_open for pid, is_open in _sessions(run).items() if pid not in own}


def _one_after_another(run: JobRun, found: dict[int, OnServerConnection]) -> None:
    """Give each server connection of the pool to a client that keeps it, until the pooler opens a new one."""
    sessions = _pooled(run)
    while not sessions.keys() <= found.keys():
        [row] = run.ctx.connect(run.ctx.lab.chain(run.database)).rows(_ON_SERVER_CONNECTION)
        found[row[0]] = OnServerConnection(*row[:3])
        if row[0] not in sessions:
            return


def _side_by_side(run: JobRun, found: dict[int, OnServerConnection], fruitless: int) -> None:
    """Let as many clients as there are server connections ask at the same time, so that each is given another one."""
    clients: list[Client] = []
    first = sessions = _pooled(run)
    in_vain = 0
    for _ in range(_TRIES):
        if sessions.keys() <= found.keys() or in_vain == fruitless:
            return
        before = len(first.keys() & found.keys())
        clients += [run.ctx.connect(run.ctx.lab.chain(run.database)) for _ in range(len(sessions) - len(clients))]
        with ThreadPoolExecutor(len(clients)) as pool:
            for [row] in pool.map(lambda client: client.rows(_ON_SERVER_CONNECTION), clients):
                found[row[0]] = OnServerConnection(*row[:3])
        # of those that the worker had; each look may open others
        in_vain = 0 if len(first.keys() & found.keys()) > before else in_vain + 1
        sessions = _pooled(run)  # the pooler may have closed some meanwhile, or opened others
