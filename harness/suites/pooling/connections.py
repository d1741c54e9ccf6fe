"""Pooling: logins, startup parameters, pipelines and bulk work."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.documented import WORKS
from harness.checks.occupation import settled
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import neighbour
from harness.database import SqlError, connect
from harness.libpq import simple
from harness.model import Behaviour, Outcome
from harness.suites.pooling.probes import CONNECTIONS, LOST, WRONG, outcome_of, probe, works_here
from harness.wire.connection import PROTOCOL_3_0, PROTOCOL_3_2, Wire
from harness.wire.messages import ClosedError, NotPostgresError, ServerError
from harness.wire.sockets import Deadline, ServerAddress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.checks.context import CheckContext
    from harness.database import Endpoint
    from harness.errors import DatabaseError

_DEADLINE_S = 5.0
_TRANSACTIONS = 500


def log_in_raw(
    endpoint: Endpoint,
    parameters: Mapping[str, str],
    *,
    version: tuple[int, int] = PROTOCOL_3_0,
    password: str = "",
    deadline_s: float = _DEADLINE_S,
) -> Wire:
    """Log in with any startup parameters, also with those that libpq would not send.

    :param version: the protocol version to ask for, as major and minor number.
    :param password: used in place of the endpoint's password; the endpoint's own when empty.
    :param deadline_s: seconds, for the login and all statements after it.
    :raises ServerError: when the server refuses the login.
    :raises ClosedError: when the server closes the connection without an error.
    :raises ServiceFailedError: when the server is being removed.
    """
    endpoint.require_open()
    wire = Wire.open(ServerAddress(host=endpoint.host, port=endpoint.port), Deadline(deadline_s))
    try:
        request = wire.start_login({"user": endpoint.user, "database": endpoint.dbname, **parameters}, version)
        wire.log_in(request, endpoint.user, password or endpoint.password)
    except BaseException:
        wire.close()
        raise
    return wire


def refused(error: DatabaseError) -> Outcome:
    """Return the outcome of a refused login: *fails*, with the SQLSTATE of the error if there is one."""
    return Outcome(
        behaviour=Behaviour.FAILS, sqlstate=error.sqlstate if isinstance(error, ServerError) else "", closed=True
    )


def _startup(ctx: CheckContext, name: str, parameters: dict[str, str], setting: str, requested: str) -> Outcome:
    """Connect with startup parameters and read the setting back: a parameter can be accepted without effect."""
    if ctx.sabotaged:
        parameters = {} if works_here(ctx, name) else {"application_name": "control"}
    try:
        wire = log_in_raw(ctx.lab.chain(ctx.database), parameters)
    except (ServerError, ClosedError) as error:
        ctx.fact("error that the client received", str(error))
        return refused(error)
    with contextlib.closing(wire):
        if ctx.sabotaged and not works_here(ctx, name):
            wire.query(f"SET {setting} = '{requested}'")
        value = wire.query(f"SHOW {setting}")[0][0]
    ctx.fact("requested and effective value", [requested, value])
    return WORKS if value == requested else LOST


@probe(
    "startup-tracked",
    "startup parameter that a pooler tracks: TimeZone",
    group=CONNECTIONS,
    claim="a TimeZone sent as a startup parameter is in force",
)
def startup_tracked(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-tracked", {"TimeZone": "Asia/Kathmandu"}, "TimeZone", "Asia/Kathmandu")


@probe(
    "startup-options",
    "startup parameter options: -c statement_timeout",
    group=CONNECTIONS,
    claim="a statement_timeout sent in the startup parameter options is in force",
)
def startup_options(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-options", {"options": "-c statement_timeout=4242"}, "statement_timeout", "4242ms")


@probe(
    "startup-options-tracked",
    "startup parameter options: -c TimeZone",
    group=CONNECTIONS,
    claim="a TimeZone sent in the startup parameter options is in force",
)
def startup_options_tracked(ctx: CheckContext) -> Outcome:
    parameters = {"options": "-c TimeZone=Asia/Kathmandu"}
    return _startup(ctx, "startup-options-tracked", parameters, "TimeZone", "Asia/Kathmandu")


@probe(
    "startup-float-digits",
    "startup parameter extra_float_digits, as JDBC sends it",
    group=CONNECTIONS,
    claim="extra_float_digits sent as a startup parameter is in force",
)
def startup_float_digits(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-float-digits", {"extra_float_digits": "3"}, "extra_float_digits", "3")


@probe(
    "startup-search-path",
    "startup parameter search_path",
    group=CONNECTIONS,
    claim="a search_path sent as a startup parameter is in force",
)
def startup_search_path(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-search-path", {"search_path": "tenant_a"}, "search_path", "tenant_a")


@probe(
    "startup-interval-style",
    "startup parameter IntervalStyle",
    group=CONNECTIONS,
    claim="an IntervalStyle sent as a startup parameter is in force",
)
def startup_interval_style(ctx: CheckContext) -> Outcome:
    return _startup(ctx, "startup-interval-style", {"IntervalStyle": "iso_8601"}, "IntervalStyle", "iso_8601")


@probe(
    "role-default",
    "ALTER ROLE … IN DATABASE … SET",
    group=CONNECTIONS,
    claim="a default setting of a role in a database is in force for the clients of that role",
)
def role_default(ctx: CheckContext) -> Outcome:
    value = "4242ms" if not ctx.sabotaged else "1s"
    ctx.admin.run(f"ALTER ROLE harness_app IN DATABASE {ctx.database} SET statement_timeout = '{value}'")
    client = settled(ctx)
    other = neighbour(ctx, client)
    timeouts = [client.value("SHOW statement_timeout"), other.value("SHOW statement_timeout")]
    return WORKS if timeouts == ["4242ms", "4242ms"] else LOST


@probe(
    "protocol-3-2",
    "protocol version 3.2",
    group=CONNECTIONS,
    claim="a client that requests protocol 3.2 is served, in 3.2 or in the version that the server offers instead",
)
def protocol(ctx: CheckContext) -> Outcome:
    version = (4, 0) if ctx.sabotaged and works_here(ctx, "protocol-3-2") else PROTOCOL_3_2
    if ctx.sabotaged and not works_here(ctx, "protocol-3-2"):
        version = PROTOCOL_3_0
    try:
        wire = log_in_raw(ctx.lab.chain(ctx.database), {}, version=version)
    except (ServerError, ClosedError, NotPostgresError) as error:
        ctx.fact("error that the client received", str(error))
        return refused(error)
    ctx.fact("version offered instead", ".".join(map(str, wire.negotiated)) if wire.negotiated else "nothing")
    with contextlib.closing(wire):
        answer = wire.query("SELECT 1")
    return WORKS if answer == [("1",)] else WRONG


@probe(
    "replication",
    "replication connection",
    group=CONNECTIONS,
    claim="a client with the replication right can open a logical replication connection",
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
        ctx.fact("error that the client received", str(error))
        return refused(error)
    return WORKS if rows else LOST


@probe(
    "wrong-password",
    "wrong password is refused",
    group=CONNECTIONS,
    claim="a client with a wrong password is refused with an authentication error; the evidence has the message",
)
def wrong_password(ctx: CheckContext) -> Outcome:
    endpoint = ctx.lab.chain(ctx.database)
    return _is_refused(ctx, endpoint, "" if ctx.sabotaged else "not the password", r"password|authentication")


@probe(
    "unknown-database",
    "unknown database is refused",
    group=CONNECTIONS,
    claim="a client that asks for an unknown database is refused for that reason; the evidence has the message",
)
def unknown_database(ctx: CheckContext) -> Outcome:
    endpoint = ctx.lab.chain(ctx.database if ctx.sabotaged else "no_such_database")
    return _is_refused(ctx, endpoint, "", r"database|session context")


@probe(
    "unknown-user",
    "unknown user is refused",
    group=CONNECTIONS,
    claim="a client with an unknown user name is refused with an authentication error; the evidence has the message",
)
def unknown_user(ctx: CheckContext) -> Outcome:
    endpoint = ctx.lab.chain(ctx.database)
    unknown = endpoint if ctx.sabotaged else replace(endpoint, user="no_such_user")
    return _is_refused(ctx, unknown, "", r"password|authentication|user|role|session context")


@probe(
    "channel-binding",
    "channel_binding=require",
    group=CONNECTIONS,
    claim="a client that requires channel binding can log in",
)
def channel_binding(ctx: CheckContext) -> Outcome:
    try:
        with connect(
            ctx.lab.chain(ctx.database), channel_binding="require" if not ctx.sabotaged else "prefer"
        ) as client:
            client.value("SELECT 1")
    except SqlError as error:
        ctx.fact("error that the client received", str(error))
        if "channel binding" not in str(error):
            raise NotExercisedError(f"unexpected error {str(error)!r}, expected one about channel binding") from None
        return Outcome(behaviour=Behaviour.FAILS, closed=True)
    return WORKS


def _is_refused(ctx: CheckContext, endpoint: Endpoint, password: str, reason: str) -> Outcome:
    """Connect and expect a refusal whose message matches a pattern; the SQLSTATE differs between products."""
    try:
        with contextlib.closing(log_in_raw(endpoint, {}, password=password)) as wire:
            wire.query("SELECT 1")
    except (ServerError, ClosedError) as error:
        ctx.fact("error that the client received", str(error))
        return WORKS if re.search(reason, str(error), re.IGNORECASE) else refused(error)
    return WRONG


@probe(
    "many-transactions",
    f"one client, {_TRANSACTIONS} transactions",
    group=CONNECTIONS,
    claim=f"a client runs {_TRANSACTIONS} transactions on one connection, and each has its own result",
)
def many_transactions(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    for number in range(_TRANSACTIONS):
        if ctx.sabotaged and number == _TRANSACTIONS // 2:
            simple(client, "SELECT pg_terminate_backend(pg_backend_pid())")
        answer = simple(client, f"SELECT {number}")
        if answer.is_error or answer.value != str(number):
            ctx.fact("transactions that succeeded", number)
            return outcome_of(answer, right=str(number))
    ctx.fact("transactions that succeeded", _TRANSACTIONS)
    return WORKS


@probe(
    "pipeline",
    "pipelining",
    group=CONNECTIONS,
    claim="statements sent in a pipeline are all answered, in order",
)
def pipeline(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    numbers = list(range(40))
    if ctx.sabotaged:
        ctx.admin.run("CREATE FUNCTION pooling.same(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 0'")
    else:
        ctx.admin.run("CREATE FUNCTION pooling.same(n integer) RETURNS integer LANGUAGE sql AS 'SELECT n'")
    with client.pipeline():
        cursors = [client.execute("SELECT pooling.same(%s)", [n]) for n in numbers]
        rows = [cursor.fetchone() for cursor in cursors]
    return WORKS if [row[0] for row in rows if row] == numbers else WRONG


@probe(
    "copy",
    "COPY in and out",
    group=CONNECTIONS,
    claim="rows that a client copies in are the rows that it copies out",
)
def copy(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    rows = [(f"line {n}",) for n in range(2000)]
    client.copy_in("COPY pooling.notes (body) FROM STDIN", rows)
    if ctx.sabotaged:
        ctx.admin.run("UPDATE pooling.notes SET body = 'another line' WHERE body = 'line 7'")
    with client.cursor() as cursor, cursor.copy("COPY (SELECT body FROM pooling.notes) TO STDOUT") as out:
        copied = sorted(out.rows())
    if client.value("SELECT 1") != 1 or len(copied) != len(rows):
        return LOST
    return WORKS if copied == sorted(rows) else WRONG
