"""Pooling: pg_dump through the pooler: whether it completes, and what it leaves on the server connections."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.occupation import most_others
from harness.checks.record import NotExercisedError
from harness.libpq import simple
from harness.model import Behaviour, Outcome, PoolMode
from harness.suites.pooling.probes import CONNECTIONS, LEAKS, probe, works_here

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.engine.protocol import Address

_OTHERS = 5
#: dumps are repeated for this time, until another client gets a server connection that pg_dump changed
_FORCED_S = 8.0


def _dump(ctx: CheckContext, address: Address, database: str) -> int:
    """Run pg_dump on the server's host and return its exit code; it sets search_path and other settings first."""
    dba = ctx.lab.dba(database)
    code, output = ctx.lab.postgres.run(
        ["pg_dump", "--schema=pooling", "--file=/dev/null", "--no-password"],
        {
            "PGHOST": address.host,
            "PGPORT": str(address.port),
            "PGDATABASE": dba.dbname,
            "PGUSER": dba.user,
            "PGPASSWORD": dba.password,
        },
    )
    ctx.fact("pg_dump exit code", code)
    if code != 0:
        ctx.fact("pg_dump output", output[-300:])
    return code


@probe(
    "pg-dump",
    "pg_dump through the pooler",
    group=CONNECTIONS,
    claim="pg_dump completes",
)
def pg_dump(ctx: CheckContext) -> Outcome:
    works = works_here(ctx, "pg-dump")
    address = (ctx.lab.postgres if ctx.sabotaged and not works else ctx.lab.outermost).inside
    database = "no_such_database" if ctx.sabotaged and works else ctx.database
    return WORKS if _dump(ctx, address, database) == 0 else Outcome(behaviour=Behaviour.FAILS)


@probe(
    "pg-dump-apart",
    "pg_dump through the pooler: isolated from other clients",
    group=CONNECTIONS,
    claim="pg_dump leaves the server connections unchanged for other clients",
)
def pg_dump_apart(ctx: CheckContext) -> Outcome:
    """Dump while other clients read a setting that pg_dump changes before it begins its transaction."""
    works, finished = works_here(ctx, "pg-dump-apart"), Event()
    others = _OTHERS
    if ctx.mode is PoolMode.SESSION:  # each reader keeps its server connection, and pg_dump needs one, too
        others = most_others(ctx, _OTHERS)
    if others < 1:
        raise NotExercisedError("the pool has a single server connection, which pg_dump needs")
    address = (ctx.lab.postgres if ctx.sabotaged and not works else ctx.lab.outermost).inside
    paths: set[str] = set()

    def read_search_path() -> Counter[str]:
        seen: Counter[str] = Counter()
        with ctx.connect(ctx.lab.dba(ctx.database)) as client:
            while not finished.is_set():
                path = client.value("SHOW search_path")
                paths.add(path)
                seen[path] += 1
                if ctx.sabotaged and works:
                    simple(client, "SET search_path = ''")
        return seen

    with ThreadPoolExecutor(others) as pool:
        readers = [pool.submit(read_search_path) for _ in range(others)]
        try:
            # whether another client gets the server connection between two statements of pg_dump is chance
            end = time.monotonic() + _FORCED_S
            _dump(ctx, address, ctx.database)
            while not works and not ctx.sabotaged and len(paths) < 2 and time.monotonic() < end:
                _dump(ctx, address, ctx.database)
        finally:
            finished.set()
        seen = sum((reader.result() for reader in readers), Counter())
    ctx.fact("search_path of the other clients, with counts", dict(seen))
    if len(seen) > 1:
        return LEAKS
    if not works and not ctx.sabotaged:
        raise NotExercisedError("no other client got a server connection that pg_dump had changed")
    return WORKS
