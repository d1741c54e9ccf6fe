"""Pooling: prepared statements, by single protocol messages and as drivers use them.

The probes compare values, since a client that gets another client's result may get no error.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.documented import WORKS
from harness.checks.occupation import MOVING, require_clients, settled, waited_too_long
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import elsewhere, moved, neighbour, pressed
from harness.database import SqlError
from harness.libpq import CLOSED, Reply, execute, extended, parse, simple
from harness.suites.pooling.probes import PREPARED, WRONG, fails, outcome_of, probe, require_open, works_here

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.database import Client
    from harness.model import Outcome

MINE, THEIRS = "SELECT 'mine ' || $1::text", "SELECT 'theirs ' || $1::text"


def _parsed(client: Client, name: str, statement: str) -> None:
    answer = parse(client, name, statement)
    require_open(answer)
    if answer.is_error:
        raise NotExercisedError(f"could not parse the statement: {answer.sqlstate} {answer.message}")


@probe(
    "named-kept",
    "protocol-level prepared statement: persists for its client",
    group=PREPARED,
    claim="a client can execute a protocol-level prepared statement later and gets the result of that statement",
)
def named_kept(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    _parsed(client, "s0", MINE)
    with pressed(ctx, client):
        if ctx.sabotaged and not works_here(ctx, "named-kept"):
            parse(client, "s0", MINE)
        elif ctx.sabotaged:
            simple(client, "DEALLOCATE ALL")
        return outcome_of(execute(client, "s0", ["1"]), right="mine 1")


@probe(
    "named-taken",
    "protocol-level prepared statement: same name in two clients",
    group=PREPARED,
    claim="two clients can prepare different statements under the same name, and each executes its own",
)
def named_taken(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    _parsed(client, "s0", MINE)
    other = neighbour(ctx, client)
    if ctx.sabotaged and not works_here(ctx, "named-taken"):
        simple(other, "DEALLOCATE ALL")
    answer = parse(other, "s0", THEIRS)
    if answer.is_error:
        return fails(answer)
    if ctx.sabotaged and works_here(ctx, "named-taken"):
        simple(other, "DEALLOCATE ALL")
    return outcome_of(execute(other, "s0", ["1"]), right="theirs 1")


@probe(
    "named-mixed-up",
    "protocol-level prepared statement: executed on a server connection with another client's statement of that name",
    group=PREPARED,
    claim="a client never executes another client's prepared statement of the same name",
)
def named_mixed_up(ctx: CheckContext) -> Outcome:
    """Probe the silent failure: drivers choose equal names (`_pg3_1`, `s0`, `S_1`), and parameter types often match."""
    client = settled(ctx)
    _parsed(client, "s0", MINE)
    if ctx.mode not in MOVING:
        neighbour(ctx, client)
        if ctx.sabotaged:
            simple(client, "DEALLOCATE ALL")
            _parsed(client, "s0", THEIRS)
        return outcome_of(execute(client, "s0", ["1"]), right="mine 1")
    with moved(ctx, client):
        # the first server connection is busy, so both clients use another one
        other = neighbour(ctx, client)
        _parsed(other, "s0", THEIRS)
        if ctx.sabotaged:
            simple(client, "DEALLOCATE ALL")
            _parsed(client, "s0", THEIRS if works_here(ctx, "named-mixed-up") else MINE)
        return outcome_of(execute(client, "s0", ["1"]), right="mine 1")


_CLIENTS, _QUERIES = 24, 20
#: all clients begin at the same time and hold their server connections for a moment, so they need more than one
_TOGETHER_S, _HELD_S = 2.0, 0.02


#: clients that got no server connection in time, which says nothing about prepared statements
_UNSERVED = "unserved"


@probe(
    "named-under-load",
    "protocol-level prepared statements: 24 concurrent clients",
    group=PREPARED,
    claim="24 concurrent clients that prepare all their statements get their own values and no error",
)
def named_under_load(ctx: CheckContext) -> Outcome:
    """Run statements with equal parameter types, in an order of its own for each client, under psycopg's names."""
    require_clients(ctx, _CLIENTS)
    threshold = None if ctx.sabotaged and not works_here(ctx, "named-under-load") else 0
    together = Barrier(_CLIENTS)

    def one_client(number: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        client = ctx.connect(ctx.lab.chain(ctx.database), threshold)
        with client:
            # not every client can log in at the same time if a login occupies a server connection
            with contextlib.suppress(BrokenBarrierError):
                together.wait(_TOGETHER_S)
            if waited_too_long(simple(client, f"SELECT pg_sleep({_HELD_S})").message):
                return Counter({_UNSERVED: 1})
            for n in range(_QUERIES):
                which = (number + n) % 7
                parameter = f"{number}-{n}"
                statement = f"SELECT 'text {which}: ' || %s::text, pg_backend_pid()"
                if ctx.sabotaged and threshold == 0 and n == 7:
                    simple(client, "DEALLOCATE ALL")  # sent past psycopg, which would notice its own
                try:
                    value, pid = client.rows(statement, [parameter])[0]
                except SqlError as error:
                    if waited_too_long(str(error)):
                        return seen + Counter({_UNSERVED: 1})
                    seen[f"error {error.sqlstate or CLOSED}"] += 1
                    continue
                seen[f"pid {pid}"] += 1
                seen["right" if value == f"text {which}: {parameter}" else "wrong"] += 1
        return seen

    with ThreadPoolExecutor(_CLIENTS) as pool:
        seen = sum(pool.map(one_client, range(_CLIENTS)), Counter())
    pids = [key for key in seen if key.startswith("pid ")]
    errors = {key.removeprefix("error "): count for key, count in seen.items() if key.startswith("error ")}
    ctx.fact("queries", _CLIENTS * _QUERIES)
    ctx.fact("right and wrong results", [seen["right"], seen["wrong"]])
    ctx.fact("errors", errors)
    ctx.fact("server connections", len(pids))
    if (unserved := seen[_UNSERVED]) and not seen["wrong"]:
        raise NotExercisedError(f"{unserved} of {_CLIENTS} clients waited for the pool longer than query_wait_timeout")
    if ctx.mode in MOVING and not 1 < len(pids) < _CLIENTS:
        raise NotExercisedError(
            f"{_CLIENTS} clients used {len(pids)} server connections, so none was shared or no client changed its own"
        )
    if seen["wrong"]:
        return WRONG
    if errors:
        return fails(Reply(sqlstate=max(errors, key=lambda sqlstate: errors[sqlstate])))
    return WORKS


@probe(
    "unnamed-kept",
    "unnamed statement: Sync between Parse and Execute",
    group=PREPARED,
    claim="a client can execute its unnamed statement after a Sync and gets the result of that statement",
)
def unnamed_kept(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    pid = client.server_pid()
    _parsed(client, "", MINE)
    with elsewhere(ctx, client, pid):
        if ctx.sabotaged:
            parse(client, "", THEIRS if works_here(ctx, "unnamed-kept") else MINE)
        return outcome_of(execute(client, "", ["1"]), right="mine 1")


@probe(
    "unnamed-mixed-up",
    "unnamed statement: another client's Parse between Parse and Execute",
    group=PREPARED,
    claim="a client never executes another client's unnamed statement",
)
def unnamed_mixed_up(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    other = neighbour(ctx, client)
    _parsed(client, "", MINE)
    _parsed(other, "", THEIRS)
    if ctx.sabotaged:
        parse(client, "", THEIRS if works_here(ctx, "unnamed-mixed-up") else MINE)
    answer = execute(client, "", ["1"])
    neighbour(ctx, client, other)
    return outcome_of(answer, right="mine 1")


@probe(
    "deallocate",
    "DEALLOCATE of a protocol-level prepared statement",
    group=PREPARED,
    claim="a client can deallocate a protocol-level prepared statement by its name in SQL",
)
def deallocate(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    pid = client.server_pid()
    _parsed(client, "s1", MINE)
    if ctx.sabotaged:
        simple(client, "DEALLOCATE s1" if works_here(ctx, "deallocate") else "PREPARE s1 AS SELECT 1")
    answer = simple(client, "DEALLOCATE s1")
    after = client.server_pid()
    if pid != after:
        raise NotExercisedError(f"the client moved from server connection {pid} to {after} during the probe")
    ctx.probed("a lone client keeps its server connection", pid, after)
    return fails(answer) if answer.is_error else WORKS


@probe(
    "parse-again",
    "Parse of a name that the client already uses",
    group=PREPARED,
    claim="a client that parses a second statement under the same name gets the error 42P05 and keeps its connection",
)
def parse_again(ctx: CheckContext) -> Outcome:
    defect = (entry := ctx.documented("parse-again")) is not None and entry.defect
    client = ctx.direct_client() if ctx.sabotaged and defect else ctx.plain_client()
    pid = client.server_pid()
    _parsed(client, "s2", MINE)
    if ctx.sabotaged and not defect:
        simple(client, "DEALLOCATE ALL")
    answer = parse(client, "s2", THEIRS)
    if not answer.is_error:
        return WORKS
    next_answer = simple(client, "SELECT pg_backend_pid()")
    if not next_answer.is_error:
        ctx.probed("a lone client keeps its server connection", pid, int(next_answer.value or 0))
    ctx.fact("error that the client received", answer.message)
    return fails(replace(answer, closed=next_answer.is_error))


def _discards(name: str, statement: str, title: str, *, by_extended_protocol: bool = False) -> tuple[Check, Control]:
    @probe(
        name,
        title,
        group=PREPARED,
        claim=f"{statement} of one client leaves the prepared statements of other clients usable",
    )
    def discards(ctx: CheckContext) -> Outcome:
        client = settled(ctx)
        _parsed(client, "s3", MINE)
        other = neighbour(ctx, client)
        answer = (extended if by_extended_protocol else simple)(other, statement)
        if answer.is_error:
            return fails(answer)
        if ctx.sabotaged:
            if works_here(ctx, name):
                simple(client, "DEALLOCATE ALL")
            else:
                parse(client, "s3", MINE)
        return outcome_of(execute(client, "s3", ["1"]), right="mine 1")

    return discards


DISCARDS = (
    *_discards("discard-all", "DISCARD ALL", "DISCARD ALL by another client"),
    *_discards("deallocate-all", "DEALLOCATE ALL", "DEALLOCATE ALL by another client"),
    *_discards(
        "discard-all-extended",
        "DISCARD ALL",
        "DISCARD ALL by another client in the extended protocol",
        by_extended_protocol=True,
    ),
)

_SHAPES = "SELECT * FROM pooling.shapes WHERE id = $1::integer"


@probe(
    "plan-after-ddl",
    "prepared statement: a migration changes its result type",
    group=PREPARED,
    claim="a client that executes a prepared statement whose result type changed gets an error",
)
def plan_after_ddl(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    pid = client.server_pid()
    _parsed(client, "s4", _SHAPES)
    first = execute(client, "s4", ["1"])
    if first.is_error or client.server_pid() != pid:
        raise NotExercisedError(f"the statement did not run on the server connection that it was prepared on: {first}")
    ctx.probed("a lone client keeps its server connection", pid, pid)
    if not ctx.sabotaged:
        ctx.owner.run("ALTER TABLE pooling.shapes ADD COLUMN sides integer")
    return outcome_of(execute(client, "s4", ["1"]), right="1")


@probe(
    "plan-after-ddl-others",
    "prepared statement: another client prepared it before a migration",
    group=PREPARED,
    claim="a client that prepares a statement after a migration gets the new result, even if another prepared it before",
)
def plan_after_ddl_others(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    _parsed(client, "s5", _SHAPES)
    execute(client, "s5", ["1"])
    other = neighbour(ctx, client)
    works = works_here(ctx, "plan-after-ddl-others")
    if not (ctx.sabotaged and not works):
        ctx.owner.run("ALTER TABLE pooling.shapes ADD COLUMN sides integer")
    if ctx.sabotaged and works:
        ctx.owner.run("DROP TABLE pooling.shapes")
    answer = parse(other, "s6", _SHAPES)
    if answer.is_error:
        return fails(answer)
    return outcome_of(execute(other, "s6", ["1"]), right="1")
