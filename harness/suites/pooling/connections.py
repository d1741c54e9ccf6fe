"""Pooling: connecting, startup parameters, cancelling, bulk work: what a client meets before and around its statements."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import neighbour, until, waiters_at, waiting_pid
from harness.database import SqlError
from harness.libpq import finish, simple, start
from harness.model import Behaviour, Outcome
from harness.suites.pooling.probes import CONNECTIONS, LEAKS, LOST, WRONG, feature, works_here
from harness.wire.connection import PROTOCOL_3_0, PROTOCOL_3_2, Wire
from harness.wire.messages import ClosedError, NotPostgresError, ServerError
from harness.wire.sockets import Deadline, ServerAddress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.checks.context import CheckContext
    from harness.database import Endpoint
    from harness.errors import DatabaseError

_DEADLINE_S = 5.0


def log_in_raw(
    endpoint: Endpoint, parameters: Mapping[str, str], *, version: tuple[int, int] = PROTOCOL_3_0, password: str = ""
) -> Wire:
    """Log in with any startup parameters, which libpq would not send.

    :raises ServerError: when the server refuses; ClosedError when it just leaves.
    """
    wire = Wire.open(ServerAddress(host=endpoint.host, port=endpoint.port), Deadline(_DEADLINE_S))
    try:
        asked = wire.greet({"user": endpoint.user, "database": endpoint.dbname, **parameters}, version)
        wire.log_in(asked, endpoint.user, password or endpoint.password)
    except BaseException:
        wire.close()
        raise
    return wire


def refused(error: DatabaseError) -> Outcome:
    """Return the outcome of a refused login."""
    return Outcome(
        behaviour=Behaviour.FAILS, sqlstate=error.sqlstate if isinstance(error, ServerError) else "", closed=True
    )


def _startup(ctx: CheckContext, name: str, parameters: dict[str, str], shown: str, asked: str) -> Outcome:
    """Connect with startup parameters, and have the value shown back: accepted is not yet in force."""
    if ctx.sabotaged:
        parameters = {} if works_here(ctx, name) else {"application_name": "control"}
    try:
        wire = log_in_raw(ctx.lab.chain(ctx.database), parameters)
    except (ServerError, ClosedError) as error:
        ctx.fact("what the client was told", str(error))
        return refused(error)
    with contextlib.closing(wire):
        if ctx.sabotaged and not works_here(ctx, name):
            wire.query(f"SET {shown} = '{asked}'")
        value = wire.query(f"SHOW {shown}")[0][0]
    ctx.fact("asked for, and shown", [asked, value])
    return WORKS if value == asked else LOST


@feature(
    "startup-tracked",
    "startup parameter that a pooler tracks: TimeZone",
    group=CONNECTIONS,
    claim="a TimeZone that is given when connecting is in force",
)
def startup_tracked(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-tracked", {"TimeZone": "Asia/Kathmandu"}, "TimeZone", "Asia/Kathmandu")


@feature(
    "startup-options",
    "startup parameter options: -c statement_timeout",
    group=CONNECTIONS,
    claim="a statement_timeout that is given in the options when connecting is in force",
)
def startup_options(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-options", {"options": "-c statement_timeout=4242"}, "statement_timeout", "4242ms")


@feature(
    "startup-float-digits",
    "startup parameter extra_float_digits, as JDBC sends it",
    group=CONNECTIONS,
    claim="extra_float_digits that is given when connecting is in force",
)
def startup_float_digits(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-float-digits", {"extra_float_digits": "3"}, "extra_float_digits", "3")


@feature(
    "startup-search-path",
    "startup parameter search_path",
    group=CONNECTIONS,
    claim="a search_path that is given when connecting is in force",
)
def startup_search_path(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-search-path", {"search_path": "tenant_a"}, "search_path", "tenant_a")


@feature(
    "startup-interval-style",
    "startup parameter IntervalStyle",
    group=CONNECTIONS,
    claim="an IntervalStyle that is given when connecting is in force",
)
def startup_interval_style(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-interval-style", {"IntervalStyle": "iso_8601"}, "IntervalStyle", "iso_8601")


@feature(
    "role-default",
    "ALTER ROLE … IN DATABASE … SET",
    group=CONNECTIONS,
    claim="a setting that is the default of a role in a database is in force for its clients",
)
def role_default(ctx: CheckContext) -> Outcome:
    value = "4242ms" if not ctx.sabotaged else "1s"
    ctx.admin.run(f"ALTER ROLE harness_app IN DATABASE {ctx.database} SET statement_timeout = '{value}'")
    client = ctx.plain_client()
    other = neighbour(ctx, client)
    seen = [client.value("SHOW statement_timeout"), other.value("SHOW statement_timeout")]
    return WORKS if seen == ["4242ms", "4242ms"] else LOST


@feature(
    "protocol-3-2",
    "protocol version 3.2",
    group=CONNECTIONS,
    claim="a client that asks for protocol 3.2 is served, in 3.2 or in the version that it is offered instead",
)
def protocol(ctx: CheckContext) -> Outcome:
    version = (4, 0) if ctx.sabotaged and works_here(ctx, "protocol-3-2") else PROTOCOL_3_2
    if ctx.sabotaged and not works_here(ctx, "protocol-3-2"):
        version = PROTOCOL_3_0
    try:
        wire = log_in_raw(ctx.lab.chain(ctx.database), {}, version=version)
    except (ServerError, ClosedError, NotPostgresError) as error:
        ctx.fact("what the client was told", str(error))
        return refused(error)
    ctx.fact("offered instead", ".".join(map(str, wire.negotiated)) if wire.negotiated else "nothing")
    with contextlib.closing(wire):
        answer = wire.query("SELECT 1")
    return WORKS if answer == [("1",)] else WRONG


@feature(
    "replication",
    "replication connection",
    group=CONNECTIONS,
    claim="a client with the right to it can open a logical replication connection",
)
def replication(ctx: CheckContext) -> Outcome:
    works = works_here(ctx, "replication")
    endpoint = ctx.lab.dba(ctx.database) if not (ctx.sabotaged and works) else ctx.lab.chain(ctx.database)
    try:
        with contextlib.closing(
            log_in_raw(endpoint, {"replication": "database"} if works or not ctx.sabotaged else {})
        ) as wire:
            rows = wire.query("IDENTIFY_SYSTEM" if works or not ctx.sabotaged else "SELECT 1")
    except (ServerError, ClosedError) as error:
        ctx.fact("what the client was told", str(error))
        return refused(error)
    return WORKS if rows else LOST


@feature(
    "wrong-password",
    "wrong password is refused",
    group=CONNECTIONS,
    claim="a client with a wrong password is refused for that; the evidence has what it is told",
)
def wrong_password(ctx: CheckContext) -> Outcome:
    return _is_refused(ctx, "" if ctx.sabotaged else "not the password", ctx.database, r"password|authentication")


@feature(
    "unknown-database",
    "unknown database is refused",
    group=CONNECTIONS,
    claim="a client that asks for a database that does not exist is refused for that; the evidence has what it is told",
)
def unknown_database(ctx: CheckContext) -> Outcome:
    return _is_refused(
        ctx, "", ctx.database if ctx.sabotaged else "no_such_database", r"database|session context"
    )


def _is_refused(ctx: CheckContext, password: str, database: str, why: str) -> Outcome:
    """Connect, and expect to be refused in words that say why; the SQLSTATE is another with each product."""
    try:
        with contextlib.closing(log_in_raw(ctx.lab.chain(database), {}, password=password)) as wire:
            wire.query("SELECT 1")
    except (ServerError, ClosedError) as error:
        ctx.fact("what the client was told", str(error))
        return WORKS if re.search(why, str(error), re.IGNORECASE) else refused(error)
    return WRONG


_ATTEMPTS = 12
_BYSTANDER = 4999
_SOON_S = 0.4
_OTHERS = 5
_DUMPS = 6


@feature(
    "cancel",
    "cancel request",
    group=CONNECTIONS,
    claim="a cancel request ends the statement of the client that sent it, and no other",
)
def cancel(ctx: CheckContext) -> Outcome:
    """Where several processes share one address, a cancel request may reach another than its client's: often enough."""
    declared = ctx.topology.pooler
    attempts = _ATTEMPTS if declared and declared.instances > 1 else 1
    seen, refused = [], False
    bystander = ctx.plain_client()
    ctx.admin.value(f"SELECT pg_advisory_lock({_BYSTANDER})")
    start(bystander, f"SELECT pg_advisory_xact_lock({_BYSTANDER})")
    waiting_pid(ctx, f"({_BYSTANDER})")
    for number in range(attempts):
        client, gate = ctx.plain_client(), 5000 + number
        ctx.admin.value(f"SELECT pg_advisory_lock({gate})")
        start(client, f"SELECT pg_advisory_xact_lock({gate})")
        waiting_pid(ctx, f"({gate})")
        if not ctx.sabotaged:
            try:
                client.cancel_safe(timeout=_DEADLINE_S)
            except SqlError as error:
                ctx.fact("the cancel request itself", str(error))
                refused = True
        elif not works_here(ctx, "cancel"):
            ctx.admin.value(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()",
                [f"%({gate})%"],
            )
        arrived = _is_over(ctx, gate, _DEADLINE_S if works_here(ctx, "cancel") and not ctx.sabotaged else _SOON_S)
        ctx.admin.value(f"SELECT pg_advisory_unlock({gate})")
        answer = finish(client)
        seen.append(arrived and answer.sqlstate == "57014")
        client.close()
    ctx.fact("cancelled, of so many", [sum(seen), len(seen)])
    ctx.admin.value(f"SELECT pg_advisory_unlock({_BYSTANDER})")
    if finish(bystander).is_error:
        return WRONG
    if all(seen):
        return WORKS
    return Outcome(behaviour=Behaviour.FAILS) if refused else LOST


