"""The server process behind a session, and the evidence for a pooler between the client and the server."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.versions import version_in

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.sessions import Sessions
    from harness.wire import Wire

# Names are qualified, because a search_path may hide the catalog's. Times are microseconds since 1970, because their
# text depends on settings of the session.
_SERVED_SESSION = """\
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
#: a pooler may need a moment to reset a server connection before it uses the connection again
_LOGINS = 4


class ServedSession(Struct, frozen=True, kw_only=True):
    """A session, and the server process that served one of its queries. Times are the server's, in microseconds."""

    announced_pid: int | None
    pid: int
    postmaster_start_us: int
    now_us: int
    #: None if the role may not see it
    backend_start_us: int | None
    in_recovery: bool
    version: str
    isolation: str
    #: whether the client port that the server sees is the local port of this session
    is_own_socket: bool
    #: t, f, or "" if the role may not see it
    tls: str
    #: the client address that the server sees; "" for a Unix socket
    client_address: str = ""


def served_session(wire: Wire) -> ServedSession:
    """Query the server process of a session.

    :raises ServerError: when the server lacks PostgreSQL's catalog.
    """
    row = (value or "" for value in wire.query(_SERVED_SESSION)[0])
    pid, start, now, backend, recovery, version, isolation, port, tls, address = row
    return ServedSession(
        announced_pid=wire.announced_pid,
        pid=int(pid),
        postmaster_start_us=int(start),
        now_us=int(now),
        backend_start_us=int(backend) if backend else None,
        in_recovery=recovery == "t",
        version=version_in(version),
        isolation=isolation,
        is_own_socket=bool(port) and port == str(wire.own_port),
        tls=tls,
        client_address=address,
    )


def add_server_findings(served: ServedSession, findings: Findings) -> None:
    """Add what the server states about itself: version, recovery, isolation, TLS."""
    findings.certain("server_version", served.version, "the server's own setting")
    findings.certain("in_recovery", "yes" if served.in_recovery else "no", "pg_is_in_recovery()")
    # not the current value, which another client may have left on the server connection of a pooler
    how = "the value that sessions of this role begin with, apart from options of the connection string"
    findings.certain("default_transaction_isolation", served.isolation, how)
    if served.tls:
        value = "used" if served.tls == "t" else "not used"
        findings.certain("tls_server", value, f"pg_stat_ssl of the server process {served.pid}")
    else:
        findings.unknown("tls_server", "pg_stat_ssl does not show the session's own server process")


def judge_pooler(sessions: list[ServedSession]) -> tuple[str, bool, str]:
    """Judge whether a pooler is between the client and the server.

    :param sessions: at least two, in the order of their logins. Each was queried before the next login, and all are
        still open.
    :returns: "yes", "no", or "" if the observations do not decide it; whether that is certain; the observation.
    """
    for session in sessions:
        if session.announced_pid is not None and session.announced_pid != session.pid:
            how = f"the login announced the pid {session.announced_pid}, and the server process is {session.pid}"
            return "yes", True, how
    for before, after in pairwise(sessions):
        if after.pid == before.pid:
            return "yes", True, f"two sessions at a time were served by one server process, {after.pid}"
        if after.backend_start_us is not None and after.backend_start_us < before.now_us:
            return "yes", True, f"the server process {after.pid} is older than the login that it serves"
    if any(session.announced_pid is None for session in sessions):
        return "", False, "the logins announced no pid to compare with the server's"
    pids = ", ".join(str(session.pid) for session in sessions)
    how = f"{len(sessions)} logins announced the pids that serve them ({pids}), each younger than its login"
    if all(session.is_own_socket for session in sessions):
        return "no", True, f"{how}; and the server sees our own ports as the client ports"
    return "no", False, f"{how}; a pooler that opens a server connection for each login would look the same"


def observe_reuse(sessions: Sessions) -> str:
    """Log in and out several times, and look for a server process that outlives its session.

    :returns: the observation; "" if no process did.
    """
    before_us: int | None = None
    for _ in range(_LOGINS):
        wire = sessions.open()
        served = served_session(wire)
        sessions.drop(wire)
        if before_us is not None and served.backend_start_us is not None and served.backend_start_us < before_us:
            return f"the server process {served.pid} is older than a login that it serves"
        before_us = served.now_us
    return ""
