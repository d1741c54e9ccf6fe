"""The probes of the login: TLS, the authentication method, and the error messages that identify a product."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.recognition.findings import PROBE_ERRORS
from harness.recognition.versions import (
    AFTER_DIRECT_TLS,
    AFTER_NEGOTIATION,
    BEFORE_DIRECT_TLS,
    BEFORE_NEGOTIATION,
)
from harness.wire import PROTOCOL_3_2, ServerError, authentication_name, unverified_tls

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.sessions import Sessions
    from harness.wire import Wire

_TIMEOUT_S = 2.0
#: unknown to every server; without a dot, because PostgreSQL accepts any name with a dot
UNKNOWN_PARAMETER = "harness_unknown_parameter"
_PGBOUNCER = re.compile(r"unsupported startup parameter")
_PROTOCOL_VIOLATION = "08P01"
_UNDEFINED_OBJECT = "42704"


def probe_tls(sessions: Sessions, findings: Findings, fact: str) -> None:
    """Find whether the server offers TLS, and whether libpq uses it."""
    if sessions.route.address.is_unix:
        findings.certain(fact, "refused", "a Unix socket has no TLS")
        return
    wire = sessions.connect(_TIMEOUT_S)
    try:
        offered = wire.offers_tls()
    finally:
        sessions.drop(wire)
    answer = f"SSLRequest was answered by {'S' if offered else 'N'}"
    if sessions.route.tls:
        findings.certain(fact, "used", f"{answer}, and libpq's connection is encrypted")
    elif offered:
        findings.certain(fact, "offered", f"{answer}, but libpq's connection is not encrypted")
    else:
        findings.certain(fact, "refused", answer)


def probe_authentication(sessions: Sessions, findings: Findings, fact: str) -> None:
    """Find the authentication method that a login is asked for, without sending a password."""
    wire, request = sessions.start_login(within_s=_TIMEOUT_S)
    sessions.drop(wire)
    name = authentication_name(request)
    extra = " (trust, peer, ident or a client certificate)" if name == "nothing" else ""
    findings.certain(fact, name, f"the first Authentication message of a raw login asks for {name}{extra}")


def probe_product(chain: Sessions, findings: Findings) -> list[str]:
    """Identify PgBouncer and Odyssey by their error for an unknown startup parameter.

    :returns: bounds of PgBouncer's version, such as ">= 1.23".
    """
    if _PGBOUNCER.search(error := _refusal(chain, {UNKNOWN_PARAMETER: "1"})):
        findings.certain("product", "PgBouncer", f"an unknown startup parameter gives PgBouncer's error: {error}")
    elif "odyssey:" in error:
        findings.certain("product", "Odyssey", f"its errors have the prefix odyssey: {error}")
    if findings.value("product") != "PgBouncer":
        return []
    refused = _PGBOUNCER.search(_refusal(chain, {"replication": "false"}))
    bounds = BEFORE_NEGOTIATION if refused or not _negotiates(chain) else AFTER_NEGOTIATION
    if findings.value("tls_client") in {"used", "offered"}:
        return bounds + (AFTER_DIRECT_TLS if _accepts_direct_tls(chain) else BEFORE_DIRECT_TLS)
    return bounds


def probe_pgpool(session: Wire, findings: Findings) -> bool:
    """Identify Pgpool-II by `SHOW pool_version`, which only Pgpool-II answers; return whether it did.

    :param session: an idle session.
    """
    try:
        ((version,),) = session.query("SHOW pool_version")
    except ServerError:
        return False
    findings.certain("product", "Pgpool-II", f"SHOW pool_version is answered by {version}")
    findings.certain("version", (version or "").split(" ")[0], "SHOW pool_version")
    return True


def probe_other_products(chain: Sessions, findings: Findings) -> None:
    """Identify the product if neither its errors nor its console did so before."""
    if findings.value("product"):
        return
    if findings.value("pooler") == "no":
        try:
            chain.drop(chain.open({UNKNOWN_PARAMETER: "1"}))
        except ServerError as error:
            if error.sqlstate == _UNDEFINED_OBJECT:
                add = findings.certain if findings.is_certain("pooler") else findings.likely
                add("product", "PostgreSQL", f"an unknown startup parameter is refused by: {error.what}")
                add("version", findings.value("server_version"), "the server's own setting")
        return
    try:
        wire, _ = chain.start_login(dbname="harness_no_such_database", within_s=_TIMEOUT_S)
    except ServerError as error:
        if "odyssey:" in error.what:
            findings.certain("product", "Odyssey", f"its errors have the prefix odyssey: {error.what}")
            return
    else:
        chain.drop(wire)
    if findings.value("pooler") == "yes":
        findings.likely("product", "unknown pooler", "no sign of a known product was observed")


def _negotiates(chain: Sessions) -> bool:
    """Return whether the server negotiates a newer protocol version instead of refusing it."""
    try:
        wire, _ = chain.start_login(version=PROTOCOL_3_2, within_s=_TIMEOUT_S)
    except PROBE_ERRORS:
        return False
    chain.drop(wire)
    return wire.negotiated is not None


def _refusal(chain: Sessions, parameters: dict[str, str]) -> str:
    """Return the error for these startup parameters before the password is requested; "" without such an error."""
    try:
        wire, _ = chain.start_login(parameters, within_s=_TIMEOUT_S)
    except ServerError as error:
        return error.what if error.sqlstate == _PROTOCOL_VIOLATION or "odyssey:" in error.what else ""
    except PROBE_ERRORS:
        return ""
    chain.drop(wire)
    return ""


def _accepts_direct_tls(chain: Sessions) -> bool:
    """Return whether the server accepts TLS without an SSLRequest (sslnegotiation=direct), as PgBouncer 1.25 does."""
    context = unverified_tls()
    context.set_alpn_protocols(["postgresql"])
    try:
        wire = chain.connect(_TIMEOUT_S)
    except PROBE_ERRORS:
        return False
    try:
        wire.encrypt(context)
    except PROBE_ERRORS:
        return False
    else:
        return True
    finally:
        chain.drop(wire)
