"""What PgBouncer's own admin console says, and whether it is the console of the pooler in the chain.

The console knows the simple protocol only, and no transactions (https://www.pgbouncer.org/usage.html#admin-console).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.recognition.notes import TROUBLE

if TYPE_CHECKING:
    from harness.recognition.chain import Chain
    from harness.recognition.notes import Notes
    from harness.wire import Wire

_SETTINGS = (
    "max_prepared_statements",
    "max_client_conn",
    "server_reset_query",
    "server_reset_query_always",
    "server_lifetime",
    "query_wait_timeout",
    "ignore_startup_parameters",
    "track_extra_parameters",
)


def ask_console(console: Chain, chain: Chain, server_pid: int, notes: Notes) -> None:
    """Note what the console says; it is certain only when it knows the server process that serves the chain.

    :param server_pid: the process that serves an open session of the chain.
    """
    wire = console.open(dbname="pgbouncer")
    version = wire.table("SHOW VERSION")[0]["version"].removeprefix("PgBouncer ")
    is_ours = any(row.get("remote_pid") == str(server_pid) for row in wire.table("SHOW SERVERS"))
    where = "the admin console" if is_ours else f"an admin console that does not know the server process {server_pid}"
    note = notes.certain if is_ours else notes.likely
    note("product", "PgBouncer", f"{where}: SHOW VERSION")
    note("version", version, f"{where}: SHOW VERSION")
    shown = {row["key"]: row["value"] for row in wire.table("SHOW CONFIG")}
    for name in _SETTINGS:
        if name in shown:
            note(name, shown[name] or "none", f"{where}: SHOW CONFIG")
    try:
        _pool(wire, chain, shown, where, notes, certain=is_ours)
    except TROUBLE as error:
        notes.unknown("pool_size", f"{where}: {error.what}")


def _pool(wire: Wire, chain: Chain, shown: dict[str, str], where: str, notes: Notes, *, certain: bool) -> None:
    """Note mode and size of the very pool: a database or a user may have its own."""
    note = notes.certain if certain else notes.likely
    user, dbname = chain.route.user, chain.route.dbname
    pools = [row for row in wire.table("SHOW POOLS") if (row["database"], row["user"]) == (dbname, user)]
    databases = [row for row in wire.table("SHOW DATABASES") if row["name"] == dbname]
    mode = pools[0].get("pool_mode") if pools else shown.get("pool_mode")
    if mode:
        note("pool_mode", mode, f"{where}: {'SHOW POOLS' if pools else 'SHOW CONFIG'}")
    users = [row for row in wire.table("SHOW USERS") if row["name"] == user]
    size = (users[0].get("pool_size") if users else "") or (databases[0].get("pool_size") if databases else "")
    if size:
        note("pool_size", size, f"{where}: SHOW DATABASES and SHOW USERS")
