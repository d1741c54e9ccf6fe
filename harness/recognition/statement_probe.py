"""The probe of named prepared statements at protocol level: tracked, kept, or lost.

The statement is searched and deallocated in the transaction that prepares it, so it does not remain on the server.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from harness.recognition.findings import PROBE_ERRORS
from harness.wire import ServerError, bind_and_execute, close_statement, parse

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.pool_probe import Contention
    from harness.recognition.signs import Signs
    from harness.wire import Part, Wire

_FACT = "prepared_statements"
_UNKNOWN_STATEMENT = "26000"


def probe_statements(wire: Wire, contention: Contention, mode: str, signs: Signs, findings: Findings) -> str:
    """Find whether named statements are tracked, kept or lost.

    :param mode: the pool mode that was found; "" if it is unknown.
    :param signs: receives the name of the statement on the server.
    :returns: an observation that needs two poolers in a row; "" without one.
    """
    name = f"harness_{secrets.token_hex(6)}"
    try:
        before = contention.begin(wire)
        wire.pipeline(parse(name, f"SELECT '{name}'"), *bind_and_execute(name), until="12C")
        prepared = _names_on_server(wire, name)
        if name in prepared:
            wire.pipeline(close_statement(name), until="3")
        _deallocate(wire, _names_on_server(wire, name))
    finally:
        contention.end(wire)
    for known in prepared:
        signs.name(known)
    if not prepared:
        findings.unknown(_FACT, "a named statement is missing from pg_prepared_statements of the server process")
    elif name in prepared and mode in {"none", "session"}:
        add = findings.certain if findings.is_certain("pool_mode") else findings.likely
        add(_FACT, "kept", "the server has the statement under the client's name, and the session does not move")
    elif name in prepared and mode:
        how = f"the server process {before} has the statement under the client's name, as without tracking"
        findings.certain(_FACT, "untracked", how)
    elif name in prepared:
        findings.unknown(_FACT, "the server has the statement under the client's name, and the pool mode is unknown")
    else:
        return _confirm_tracking(wire, contention, name, (before, prepared[0]), findings)
    return ""


def _confirm_tracking(wire: Wire, contention: Contention, name: str, first: tuple[int, str], findings: Findings) -> str:
    """Execute a statement that the pooler renamed on another server connection than the one that prepared it.

    :param first: the server process that prepared the statement, and the name of the statement there.
    :returns: an observation that needs two poolers in a row; "" without one.
    """
    before, renamed = first
    how = f"the server process {before} has it as {renamed}"
    size = findings.value("pool_size")
    # one server connection stays free, because the application would have to wait without one
    most = int(size) - 1 if size.isdecimal() else contention.sessions.most
    try:
        while len(contention.holders) < most and not contention.sessions.is_full:
            pid = contention.add_holder()
            if pid is None or pid == before:
                break
        if before not in contention.holders.values():
            findings.likely(_FACT, "tracked", f"{how}; no move could be forced")
            return ""
        after = contention.hold(wire)
        try:
            wire.pipeline(*bind_and_execute(name), until="2C")
            _deallocate(wire, _names_on_server(wire, name))
            wire.pipeline(close_statement(name), until="3")
        finally:
            contention.end(wire)
        if after == before:
            findings.likely(_FACT, "tracked", f"{how}; no move could be forced")
        else:
            findings.certain(_FACT, "tracked", f"{how}, and it ran on {after} after a forced move")
    except ServerError as error:
        lost = f"{how}, and after a forced move it failed: {error.what}"
        findings.certain(_FACT, "untracked", lost)
        # a single pooler that renames a statement prepares it again after a move
        return lost if error.sqlstate == _UNKNOWN_STATEMENT else ""
    except PROBE_ERRORS as error:
        findings.likely(_FACT, "tracked", f"{how}; no move could be forced: {error.what}")
    finally:
        contention.release()
    return ""


def _names_on_server(wire: Wire, name: str) -> list[str]:
    query = f"SELECT name FROM pg_catalog.pg_prepared_statements WHERE statement = 'SELECT ''{name}'''"
    return [row[0] or "" for row in wire.pipeline(*_unnamed(query), until="12C")]


def _deallocate(wire: Wire, names: list[str]) -> None:
    """Deallocate statements on the server. The pooler cannot need them again, because their text is random."""
    for name in names:
        quoted = name.replace('"', '""')
        wire.pipeline(*_unnamed(f'DEALLOCATE "{quoted}"'), until="12C")


def _unnamed(statement: str) -> tuple[Part, ...]:
    return parse("", statement), *bind_and_execute("")
