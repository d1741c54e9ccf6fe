"""The probe of PgBouncer's admin console.

The console accepts the simple query protocol only, and has no transactions
(https://www.pgbouncer.org/usage.html#admin-console).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.recognition.findings import PROBE_ERRORS
from harness.versions import version_in

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.sessions import Sessions
    from harness.recognition.signs import Signs
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
_CONSOLE = "the admin console"


def probe_console(console: Sessions, chain: Sessions, server_pid: int, signs: Signs, findings: Findings) -> None:
    """Add what the console shows, if it belongs to the pooler of the chain.

    The console belongs to that pooler if it knows the server process that serves the chain.

    :param server_pid: the server process of an open session through the chain.
    :param signs: receives the product.
    """
    wire = console.open(dbname="pgbouncer")
    version = version_in(wire.table("SHOW VERSION")[0]["version"])
    if not any(row.get("remote_pid") == str(server_pid) for row in wire.table("SHOW SERVERS")):
        reason = f"{_CONSOLE} does not know the server process {server_pid}, so it belongs to another pooler"
        for fact in ("pool_mode", "pool_size", *_SETTINGS):
            findings.unknown(fact, reason)
        return
    signs.stated("PgBouncer", f"{_CONSOLE}: SHOW VERSION")
    findings.certain("version", version, f"{_CONSOLE}: SHOW VERSION")
    config = {row["key"]: row["value"] for row in wire.table("SHOW CONFIG")}
    for name in _SETTINGS:
        if name in config:
            findings.certain(name, config[name] or "none", f"{_CONSOLE}: SHOW CONFIG")
    try:
        _add_pool_findings(wire, chain, config, findings)
    except PROBE_ERRORS as error:
        findings.unknown("pool_size", f"{_CONSOLE}: {error.what}")


def _add_pool_findings(wire: Wire, chain: Sessions, config: dict[str, str], findings: Findings) -> None:
    """Add the mode and size of the chain's pool, because databases and users can override the configuration."""
    user, dbname = chain.route.user, chain.route.dbname
    pools = [row for row in wire.table("SHOW POOLS") if (row["database"], row["user"]) == (dbname, user)]
    databases = [row for row in wire.table("SHOW DATABASES") if row["name"] == dbname]
    mode = pools[0].get("pool_mode") if pools else config.get("pool_mode")
    if mode:
        findings.certain("pool_mode", mode, f"{_CONSOLE}: {'SHOW POOLS' if pools else 'SHOW CONFIG'}")
    users = [row for row in wire.table("SHOW USERS") if row["name"] == user]
    size = (users[0].get("pool_size") if users else "") or (databases[0].get("pool_size") if databases else "")
    if size:
        findings.certain("pool_size", size, f"{_CONSOLE}: SHOW DATABASES and SHOW USERS")
