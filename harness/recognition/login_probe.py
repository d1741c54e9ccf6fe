"""The probes of the login: TLS, the authentication method, and the messages that identify a product and its version."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.errors import TimedOutError
from harness.recognition.findings import PROBE_ERRORS
from harness.recognition.versions import DIRECT_TLS, NEGOTIATION, SQLSTATES
from harness.versions import version_in
from harness.wire import PROTOCOL_3_2, ServerError, authentication_name, unverified_tls

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.sessions import Sessions
    from harness.recognition.signs import Signs
    from harness.recognition.versions import Versions
    from harness.wire import Wire

#: the patience with a fast chain
_TIMEOUT_S = 2.0
#: unknown to every server; without a dot, because PostgreSQL accepts any name with a dot
UNKNOWN_PARAMETER = "harness_unknown_parameter"
_UNKNOWN_DATABASE = "harness_no_such_database"
_CONSOLE_DATABASE = "pgbouncer"
_MISSING_DATABASE = re.compile(rf'database "{_UNKNOWN_DATABASE}" does not exist')
_PROTOCOL_VIOLATION = "08P01"
_UNDEFINED_OBJECT = "42704"
_PGPOOL_COMMANDS = ("SHOW pool_version", "PGPOOL SHOW port")
_UNSUPPORTED = "unsupported startup parameter"
_ANNOUNCED = "pgbouncer."


def probe_tls(sessions: Sessions, findings: Findings, fact: str) -> None:
    """Find whether the server offers TLS, and whether libpq uses it."""
    if sessions.route.address.is_unix:
        findings.certain(fact, "refused", "a Unix socket has no TLS")
        return
    wire = sessions.connect(sessions.pace.patience_s(_TIMEOUT_S))
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
    wire, request = sessions.start_login(within_s=sessions.pace.patience_s(_TIMEOUT_S))
    sessions.drop(wire)
    name = authentication_name(request)
    extra = " (trust, peer, ident or a client certificate)" if name == "nothing" else ""
    findings.certain(fact, name, f"the first Authentication message of a raw login asks for {name}{extra}")


def probe_startup(chain: Sessions, signs: Signs, versions: Versions, findings: Findings) -> None:
    """Find the signs in the refusal of an unknown startup parameter, and features that show PgBouncer's version."""
    if error := _refusal(chain, {UNKNOWN_PARAMETER: "1"}):
        signs.error(error)
    if "PgBouncer" not in signs.products:
        return
    refused = _refusal(chain, {"replication": "false"})
    if refused and _UNSUPPORTED in refused:
        versions.lacks(NEGOTIATION)
    elif refused == "" and (negotiates := _negotiates(chain)) is not None:
        (versions.has if negotiates else versions.lacks)(NEGOTIATION)
    if findings.value("tls_client") in {"used", "offered"} and (accepts := _accepts_direct_tls(chain)) is not None:
        (versions.has if accepts else versions.lacks)(DIRECT_TLS)


def add_announced(wire: Wire, signs: Signs, versions: Versions, findings: Findings) -> None:
    """Add what PgBouncer says about itself at the login from 1.26 on, and the notices of the login.

    Source: the changelog of 1.26.0, https://www.pgbouncer.org/changelog.html

    :param wire: a session after its login.
    """
    versions.announced(wire.statuses)
    announced = [(name, value) for name, value in wire.statuses if name.startswith(_ANNOUNCED)]
    if announced:
        text = ", ".join(f"{name} {value}" for name, value in announced)
        signs.stated("PgBouncer", f"the login announced {text}")
    limits = [value for name, value in announced if name == f"{_ANNOUNCED}max_prepared_statements"]
    if limits:
        findings.certain("max_prepared_statements", limits[-1], "the login announced it")
    if wire.notices:
        findings.certain("login_notice", " / ".join(wire.notices), "the notices that arrived at the login")


