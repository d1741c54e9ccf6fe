"""What PgBouncer's own admin console says, and whether it is the console of the pooler in the chain.

The console knows the simple protocol only, and no transactions (https://www.pgbouncer.org/usage.html#admin-console).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.recognition.findings import TROUBLE

if TYPE_CHECKING:
    from harness.recognition.chain import Chain
    from harness.recognition.findings import Notes
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
    """Note what the console says, where it knows the server process that serves the chain: else it is another's.

    :param server_pid: the process that serves an open session of the chain.
    """
    wire = console.open(dbname="pgbouncer")
    version = wire.table("SHOW VERSION")[0]["version"].removeprefix("PgBouncer ")
    if not any(row.get("remote_pid") == str(server_pid) for row in wire.table("SHOW SERVERS")):
        for fact in ("pool_mode", "pool_size", *_SETTINGS):
            notes.unknown(fact, f"the admin console does not know the server process {server_pid}: it is another's")
        return
    where = "the admin console"
    notes.certain("product", "PgBouncer", f"{where}: SHOW VERSION")
    notes.certain("version", version, f"{where}: SHOW VERSION")
    shown = {row["key"]: row["value"] for row in wire.table("SHOW CONFIG")}
    for name in _SETTINGS:
        if name in shown:
            notes.certain(name, shown[name] or "none", f"{where}: SHOW CONFIG")
    try:
        _pool(wire, chain, shown, where, notes)
    except TROUBLE as error:
        notes.unknown("pool_size", f"{where}: {error.what}")


def _pool(wire: Wire, chain: Chain, shown: dict[str, str], where: str, notes: Notes) -> None:
    """Note mode and size of the very pool: a database or a user may have its own."""
    user, dbname = chain.route.user, chain.route.dbname
    pools = [row for row in wire.table("SHOW POOLS") if (row["database"], row["user"]) == (dbname, user)]
    databases = [row for row in wire.table("SHOW DATABASES") if row["name"] == dbname]
    mode = pools[0].get("pool_mode") if pools else shown.get("pool_mode")
    if mode:
        notes.certain("pool_mode", mode, f"{where}: {'SHOW POOLS' if pools else 'SHOW CONFIG'}")
    users = [row for row in wire.table("SHOW USERS") if row["name"] == user]
    size = (users[0].get("pool_size") if users else "") or (databases[0].get("pool_size") if databases else "")
    if size:
        notes.certain("pool_size", size, f"{where}: SHOW DATABASES and SHOW USERS")
