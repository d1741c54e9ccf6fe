"""The probe of ParameterStatus: whether the client learns the server's parameters, at the login and when they change.

Drivers rely on these messages, for instance on client_encoding and standard_conforming_strings.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from harness.recognition.findings import PROBE_ERRORS
from harness.versions import numbers_of

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.wire import Wire

_FACT = "parameter_status"
#: the parameters that PostgreSQL reports, and the major version that introduced each report
#: (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC)
_REPORTED = {
    "server_version": 0,
    "server_encoding": 0,
    "client_encoding": 0,
    "application_name": 9,
    "is_superuser": 0,
    "session_authorization": 0,
    "DateStyle": 0,
    "IntervalStyle": 8,
    "TimeZone": 0,
    "integer_datetimes": 0,
    "standard_conforming_strings": 0,
    "default_transaction_read_only": 14,
    "in_hot_standby": 14,
    "scram_iterations": 16,
    "search_path": 18,
}
#: not compared: PgBouncer 1.18 leaves a client's application_name on the server connection (measured)
_NOT_COMPARED = {"application_name"}
#: two values, in case the first is the session's own
_TIME_ZONES = ("Asia/Tokyo", "Europe/Paris")


def probe_parameter_status(wire: Wire, findings: Findings, *, allows_blocks: bool) -> None:
    """Find whether ParameterStatus of the server arrives at the client.

    :param wire: an idle session after its login.
    :param allows_blocks: whether a transaction block is possible; without it, no change is tried.
    """
    major = (*numbers_of(findings.value("server_version")), 0)[0]
    expected = [name for name, since in _REPORTED.items() if since <= major]
    arrived = [name for name in expected if name in wire.parameters]
    if not arrived:
        findings.certain(_FACT, "none", "no ParameterStatus message arrived at the login")
        return
    wrong = _differences(wire, [name for name in arrived if name not in _NOT_COMPARED])
    missing = [name for name in expected if name not in wire.parameters]
    how = f"{len(arrived)} of the {len(expected)} parameters that PostgreSQL {major} reports arrived at the login"
    if missing:
        how += f", without {', '.join(missing)}"
    if wrong:
        findings.certain(_FACT, "wrong", f"{how}; {'; '.join(wrong)}")
        return
    if not allows_blocks:
        findings.likely(_FACT, "incomplete" if missing else "at the login", f"{how}; no change was tried")
        return
    follows = _follows_a_change(wire)
    how += f"; a changed TimeZone {'arrived' if follows else 'did not arrive'}"
    findings.certain(_FACT, "incomplete" if missing else "complete" if follows else "at the login only", how)


def _differences(wire: Wire, names: list[str]) -> list[str]:
    """Return a phrase for each parameter whose value in the session is another than the client knows."""
    shown = ", ".join(f"pg_catalog.current_setting('{name}')" for name in names)
    values = wire.query(f"SELECT {shown}")[0]
    return [
        f"{name} arrived as {wire.parameters[name]!r} and is {value!r}"
        for name, value in zip(names, values, strict=True)
        if wire.parameters[name].casefold() != (value or "").casefold()
    ]


def _follows_a_change(wire: Wire) -> bool:
    """Change a parameter in a transaction that is rolled back, and return whether the change arrived."""
    other = next(zone for zone in _TIME_ZONES if zone != wire.parameters.get("TimeZone"))
    try:
        wire.query(f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL TimeZone TO '{other}'")
        return wire.parameters.get("TimeZone") == other
    finally:
        with suppress(*PROBE_ERRORS):
            wire.query("ROLLBACK")
