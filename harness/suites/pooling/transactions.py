"""Pooling: transactions, which a pooler must not take apart, and what belongs to one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import MOVING, follower, neighbour, pressed, until
from harness.database import cut
from harness.libpq import extended, simple
from harness.suites.pooling.probes import LEAKS, LOST, TRANSACTIONS, WRONG, fails, feature, outcome_of, works_here
from harness.suites.pooling.sharing import HELD, KEY, PATIENT_S

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client
    from harness.model import Outcome


def _beginner(ctx: CheckContext) -> Client:
    """Return who opens a transaction block; where that is refused, the control lets it reach the server itself."""
    return ctx.direct_client() if ctx.sabotaged and not works_here(ctx, "transaction") else ctx.plain_client()


@feature(
    "transaction",
    "transaction block",
    group=TRANSACTIONS,
    claim="a transaction block is one transaction on one server connection, and can be rolled back",
)
def transaction(ctx: CheckContext) -> Outcome:
    client = _beginner(ctx)
    begun = simple(client, "BEGIN")
    if begun.is_error:
        ctx.fact("what the client was told", begun.message)
        return fails(begun)
    first = simple(client, "INSERT INTO pooling.notes (body) VALUES ('one') RETURNING pg_backend_pid()")
    ctx.plain_client().server_pid()
    if ctx.sabotaged and works_here(ctx, "transaction"):
        simple(client, "COMMIT")
    second = simple(client, "SELECT pg_backend_pid()")
    simple(client, "ROLLBACK")
    ctx.probed(
        "two statements of one transaction, with others between", int(first.value or 0), int(second.value or 0)
    )
    if ctx.admin.value("SELECT count(*) FROM pooling.notes") != 0 or first.value != second.value:
        return WRONG
    return WORKS


@feature(
    "savepoint",
    "SAVEPOINT and SET LOCAL within a transaction",
    group=TRANSACTIONS,
    claim="what was set locally holds for its transaction, and a rollback to a savepoint gives back what was before",
)
def savepoint(ctx: CheckContext) -> Outcome:
    client = _beginner(ctx)
    begun = simple(client, "BEGIN")
    if begun.is_error:
        return fails(begun)
    spoilt = ctx.sabotaged and works_here(ctx, "transaction")
    last = simple(
        client,
        "SELECT set_config('app.tenant', 'outer', true); SAVEPOINT a; SELECT set_config('app.tenant', 'inner', true);"
        f"SET LOCAL ROLE harness_tenant; {'' if spoilt else 'ROLLBACK TO SAVEPOINT a;'}"
        "SELECT current_setting('app.tenant') || ' ' || current_user",
    )
    simple(client, "COMMIT")
    after = simple(client if ctx.sabotaged else neighbour(ctx, client), "SELECT current_user")
    if last.is_error:
        return fails(last)
    return WORKS if (last.value, after.value) == ("outer harness_app", "harness_app") else WRONG


@feature(
    "local-outside",
    "SET LOCAL outside a transaction block",
    group=TRANSACTIONS,
    claim="what is set locally outside a transaction block holds for the next statement",
)
def local_outside(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    pid = client.server_pid()
    client.value(f"SELECT set_config('app.tenant', 't1', {'false' if ctx.sabotaged else 'true'})")
    seen = client.value("SELECT current_setting('app.tenant', true)")
    ctx.probed("the client stays alone on its server connection", pid, client.server_pid())
    return WORKS if seen == "t1" else LOST


@feature(
    "local-residue",
    "trace of a local setting on its server connection",
    group=TRANSACTIONS,
    claim="a setting that another client made locally is as unset as before: NULL, and not an empty text",
)
def local_residue(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    simple(client, "SELECT set_config('app.never_set', 'by one', true)")
    other = follower(ctx, client)
    works = works_here(ctx, "local-residue")
    if ctx.sabotaged and works:
        simple(other, "SELECT set_config('app.never_set', 'by the other', true)")
    name = "app.never_set" if not ctx.sabotaged or works else "app.never_set_by_anybody"
    seen = other.value(f"SELECT current_setting('{name}', true)")
    ctx.fact("the other client saw", seen)
    return WORKS if seen is None else WRONG if seen == "" else LEAKS


@feature(
    "two-phase",
    "two-phase commit",
    group=TRANSACTIONS,
    claim="a prepared transaction can be committed by its client later, wherever it is served then",
)
def two_phase(ctx: CheckContext) -> Outcome:
    client = _beginner(ctx)
    name = f"harness {ctx.database}"
    begun = simple(client, "BEGIN")
    if begun.is_error:
        return fails(begun)
    prepared = simple(client, f"INSERT INTO pooling.notes (body) VALUES ('both'); PREPARE TRANSACTION '{name}'")
    if prepared.is_error:
        return fails(prepared)
    works = works_here(ctx, "two-phase")
    with pressed(ctx, client) if works else contextlib.nullcontext():
        if ctx.sabotaged and works:
            ctx.admin.run(f"ROLLBACK PREPARED '{name}'")
        answer = simple(client, f"COMMIT PREPARED '{name}'")
    if answer.is_error:
        return fails(answer)
    return WORKS if ctx.admin.value("SELECT count(*) FROM pooling.notes") == 1 else LOST


@feature(
    "cursor",
    "WITHOUT HOLD cursor",
    group=TRANSACTIONS,
    claim="a cursor can be fetched from within its transaction",
)
def cursor(ctx: CheckContext) -> Outcome:
    client = _beginner(ctx)
    begun = simple(client, "BEGIN")
    if begun.is_error:
        return fails(begun)
    simple(client, "DECLARE pages CURSOR FOR SELECT generate_series(1, 3)")
    if ctx.sabotaged and works_here(ctx, "cursor"):
        simple(client, "CLOSE pages")
    answer = simple(client, "FETCH 2 FROM pages")
    simple(client, "COMMIT")
    return outcome_of(answer, right="1")


@feature(
    "temp-table-drop",
    "temporary table ON COMMIT DROP",
    group=TRANSACTIONS,
    claim="a temporary table that is dropped at commit serves its transaction, and leaves nothing for others",
)
def temp_table_drop(ctx: CheckContext) -> Outcome:
    client = _beginner(ctx)
    begun = simple(client, "BEGIN")
    if begun.is_error:
        return fails(begun)
    works = works_here(ctx, "temp-table-drop")
    rule = "DELETE ROWS" if ctx.sabotaged and works else "DROP"
    simple(client, f"CREATE TEMPORARY TABLE work ON COMMIT {rule} AS SELECT 'mine'::text AS word")
    answer = simple(client, "SELECT word FROM work")
    simple(client, "COMMIT")
    later = simple(neighbour(ctx, client) if ctx.mode in MOVING and works else client, "SELECT word FROM work")
    if answer.is_error:
        return fails(answer)
    return WORKS if answer.value == "mine" and later.sqlstate == "42P01" else LEAKS


@feature(
    "single-message",
    "several statements in one message",
    group=TRANSACTIONS,
    claim="statements that are sent in one message are one transaction: they see what was set locally, or none stays",
)
def single_message(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    seen = simple(
        client,
        f"SELECT set_config('app.tenant', 't1', {'true' if not ctx.sabotaged else 'false'});"
        "INSERT INTO pooling.notes (body) VALUES (current_setting('app.tenant')); SELECT 1 / 0",
    )
    whole = simple(
        client,
        f"BEGIN; SELECT set_config('app.tenant', 't2', true); {'' if not ctx.sabotaged else 'ROLLBACK;'}"
        "INSERT INTO pooling.notes (body) VALUES (current_setting('app.tenant')); COMMIT",
    )
    if seen.sqlstate != "22012":
        return fails(seen) if seen.is_error else WRONG
    if whole.is_error:
        return fails(whole)
    return WORKS if ctx.admin.rows("SELECT body FROM pooling.notes") == [("t2",)] else WRONG


@feature(
    "index-concurrently",
    "CREATE INDEX CONCURRENTLY",
    group=TRANSACTIONS,
    claim="an index can be created concurrently",
)
def index_concurrently(ctx: CheckContext) -> Outcome:
    client = ctx.dba()
    if ctx.sabotaged:
        ctx.owner.run("ALTER TABLE pooling.notes RENAME TO renamed")
    answer = extended(client, "CREATE INDEX CONCURRENTLY by_body ON pooling.notes (body)")
    if answer.is_error:
        return fails(answer)
    return (
        WORKS
        if ctx.admin.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'pooling.by_body'::regclass")
        else LOST
    )


@feature(
    "vanished-client",
    "client that vanishes in its transaction",
    group=TRANSACTIONS,
    claim="what a client that vanishes has not committed is rolled back, and its locks are free again",
)
def vanished_client(ctx: CheckContext) -> Outcome:
    client = _beginner(ctx)
    begun = simple(client, "BEGIN")
    if begun.is_error:
        return fails(begun)
    simple(client, f"INSERT INTO pooling.notes (body) VALUES ('lost'); SELECT pg_advisory_xact_lock({KEY})")
    if ctx.sabotaged and works_here(ctx, "vanished-client"):
        simple(client, "COMMIT")
    cut(client)
    try:
        until(ctx, HELD, 0, PATIENT_S)
    except NotExercisedError:
        return LEAKS
    other = ctx.plain_client()
    left = other.value("SELECT count(*) FROM pooling.notes")
    return WORKS if left == 0 else WRONG


@feature(
    "client-address",
    "inet_client_port: tells connections of clients apart",
    group=TRANSACTIONS,
    claim="two clients have two client ports in the server's eyes",
)
def client_address(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    mine = client.rows("SELECT inet_client_addr()::text, inet_client_port()")[0]
    other = neighbour(ctx, client)
    if ctx.sabotaged and not works_here(ctx, "client-address"):
        ctx.admin.value("SELECT pg_terminate_backend(%s)", [other.server_pid()])
        simple(other, "SELECT 1")
        other = ctx.plain_client()
    if ctx.sabotaged and works_here(ctx, "client-address"):
        other = client
    theirs = other.rows("SELECT inet_client_addr()::text, inet_client_port()")[0]
    ctx.fact("the server sees", {"one client at": ":".join(map(str, mine)), "another at": ":".join(map(str, theirs))})
    return WRONG if mine == theirs else WORKS
