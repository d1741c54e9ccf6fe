"""Pooling: prepared statements, by the protocol's messages and as drivers use them. Values are asserted, not only errors."""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.documented import WORKS
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import MOVING, elsewhere, moved, neighbour, pressed
from harness.database import SqlError
from harness.libpq import CLOSED, Reply, execute, extended, parse, simple
from harness.suites.pooling.probes import PREPARED, WRONG, fails, feature, outcome_of, works_here

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.database import Client
    from harness.model import Outcome

MINE, THEIRS = "SELECT 'mine ' || $1::text", "SELECT 'theirs ' || $1::text"


def _parsed(client: Client, name: str, statement: str) -> None:
    answer = parse(client, name, statement)
    if answer.is_error:
        raise NotExercisedError(f"the statement could not be parsed: {answer.sqlstate} {answer.message}")


@feature(
    "named-kept",
    "protocol-level prepared statement: kept by its client",
    group=PREPARED,
    claim="a statement that a client prepared by the protocol can be executed again, with its own result",
)
def named_kept(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    _parsed(client, "s0", MINE)
    with pressed(ctx, client):
        if ctx.sabotaged and not works_here(ctx, "named-kept"):
            parse(client, "s0", MINE)
        elif ctx.sabotaged:
            simple(client, "DEALLOCATE ALL")
        return outcome_of(execute(client, "s0", ["1"]), right="mine 1")


@feature(
    "named-taken",
    "protocol-level prepared statement: a name that another client uses too",
    group=PREPARED,
    claim="two clients that give different statements the same name each prepare and execute their own",
)
def named_taken(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
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


@feature(
    "named-mixed-up",
    "protocol-level prepared statement: executed where another client's lies under the same name",
    group=PREPARED,
    claim="a client that executes its statement never runs another client's that has the same name",
)
def named_mixed_up(ctx: CheckContext) -> Outcome:
    """The silent one: drivers name statements alike (`_pg3_1`, `s0`, `S_1`), and parameters of the same types fit."""
    client = ctx.plain_client()
    _parsed(client, "s0", MINE)
    if ctx.mode not in MOVING:
        neighbour(ctx, client)
        if ctx.sabotaged:
            simple(client, "DEALLOCATE ALL")
            _parsed(client, "s0", THEIRS)
        return outcome_of(execute(client, "s0", ["1"]), right="mine 1")
    with moved(ctx, client):
        # while the first one's server connection is busy, both are on the other
        other = neighbour(ctx, client)
        _parsed(other, "s0", THEIRS)
        if ctx.sabotaged:
            simple(client, "DEALLOCATE ALL")
            _parsed(client, "s0", THEIRS if works_here(ctx, "named-mixed-up") else MINE)
        return outcome_of(execute(client, "s0", ["1"]), right="mine 1")


_CLIENTS, _QUERIES = 24, 20
#: all begin together, and hold what they are given for a moment: one server connection is never enough for them
_TOGETHER_S, _HELD_S = 2.0, 0.02


@feature(
    "named-under-load",
    "protocol-level prepared statements of 24 clients at once",
    group=PREPARED,
    claim="clients that prepare all their statements get their own values, and no error, when many work at once",
)
def named_under_load(ctx: CheckContext) -> Outcome:
    """Distinct statements with the same parameter types, in one order for each client, under psycopg's own names."""
    threshold = None if ctx.sabotaged and not works_here(ctx, "named-under-load") else 0
    together = Barrier(_CLIENTS)

    def one_client(number: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        client = ctx.connect(ctx.lab.chain(ctx.database), threshold)
        with client:
            with contextlib.suppress(BrokenBarrierError):  # where a login needs a server connection, not all get one
                together.wait(_TOGETHER_S)
            simple(client, f"SELECT pg_sleep({_HELD_S})")
            for n in range(_QUERIES):
                which = (number + n) % 7
                asked = f"{number}-{n}"
                text = f"SELECT 'text {which}: ' || %s::text, pg_backend_pid()"
                if ctx.sabotaged and threshold == 0 and n == 7:
                    simple(client, "DEALLOCATE ALL")  # psycopg would notice its own
                try:
                    value, pid = client.rows(text, [asked])[0]
                except SqlError as error:
                    seen[f"error {error.sqlstate or CLOSED}"] += 1
                    continue
                seen[f"pid {pid}"] += 1
                seen["right" if value == f"text {which}: {asked}" else "wrong"] += 1
        return seen

    with ThreadPoolExecutor(_CLIENTS) as pool:
        seen = sum(pool.map(one_client, range(_CLIENTS)), Counter())
    pids = [each for each in seen if each.startswith("pid ")]
    errors = {key.removeprefix("error "): count for key, count in seen.items() if key.startswith("error ")}
    ctx.fact("of so many queries", _CLIENTS * _QUERIES)
    ctx.fact("right, wrong", [seen["right"], seen["wrong"]])
    ctx.fact("errors", errors)
    ctx.fact("server connections", len(pids))
    if ctx.mode in MOVING and not 1 < len(pids) < _CLIENTS:
        raise NotExercisedError(
            f"{_CLIENTS} clients had {len(pids)} server connections: none was shared, or none changed"
        )
    if seen["wrong"]:
        return WRONG
    if errors:
        return fails(Reply(sqlstate=max(errors, key=lambda each: errors[each])))
    return WORKS


@feature(
    "unnamed-kept",
    "unnamed statement, parsed and executed with a Sync between",
    group=PREPARED,
    claim="an unnamed statement that was parsed can be executed after a Sync, with its own result",
)
def unnamed_kept(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    pid = client.server_pid()
    _parsed(client, "", MINE)
    with elsewhere(ctx, client, pid):
        if ctx.sabotaged:
            parse(client, "", THEIRS if works_here(ctx, "unnamed-kept") else MINE)
        return outcome_of(execute(client, "", ["1"]), right="mine 1")


@feature(
    "unnamed-mixed-up",
    "unnamed statement, with another client's between Parse and Execute",
    group=PREPARED,
    claim="a client that executes its unnamed statement after a Sync never runs another client's",
)
def unnamed_mixed_up(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    other = neighbour(ctx, client)
    _parsed(client, "", MINE)
    _parsed(other, "", THEIRS)
    if ctx.sabotaged:
        parse(client, "", THEIRS if works_here(ctx, "unnamed-mixed-up") else MINE)
    answer = execute(client, "", ["1"])
    neighbour(ctx, client, other)
    return outcome_of(answer, right="mine 1")


@feature(
    "deallocate",
    "DEALLOCATE of a statement that was prepared by the protocol",
    group=PREPARED,
    claim="a statement that was prepared by the protocol can be deallocated by its name in SQL",
)
def deallocate(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    pid = client.server_pid()
    _parsed(client, "s1", MINE)
    if ctx.sabotaged:
        simple(client, "DEALLOCATE s1" if works_here(ctx, "deallocate") else "PREPARE s1 AS SELECT 1")
    answer = simple(client, "DEALLOCATE s1")
    after = client.server_pid()
    if pid != after:
        raise NotExercisedError(f"the client was moved meanwhile, from {pid} to {after}")
    ctx.probed("the client stays alone on its server connection", pid, after)
    return fails(answer) if answer.is_error else WORKS


@feature(
    "parse-again",
    "Parse of a name that the client uses already",
    group=PREPARED,
    claim="parsing another statement under a name in use is refused with 42P05, and the connection lives on",
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
    again = simple(client, "SELECT pg_backend_pid()")
    if not again.is_error:
        ctx.probed("the client stays alone on its server connection", pid, int(again.value or 0))
    ctx.fact("what the client was told", answer.message)
    return fails(replace(answer, closed=again.is_error))


def _discards(name: str, statement: str, title: str, *, by_extended_protocol: bool = False) -> tuple[Check, Control]:
    @feature(
        name,
        title,
        group=PREPARED,
        claim=f"{statement} of one client leaves the prepared statements of another alone",
    )
    def probe(ctx: CheckContext) -> Outcome:
        client = ctx.plain_client()
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

    return probe


DISCARDS = (
    *_discards("discard-all", "DISCARD ALL", "DISCARD ALL by another client"),
    *_discards("deallocate-all", "DEALLOCATE ALL", "DEALLOCATE ALL by another client"),
    *_discards(
        "discard-all-extended", "DISCARD ALL", "DISCARD ALL by the extended protocol", by_extended_protocol=True
    ),
)

_SHAPES = "SELECT * FROM pooling.shapes WHERE id = $1::integer"


@feature(
    "plan-after-ddl",
    "prepared statement whose result changed with a migration",
    group=PREPARED,
    claim="a client that executes a prepared statement after its result type changed is told so",
)
def plan_after_ddl(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    pid = client.server_pid()
    _parsed(client, "s4", _SHAPES)
    first = execute(client, "s4", ["1"])
    if first.is_error or client.server_pid() != pid:
        raise NotExercisedError(f"the statement did not run where it was prepared: {first}")
    ctx.probed("the client stays alone on its server connection", pid, pid)
    if not ctx.sabotaged:
        ctx.owner.run("ALTER TABLE pooling.shapes ADD COLUMN sides integer")
    return outcome_of(execute(client, "s4", ["1"]), right="1")


@feature(
    "plan-after-ddl-others",
    "statement that another client prepared before a migration",
    group=PREPARED,
    claim="a client that prepares a statement after a migration gets the new result, whoever prepared it before",
)
def plan_after_ddl_others(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
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
