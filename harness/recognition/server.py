"""What the server at the end says about itself, and whether a pooler is in between."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from harness.recognition.chain import Chain
    from harness.recognition.findings import Notes
    from harness.wire import Wire

# Names are qualified: a search_path may hide the catalog's. Times are microseconds since 1970, because a text
# depends on settings that a session may have of its own.
_ABOUT = """\
SELECT pg_catalog.pg_backend_pid(),
    (EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8,
    (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8,
    (EXTRACT(epoch FROM a.backend_start) * 1000000)::pg_catalog.int8,
    pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version'),
    (SELECT reset_val FROM pg_catalog.pg_settings
     WHERE name OPERATOR(pg_catalog.=) 'default_transaction_isolation'), pg_catalog.inet_client_port(), s.ssl,
    pg_catalog.host(pg_catalog.inet_client_addr())
FROM (SELECT 1) AS one
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
LEFT JOIN pg_catalog.pg_stat_ssl AS s ON s.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"""
_BACKEND = """\
SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) {pid}
    AND (EXTRACT(epoch FROM backend_start) * 1000000)::pg_catalog.int8 OPERATOR(pg_catalog.=) {start}"""


#: a pooler may take a moment to clean a connection before it hands it out again
_LOGINS = 4


class Served(Struct, frozen=True, kw_only=True):
    """A session, and the server process that served one query of it. Times are the server's own, in microseconds."""

    told_pid: int | None
    pid: int
    postmaster_start_us: int
    now_us: int
    #: None when the role may not see it
    backend_start_us: int | None
    in_recovery: bool
    version: str
    isolation: str
    #: whether the server's other end of the socket is our own
    is_own_socket: bool
    #: t, f, or "" when the role may not see it
    tls: str
    #: where the server sees the session come from; "" for a Unix socket
    client_address: str = ""


def ask_about(wire: Wire) -> Served:
    """Ask a session about its server. :raises ServerError: when that is not PostgreSQL enough to answer."""
    answer = (each or "" for each in wire.query(_ABOUT)[0])
    pid, start, now, backend, recovery, version, isolation, port, tls, address = answer
    return Served(
        told_pid=wire.told_pid,
        pid=int(pid),
        postmaster_start_us=int(start),
        now_us=int(now),
        backend_start_us=int(backend) if backend else None,
        in_recovery=recovery == "t",
        version=version.split(" ")[0],
        isolation=isolation,
        is_own_socket=bool(port) and port == str(wire.own_port),
        tls=tls,
        client_address=address,
    )


def note_server(served: Served, notes: Notes) -> None:
    notes.certain("server_version", served.version, "the server's own setting")
    notes.certain("in_recovery", "yes" if served.in_recovery else "no", "pg_is_in_recovery()")
    # not the setting in force: behind a pooler another client may have left it
    how = "what a session of this role begins with, whatever others set since; options of the connection string aside"
    notes.certain("default_transaction_isolation", served.isolation, how)
    if served.tls:
        value = "used" if served.tls == "t" else "not used"
        notes.certain("tls_server", value, f"pg_stat_ssl of the server process {served.pid}")
    else:
        notes.unknown("tls_server", "pg_stat_ssl shows nothing about the session's own server process")


def judge_pooler(sessions: list[Served]) -> tuple[str, bool, str]:
    """Say whether a pooler is in between.

    :param sessions: at least two, in the order of their logins; each was asked before the next logged in, and all
        are still open.
    :returns: yes, no, or "" when nothing tells; whether that is certain; and by which observation.
    """
    for each in sessions:
        if each.told_pid is not None and each.told_pid != each.pid:
            return "yes", True, f"the login was told the pid {each.told_pid}, and the server process is {each.pid}"
    for before, after in pairwise(sessions):
        if after.pid == before.pid:
            return "yes", True, f"two sessions at a time were served by one server process, {after.pid}"
        if after.backend_start_us is not None and after.backend_start_us < before.now_us:
            return "yes", True, f"the server process {after.pid} is older than the login that it serves"
    if any(each.told_pid is None for each in sessions):
        return "", False, "the logins were told no pid to compare with the server's"
    pids = ", ".join(str(each.pid) for each in sessions)
    how = f"{len(sessions)} logins were told the pids that serve them ({pids}), each younger than its login"
    if all(each.is_own_socket for each in sessions):
        return "no", True, f"{how}; and the server sees our own ports at the other end"
    return "no", False, f"{how}; a pooler that passes logins through and uses no connection twice would look the same"


def sees_reuse(chain: Chain) -> str:
    """Log in, out and in again a few times; say how a server process outlived its session, "" when none did."""
    before_us: int | None = None
    for _ in range(_LOGINS):
        wire = chain.open()
        served = ask_about(wire)
        chain.drop(wire)
        if before_us is not None and served.backend_start_us is not None and served.backend_start_us < before_us:
            return f"the server process {served.pid} is older than a login that it serves"
        before_us = served.now_us
    return ""


def look_at_direct(served: Served, direct: Chain, notes: Notes) -> str:
    """Find whether the direct address has no pooler, and whether it ends at the server that serves the chain.

    :returns: where that server sees the direct session come from; "" when it is another server.
    """
    wire = direct.open()
    first = ask_about(wire)
    judged, is_certain, how = judge_pooler([first, ask_about(direct.open())])
    note = notes.certain if is_certain else notes.likely
    if judged:
        note("direct", "no" if judged == "yes" else "yes", how)
    else:
        notes.unknown("direct", how)
    notes.certain("direct_server_version", first.version, "the server's own setting")
    if served.postmaster_start_us != first.postmaster_start_us:
        notes.certain("same_server", "no", "the two servers were started at different times")
    elif served.backend_start_us is not None and wire.query(
        _BACKEND.format(pid=served.pid, start=served.backend_start_us)
    ):
        how = f"the process {served.pid} that serves the chain is seen from the direct address, started at one instant"
        notes.certain("same_server", "yes", how)
    else:
        notes.likely("same_server", "yes", "both were started at the same microsecond")
    return first.client_address if notes.value("same_server") == "yes" else ""
