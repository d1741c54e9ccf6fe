"""Pooling: transactions, and the settings, cursors, tables and locks that end with them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.occupation import MOVING, pid_of, settled, until
from harness.checks.record import NotExercisedError
from harness.checks.registry import SEVERAL_SERVER_CONNECTIONS
from harness.checks.server_connections import follower, neighbour, pressed
from harness.database import cut, own_port
from harness.libpq import extended, simple
from harness.suites.pooling.probes import LEAKS, LOST, TRANSACTIONS, WRONG, fails, outcome_of, probe, works_here
from harness.suites.pooling.sharing import HELD, KEY, PATIENT_S

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.database import Client
    from harness.model import Outcome


def _transaction_client(ctx: CheckContext) -> Client:
    """Connect the client of a transaction block; past the pooler if the control has to make a refused block work."""
    if ctx.sabotaged and not works_here(ctx, "transaction"):
        return ctx.direct_client()
    return settled(ctx)


@probe(
    "transaction",
    "transaction block",
    group=TRANSACTIONS,
    claim="a transaction block is one transaction on one server connection and can be rolled back",
)
def transaction(ctx: CheckContext) -> Outcome:
    past_the_pooler = ctx.sabotaged and not works_here(ctx, "transaction")
    client = ctx.direct_client() if past_the_pooler else ctx.plain_client()
    begun = simple(client, "BEGIN")
    if begun.is_error:
        ctx.fact("error that the client received", begun.message)
        return fails(begun)
    first = simple(client, "INSERT INTO pooling.notes (body) VALUES ('one') RETURNING pg_backend_pid()")
    if SEVERAL_SERVER_CONNECTIONS.given(ctx.topology):
        pid_of(ctx.plain_client())
    if ctx.sabotaged and works_here(ctx, "transaction"):
        simple(client, "COMMIT")
    second = simple(client, "SELECT pg_backend_pid()")
    simple(client, "ROLLBACK")
    ctx.probed(
        "two statements of one transaction, with another client in between",
        int(first.value or 0),
        int(second.value or 0),
    )
    if ctx.admin.value("SELECT count(*) FROM pooling.notes") != 0 or first.value != second.value:
        return WRONG
    return WORKS


@probe(
    "autocommit",
    "write outside a transaction block, by the extended protocol",
    group=TRANSACTIONS,
    claim="a write outside a transaction block is committed when the client gets its answer",
)
def autocommit(ctx: CheckContext) -> Outcome:
    works = works_here(ctx, "autocommit")
    client = ctx.direct_client() if ctx.sabotaged and not works else ctx.plain_client()
    answer = extended(client, "INSERT INTO pooling.notes (body) VALUES ('one')")
    if answer.is_error:
        return fails(answer)
    if ctx.sabotaged and works:
        ctx.admin.run("DELETE FROM pooling.notes")
    return WORKS if ctx.admin.value("SELECT count(*) FROM pooling.notes") == 1 else LOST


@probe(
    "savepoint",
    "SAVEPOINT and SET LOCAL in a transaction",
    group=TRANSACTIONS,
    claim="a local setting lasts until its transaction ends, and a rollback to a savepoint restores the earlier value",
)
def savepoint(ctx: CheckContext) -> Outcome:
    client = _transaction_client(ctx)
    begun = simple(client, "BEGIN")
    if begun.is_error:
        return fails(begun)
    skip_rollback = ctx.sabotaged and works_here(ctx, "transaction")
    last = simple(
        client,
        "SELECT set_config('app.tenant', 'outer', true); SAVEPOINT a; SELECT set_config('app.tenant', 'inner', true);"
        f"SET LOCAL ROLE harness_tenant; {'' if skip_rollback else 'ROLLBACK TO SAVEPOINT a;'}"
        "SELECT current_setting('app.tenant') || ' ' || current_user",
    )
    simple(client, "COMMIT")
    after = simple(client if ctx.sabotaged else neighbour(ctx, client), "SELECT current_user")
    if last.is_error:
        return fails(last)
    return WORKS if (last.value, after.value) == ("outer harness_app", "harness_app") else WRONG


@probe(
    "local-outside",
    "SET LOCAL outside a transaction block",
    group=TRANSACTIONS,
    claim="a local setting made outside a transaction block is in force for the next statement",
)
def local_outside(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    pid = client.server_pid()
    client.value(f"SELECT set_config('app.tenant', 't1', {'false' if ctx.sabotaged else 'true'})")
    tenant = client.value("SELECT current_setting('app.tenant', true)")
    ctx.probed("a lone client keeps its server connection", pid, client.server_pid())
    return WORKS if tenant == "t1" else LOST


@probe(
    "local-residue",
    "local setting: residue on its server connection",
    group=TRANSACTIONS,
    claim="a custom setting that another client set locally reads as NULL afterwards, not as an empty string",
)
def local_residue(ctx: CheckContext) -> Outcome:
    client = settled(ctx)
    simple(client, "SELECT set_config('app.never_set', 'by one', true)")
    other = follower(ctx, client)
    works = works_here(ctx, "local-residue")
    if ctx.sabotaged and works:
        simple(other, "SELECT set_config('app.never_set', 'by the other', true)")
    name = "app.never_set" if not ctx.sabotaged or works else "app.never_set_by_anybody"
    value = other.value(f"SELECT current_setting('{name}', true)")
    ctx.fact("value that the other client read", value)
    return WORKS if value is None else WRONG if value == "" else LEAKS


@probe(
    "two-phase",
    "two-phase commit",
    group=TRANSACTIONS,
    claim="a client can commit its prepared transaction later, on any server connection",
)
def two_phase(ctx: CheckContext) -> Outcome:
    client = _transaction_client(ctx)
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


@probe(
    "cursor",
    "WITHOUT HOLD cursor",
    group=TRANSACTIONS,
    claim="a client can fetch from a cursor in the cursor's transaction",
)
def cursor(ctx: CheckContext) -> Outcome:
    client = _transaction_client(ctx)
    begun = simple(client, "BEGIN")
    if begun.is_error:
        return fails(begun)
    simple(client, "DECLARE pages CURSOR FOR SELECT generate_series(1, 3)")
    if ctx.sabotaged and works_here(ctx, "cursor"):
        simple(client, "CLOSE pages")
    answer = simple(client, "FETCH 2 FROM pages")
    simple(client, "COMMIT")
    return outcome_of(answer, right="1")


@probe(
    "temp-table-drop",
    "temporary table ON COMMIT DROP",
    group=TRANSACTIONS,
    claim="a temporary table with ON COMMIT DROP works in its transaction and leaves nothing for other clients",
)
def temp_table_drop(ctx: CheckContext) -> Outcome:
    client = _transaction_client(ctx)
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


@probe(
    "single-message",
    "several statements in one message",
    group=TRANSACTIONS,
    claim="statements in one message are one transaction: they share local settings, and an error undoes them all",
)
def single_message(ctx: CheckContext) -> Outcome:
    client = ctx.plain_client()
    failed = simple(
        client,
        f"SELECT set_config('app.tenant', 't1', {'true' if not ctx.sabotaged else 'false'});"
        "INSERT INTO pooling.notes (body) VALUES (current_setting('app.tenant')); SELECT 1 / 0",
    )
    whole = simple(
        client,
        f"BEGIN; SELECT set_config('app.tenant', 't2', true); {'' if not ctx.sabotaged else 'ROLLBACK;'}"
        "INSERT INTO pooling.notes (body) VALUES (current_setting('app.tenant')); COMMIT",
    )
    if failed.sqlstate != "22012":
        return fails(failed) if failed.is_error else WRONG
    if whole.is_error:
        return fails(whole)
    return WORKS if ctx.admin.rows("SELECT body FROM pooling.notes") == [("t2",)] else WRONG


@probe(
    "index-concurrently",
    "CREATE INDEX CONCURRENTLY",
    group=TRANSACTIONS,
    claim="a client can create an index concurrently",
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


@probe(
    "vanished-client",
    "client that vanishes during its transaction",
    group=TRANSACTIONS,
    claim="when a client vanishes, its uncommitted changes are rolled back and its locks are released",
)
def vanished_client(ctx: CheckContext) -> Outcome:
    client = _transaction_client(ctx)
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
    remaining = other.value("SELECT count(*) FROM pooling.notes")
    return WORKS if remaining == 0 else WRONG


@probe(
    "client-address",
    "inet_client_addr and inet_client_port: attribute statements to a client",
    group=TRANSACTIONS,
    claim="the server sees the address and port of the client itself, and they differ between two clients",
)
def client_address(ctx: CheckContext) -> Outcome:
    """Compare the peer that the server sees with the one that it sees when the same program connects directly."""
    works = works_here(ctx, "client-address")
    direct = ctx.direct_client()
    client = direct if ctx.sabotaged and not works else settled(ctx)
    other = client if ctx.sabotaged and works else ctx.direct_client() if ctx.sabotaged else neighbour(ctx, client)
    directly, mine, theirs = (_peer(seen) for seen in (direct, client, other))
    # a container engine may translate the port, and does so for every connection
    translated = directly[1] != own_port(direct)
    ctx.fact(
        "peers that the server sees",
        {
            "one client": ":".join(map(str, mine)),
            "another client": ":".join(map(str, theirs)),
            "this program, connected directly": ":".join(map(str, directly)),
        },
    )
    ctx.fact("local port of the first client", own_port(client))
    attributed = mine[0] == directly[0] and (translated or mine[1] == own_port(client))
    return WORKS if attributed and mine != theirs else WRONG


def _peer(client: Client) -> tuple[str, int]:
    address, port = client.rows("SELECT host(inet_client_addr()), inet_client_port()")[0]
    return str(address), int(port or 0)