def probe_databases(chain: Sessions, signs: Signs, versions: Versions, findings: Findings) -> None:
    """Find the signs in logins to two databases: an unknown one, and the one of PgBouncer's console."""
    error, _ = _login_to(chain, _UNKNOWN_DATABASE)
    if error is not None:
        signs.error(error.what)
        # PostgreSQL's own message, which a pooler forwards with its SQLSTATE or with another
        if _MISSING_DATABASE.search(error.message) and error.sqlstate == _PROTOCOL_VIOLATION:
            versions.lacks(SQLSTATES)
    if "PgBouncer" not in signs.products:
        return
    error, version = _login_to(chain, _CONSOLE_DATABASE)
    if error is not None:
        signs.error(error.what)
    if version:  # the role may use the console
        how = "SHOW VERSION in the console of the pooler that the client logs in to"
        signs.stated("PgBouncer", how)
        findings.certain("version", version, how)


def probe_pgpool(session: Wire, signs: Signs, findings: Findings) -> bool:
    """Identify Pgpool-II by the commands that only Pgpool-II answers; return whether it answered one.

    :param session: an idle session.
    """
    found = False
    for command in _PGPOOL_COMMANDS:
        try:
            ((answer,),) = session.query(command)
        except ServerError:
            break
        found = True
        signs.answered("Pgpool-II", command, answer or "")
        if command == _PGPOOL_COMMANDS[0]:
            findings.certain("version", version_in(answer or ""), command)
    return found


def add_postgresql(chain: Sessions, findings: Findings) -> None:
    """Identify PostgreSQL without a pooler, by its refusal of an unknown startup parameter."""
    try:
        chain.drop(chain.open({UNKNOWN_PARAMETER: "1"}))
    except ServerError as error:
        if error.sqlstate == _UNDEFINED_OBJECT:
            add = findings.certain if findings.is_certain("pooler") else findings.likely
            add("product", "PostgreSQL", f"an unknown startup parameter is refused by: {error.what}")
            add("version", findings.value("server_version"), "the server's own setting")


def _login_to(chain: Sessions, dbname: str) -> tuple[ServerError | None, str]:
    """Log in to another database.

    :returns: the server's error, or None; the version of PgBouncer, if the database is its console.
    """
    try:
        wire = chain.open(dbname=dbname, within_s=chain.pace.patience_s(_TIMEOUT_S))
    except ServerError as error:
        return error, ""
    except PROBE_ERRORS:
        return None, ""
    try:
        shown = wire.table("SHOW VERSION") if dbname == _CONSOLE_DATABASE else []
    except PROBE_ERRORS:
        shown = []
    finally:
        chain.drop(wire)
    text = shown[0].get("version", "") if shown else ""
    return None, version_in(text) if text.startswith("PgBouncer") else ""


def _refusal(chain: Sessions, parameters: dict[str, str]) -> str | None:
    """Return the error for startup parameters before the password is requested.

    :returns: "" if the login goes on; None if the answer did not arrive in time.
    """
    try:
        wire, _ = chain.start_login(parameters, within_s=chain.pace.patience_s(_TIMEOUT_S))
    except ServerError as error:
        return error.what
    except TimedOutError:
        return None
    except PROBE_ERRORS:
        return ""
    chain.drop(wire)
    return ""


def _negotiates(chain: Sessions) -> bool | None:
    """Return whether the server negotiates a newer protocol version instead of refusing it; None if it is too slow."""
    try:
        wire, _ = chain.start_login(version=PROTOCOL_3_2, within_s=chain.pace.patience_s(_TIMEOUT_S))
    except TimedOutError:
        return None
    except PROBE_ERRORS:
        return False
    chain.drop(wire)
    return wire.negotiated is not None


def _accepts_direct_tls(chain: Sessions) -> bool | None:
    """Return whether the server accepts TLS without an SSLRequest, as PgBouncer 1.25 does; None if it is too slow."""
    context = unverified_tls()
    context.set_alpn_protocols(["postgresql"])
    try:
        wire = chain.connect(chain.pace.patience_s(_TIMEOUT_S))
    except PROBE_ERRORS:
        return None
    try:
        wire.encrypt(context)
    except TimedOutError:
        return None
    except PROBE_ERRORS:
        return False
    else:
        return True
    finally:
        chain.drop(wire)