def _is_over(ctx: CheckContext, gate: int, deadline_s: float) -> bool:
    """Say whether the statement that waits at a gate ends within a moment, without the gate being opened."""
    try:
        until(ctx, waiters_at(gate), 0, deadline_s)
    except NotExercisedError:
        return False
    return True


@feature(
    "pipeline",
    "pipelining",
    group=CONNECTIONS,
    claim="statements that are sent in a pipeline are each answered, in their order",
)
def pipeline(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    asked = list(range(40))
    if ctx.sabotaged:
        ctx.admin.run("CREATE FUNCTION pooling.same(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 0'")
    else:
        ctx.admin.run("CREATE FUNCTION pooling.same(n integer) RETURNS integer LANGUAGE sql AS 'SELECT n'")
    with client.pipeline():
        cursors = [client.execute("SELECT pooling.same(%s)", [n]) for n in asked]
        answers = [each.fetchone() for each in cursors]
    return WORKS if [each[0] for each in answers if each] == asked else WRONG


@feature(
    "copy",
    "COPY in and out",
    group=CONNECTIONS,
    claim="what is copied in comes out again, row for row",
)
def copy(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    rows = [(f"line {n}",) for n in range(2000)]
    client.copy_in("COPY pooling.notes (body) FROM STDIN", rows)
    if ctx.sabotaged:
        ctx.admin.run("UPDATE pooling.notes SET body = 'another line' WHERE body = 'line 7'")
    with client.cursor() as cursor, cursor.copy("COPY (SELECT body FROM pooling.notes) TO STDOUT") as out:
        got = sorted(out.rows())
    if client.value("SELECT 1") != 1 or len(got) != len(rows):
        return LOST
    return WORKS if got == sorted(rows) else WRONG


@feature(
    "pg-dump",
    "pg_dump through the pool, while others work",
    group=CONNECTIONS,
    claim="pg_dump makes its dump, and leaves the server connections as they were for others",
)
def pg_dump(ctx: CheckContext) -> Outcome:
    """Run PostgreSQL's own program beside the server, through the pooler; it sets search_path and more for its session."""
    lab, dba = ctx.lab, ctx.lab.dba(ctx.database)
    works, over = works_here(ctx, "pg-dump"), Event()
    paths: set[str] = set()
    inside = (lab.postgres if ctx.sabotaged and not works else lab.outermost).inside

    def others_work() -> Counter[str]:
        seen: Counter[str] = Counter()
        with ctx.connect(dba) as client:
            while not over.is_set():
                path = client.value("SHOW search_path")
                paths.add(path)
                seen[path] += 1
                if ctx.sabotaged and works:
                    simple(client, "SET search_path = ''")
        return seen

    with ThreadPoolExecutor(_OTHERS) as pool:
        working = [pool.submit(others_work) for _ in range(_OTHERS)]
        try:
            # whether somebody else gets a server connection that it has set, before it begins its transaction on it,
            # is left to chance: once is not enough
            for _ in range(1 if works or ctx.sabotaged else _DUMPS):
                code, said = lab.postgres.run(
                    ["pg_dump", "--schema=pooling", "--file=/dev/null", "--no-password"],
                    {
                        "PGHOST": inside.host,
                        "PGPORT": str(inside.port),
                        "PGDATABASE": dba.dbname,
                        "PGUSER": dba.user,
                        "PGPASSWORD": dba.password,
                    },
                )
                if len(paths) > 1:
                    break
        finally:
            over.set()
        seen = sum((each.result() for each in working), Counter())
    ctx.fact("search_path of the others, and how often", dict(seen))
    ctx.fact("pg_dump ended with", code)
    if code != 0:
        ctx.fact("pg_dump said", said[-300:])
    if len(seen) > 1:
        return LEAKS
    if code == 0 and not works and not ctx.sabotaged:
        raise NotExercisedError(f"in {_DUMPS} dumps nobody got a server connection that pg_dump had set")
    return WORKS if code == 0 else Outcome(behaviour=Behaviour.FAILS)
