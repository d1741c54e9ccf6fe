"""What a server tells before a login: TLS, the way to log in, and how it refuses what it does not know."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.recognition.findings import TROUBLE
from harness.recognition.versions import (
    AFTER_DIRECT_TLS,
    AFTER_NEGOTIATION,
    BEFORE_DIRECT_TLS,
    BEFORE_NEGOTIATION,
)
from harness.wire import PROTOCOL_3_2, ServerError, authentication_name, unverified_tls

if TYPE_CHECKING:
    from harness.recognition.chain import Chain
    from harness.recognition.findings import Notes
    from harness.wire import Wire

_LOOK_S = 2.0
#: a name that no server knows; without a dot, because PostgreSQL takes any name with one
NOBODYS = "harness_unknown_parameter"
_PGBOUNCER = re.compile(r"unsupported startup parameter")
_PROTOCOL_VIOLATION = "08P01"
_UNDEFINED_OBJECT = "42704"


def look_at_tls(chain: Chain, notes: Notes, fact: str) -> None:
    """Find whether TLS is offered, and used by libpq."""
    if chain.route.address.is_unix:
        notes.certain(fact, "refused", "a Unix socket has no TLS")
        return
    wire = chain.dial(_LOOK_S)
    try:
        offered = wire.offers_tls()
    finally:
        chain.drop(wire)
    answer = f"SSLRequest was answered by {'S' if offered else 'N'}"
    if chain.route.tls:
        notes.certain(fact, "used", f"{answer}, and libpq's connection is encrypted")
    elif offered:
        notes.certain(fact, "offered", f"{answer}, but libpq's connection is not encrypted")
    else:
        notes.certain(fact, "refused", answer)


def look_at_login(chain: Chain, notes: Notes, fact: str) -> None:
    """Find what a login is asked for. No password is given."""
    wire, asked = chain.greet(within_s=_LOOK_S)
    chain.drop(wire)
    name = authentication_name(asked)
    extra = " (trust, peer, ident or a client certificate)" if name == "nothing" else ""
    notes.certain(fact, name, f"the first Authentication message of a raw login asks for {name}{extra}")


def look_at_product(chain: Chain, notes: Notes) -> list[str]:
    """Find PgBouncer by its refusal of an unknown startup parameter, and bounds of its version.

    :returns: bounds such as ">= 1.23".
    """
    if _PGBOUNCER.search(said := _refusal(chain, {NOBODYS: "1"})):
        notes.certain("product", "PgBouncer", f"an unknown startup parameter is refused in its words: {said}")
    elif "odyssey:" in said:
        notes.certain("product", "Odyssey", f"its errors are prefixed: {said}")
    if notes.value("product") != "PgBouncer":
        return []
    refused = _PGBOUNCER.search(_refusal(chain, {"replication": "false"}))
    bounds = BEFORE_NEGOTIATION if refused or not _negotiates(chain) else AFTER_NEGOTIATION
    if notes.value("tls_client") in {"used", "offered"}:
        return bounds + (AFTER_DIRECT_TLS if _speaks_tls_at_once(chain) else BEFORE_DIRECT_TLS)
    return bounds


def look_for_pgpool(session: Wire, notes: Notes) -> bool:
    """Ask an idle session for what only Pgpool-II knows, and say whether it is that."""
    try:
        ((version,),) = session.query("SHOW pool_version")
    except ServerError:
        return False
    notes.certain("product", "Pgpool-II", f"SHOW pool_version is answered by {version}")
    notes.certain("version", (version or "").split(" ")[0], "SHOW pool_version")
    return True


def look_at_other_products(chain: Chain, notes: Notes) -> None:
    """Name what is neither known by its greeting nor by its console."""
    if notes.value("product"):
        return
    if notes.value("pooler") == "no":
        try:
            chain.drop(chain.open({NOBODYS: "1"}))
        except ServerError as error:
            if error.sqlstate == _UNDEFINED_OBJECT:
                note = notes.certain if notes.is_certain("pooler") else notes.likely
                note("product", "PostgreSQL", f"an unknown startup parameter is refused by: {error.what}")
                note("version", notes.value("server_version"), "the server's own setting")
        return
    try:
        wire, _ = chain.greet(dbname="harness_no_such_database", within_s=_LOOK_S)
    except ServerError as error:
        if "odyssey:" in error.what:
            notes.certain("product", "Odyssey", f"its errors are prefixed: {error.what}")
            return
    else:
        chain.drop(wire)
    if notes.value("pooler") == "yes":
        notes.likely("product", "unknown pooler", "none of the signs of the products that are known was seen")


def _negotiates(chain: Chain) -> bool:
    """Say whether a newer protocol version is answered, and not refused."""
    try:
        wire, _ = chain.greet(version=PROTOCOL_3_2, within_s=_LOOK_S)
    except TROUBLE:
        return False
    chain.drop(wire)
    return wire.negotiated is not None


def _refusal(chain: Chain, parameters: dict[str, str]) -> str:
    """Return why the server refuses these parameters before it asks for a password; "" when it does not."""
    try:
        wire, _ = chain.greet(parameters, within_s=_LOOK_S)
    except ServerError as error:
        return error.what if error.sqlstate == _PROTOCOL_VIOLATION or "odyssey:" in error.what else ""
    except TROUBLE:
        return ""
    chain.drop(wire)
    return ""


def _speaks_tls_at_once(chain: Chain) -> bool:
    """Try TLS without asking first (sslnegotiation=direct), which PgBouncer knows from 1.25 on."""
    context = unverified_tls()
    context.set_alpn_protocols(["postgresql"])
    try:
        wire = chain.dial(_LOOK_S)
    except TROUBLE:
        return False
    try:
        wire.encrypt(context)
    except TROUBLE:
        return False
    else:
        return True
    finally:
        chain.drop(wire)
