"""The probe of the direct address: whether it has no pooler, and whether it ends at the server of the chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.recognition.server import ServedSession, judge_pooler, served_session

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.sessions import Sessions

_SERVER_PROCESS = """\
SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) {pid}
    AND (EXTRACT(epoch FROM backend_start) * 1000000)::pg_catalog.int8 OPERATOR(pg_catalog.=) {start}"""


def probe_direct(served: ServedSession, direct: Sessions, findings: Findings) -> str:
    """Find whether the direct address has no pooler, and whether it ends at the server that serves the chain.

    :param served: a session through the chain, which is still open.
    :returns: the client address that the server sees for the direct session; "" if it is another server.
    """
    wire = direct.open()
    first = served_session(wire)
    judged, is_certain, how = judge_pooler([first, served_session(direct.open())])
    add = findings.certain if is_certain else findings.likely
    if judged:
        add("direct", "no" if judged == "yes" else "yes", how)
    else:
        findings.unknown("direct", how)
    findings.certain("direct_server_version", first.version, "the server's own setting")
    if served.postmaster_start_us != first.postmaster_start_us:
        findings.certain("same_server", "no", "the two servers were started at different times")
    elif served.backend_start_us is not None and wire.query(
        _SERVER_PROCESS.format(pid=served.pid, start=served.backend_start_us)
    ):
        how = f"the direct address shows the process {served.pid} that serves the chain, with the same start time"
        findings.certain("same_server", "yes", how)
    else:
        findings.likely("same_server", "yes", "both were started at the same microsecond")
    return first.client_address if findings.value("same_server") == "yes" else ""
