"""The probe of startup parameters: refused, dropped, honoured, or kept when the server connection changes.

The probe never uses SET, because the value would stay on a pooled server connection for another client.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.recognition.findings import PARAMETERS
from harness.recognition.versions import INTERVAL_STYLE, OPTIONS, SEARCH_PATH
from harness.wire import ServerError, Wire

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.pool_probe import Move
    from harness.recognition.sessions import Sessions
    from harness.recognition.versions import Versions

#: the setting that shows a parameter, if it has another name
_SHOWN_AS = {"options": "statement_timeout"}
_MILLISECONDS = re.compile(r"statement_timeout=(\d+)$")

#: PgBouncer 1.18 leaves a client's application_name on the server connection (measured), and no startup parameter of
#: another client removes it; 1.24 resets it (measured)
STAYS_ON_OLD_PGBOUNCER = ("application_name",)

STATEMENT = "SELECT pg_catalog.pg_backend_pid(), " + ", ".join(
    f"pg_catalog.current_setting('{_SHOWN_AS.get(name, name)}')" for name in PARAMETERS
)


class ParameterSession(Struct, frozen=True, kw_only=True):
    """A session that logged in with startup parameters."""

    wire: Wire
    #: the requested value of each accepted parameter
    requested: dict[str, str]
    #: the error for each refused parameter
    refused: dict[str, str]
    #: the server process of the first query
    pid: int
    #: the values in the session, in the order of PARAMETERS
    values: tuple[str, ...]


def log_in_with_parameters(chain: Sessions, plain: Wire, *, omitted: tuple[str, ...] = ()) -> ParameterSession:
    """Log in with every parameter that the server does not refuse.

    :param plain: a session without parameters, which shows the defaults.
    :param omitted: parameters that are not requested.
    :raises ServerError: when a login is refused for another reason.
    """
    _, *defaults = plain.query(STATEMENT)[0]
    requested = {
        name: other if value == default else value
        for (name, (value, other)), default in zip(PARAMETERS.items(), defaults, strict=True)
        if name not in omitted
    }
    refused: dict[str, str] = {}
    while True:
        try:
            wire = chain.open(requested)
        except ServerError as error:
            named = [name for name in requested if re.search(rf"\b{name}\b", error.message, re.IGNORECASE)]
            if not named:
                raise
            # "in options: statement_timeout" names options first
            refused[named[-1]] = error.what
            del requested[named[-1]]
        else:
            break
    pid, *values = wire.query(STATEMENT)[0]
    return ParameterSession(
        wire=wire,
        requested=requested,
        refused=refused,
        pid=int(pid or 0),
        values=tuple(value or "" for value in values),
    )


def add_version_bounds(session: ParameterSession, versions: Versions) -> None:
    """Add bounds of PgBouncer's version, from the parameters that were refused."""
    if error := session.refused.get("options"):
        (versions.has if "in options" in error else versions.lacks)(OPTIONS)
    if "IntervalStyle" in session.refused:
        versions.lacks(INTERVAL_STYLE)
    if "search_path" in session.refused:
        versions.lacks(SEARCH_PATH)


def add_parameter_findings(session: ParameterSession, move: Move | None, mode: str, findings: Findings) -> None:
    """Add a finding for each parameter.

    :param move: the values of the session on another server connection; None if it did not move.
    :param mode: the pool mode that was found; "" if it is unknown.
    """
    for position, (name, value) in enumerate(zip(PARAMETERS, session.values, strict=True)):
        fact = f"parameter.{name}"
        if name in session.refused:
            findings.certain(fact, "refused", f"the login was refused: {session.refused[name]}")
            continue
        if name not in session.requested:
            how = "documented by PgBouncer; not tried, because old versions leave it on the server connection"
            findings.likely(fact, "kept", how)
            continue
        requested = session.requested[name]
        if not _is_shown(requested, value):
            findings.certain(fact, "dropped", f"the login requested {requested!r}, and the session has {value!r}")
        elif move:
            kept = _is_shown(requested, move.values[position])
            how = (
                f"requested {requested!r}, which the session had on the server process {move.before}; "
                f"after a move to {move.after} it had {move.values[position]!r}"
            )
            findings.certain(fact, "kept" if kept else "lost", how)
        elif mode in {"none", "session"}:
            reason = "the session cannot move without a pooler" if mode == "none" else "the session did not move"
            add = findings.certain if findings.is_certain("pool_mode") else findings.likely
            add(fact, "kept", f"requested {requested!r}, which the session had; {reason}")
        else:
            how = f"requested {requested!r}, which the session had; no move could be forced"
            findings.certain(fact, "honoured", how)


def _is_shown(requested: str, shown: str) -> bool:
    if found := _MILLISECONDS.search(requested):
        return shown in {f"{found[1]}ms", found[1]}
    return requested.casefold() == shown.casefold()
