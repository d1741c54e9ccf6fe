"""What becomes of a statement that a client prepares by name, through the protocol.

It is looked for in the very transaction that prepared it, and is deallocated there: nothing stays on the server.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from harness.recognition.findings import TROUBLE
from harness.wire import ServerError, forget, parse, run

if TYPE_CHECKING:
    from harness.recognition.findings import Notes
    from harness.recognition.pool_probe import Pressure
    from harness.wire import Part, Wire

_FACT = "prepared_statements"


def look_at_statements(wire: Wire, pressure: Pressure, mode: str, notes: Notes) -> None:
    """Find whether named statements are tracked, kept or lost.

    :param mode: the pool mode as found, "" when it is unknown.
    """
    name = f"harness_{secrets.token_hex(6)}"
    try:
        before = pressure.begin(wire)
        wire.pipe(parse(name, f"SELECT '{name}'"), *run(name), until="12C")
        seen = _names_on_server(wire, name)
        if name in seen:
            wire.pipe(forget(name), until="3")
        _deallocate(wire, _names_on_server(wire, name))
    finally:
        pressure.end(wire)
    if not seen:
        notes.unknown(_FACT, "a statement prepared by name is not in pg_prepared_statements of the server process")
    elif name in seen and mode in {"none", "session"}:
        note = notes.certain if notes.is_certain("pool_mode") else notes.likely
        note(_FACT, "kept", "the server has the statement under the client's name, and the session stays on it")
    elif name in seen and mode:
        notes.certain(_FACT, "untracked", f"the server process {before} has it under the client's name, and no other")
    elif name in seen:
        notes.unknown(_FACT, "the server has the statement under the client's name, and the pool mode is unknown")
    else:
        _confirm(wire, pressure, name, (before, seen[0]), notes)


def _confirm(wire: Wire, pressure: Pressure, name: str, first: tuple[int, str], notes: Notes) -> None:
    """Run a renamed statement on another server connection than the one it was prepared on."""
    before, renamed = first
    how = f"the server process {before} has it as {renamed}"
    size = notes.value("pool_size")
    # whoever holds the last server connection keeps the application waiting
    most = int(size) - 1 if size.isdecimal() else pressure.chain.most
    try:
        while len(pressure.holders) < most and not pressure.chain.is_full:
            pid = pressure.add_holder()
            if pid is None or pid == before:
                break
        if before not in pressure.holders.values():
            notes.likely(_FACT, "tracked", f"{how}; no move could be forced")
            return
        after = pressure.hold(wire)
        try:
            wire.pipe(*run(name), until="2C")
            _deallocate(wire, _names_on_server(wire, name))
            wire.pipe(forget(name), until="3")
        finally:
            pressure.end(wire)
        if after == before:
            notes.likely(_FACT, "tracked", f"{how}; no move could be forced")
        else:
            notes.certain(_FACT, "tracked", f"{how}, and it ran on {after} after a forced move")
    except ServerError as error:
        notes.certain(_FACT, "untracked", f"{how}, and after a forced move it failed: {error.what}")
    except TROUBLE as error:
        notes.likely(_FACT, "tracked", f"{how}; no move could be forced: {error.what}")
    finally:
        pressure.release()


def _names_on_server(wire: Wire, name: str) -> list[str]:
    look = f"SELECT name FROM pg_catalog.pg_prepared_statements WHERE statement = 'SELECT ''{name}'''"
    return [row[0] or "" for row in wire.pipe(*_unnamed(look), until="12C")]


def _deallocate(wire: Wire, names: list[str]) -> None:
    """Drop what the pooler prepared; nobody will ask for it again, because its text is random."""
    for each in names:
        quoted = each.replace('"', '""')
        wire.pipe(*_unnamed(f'DEALLOCATE "{quoted}"'), until="12C")


def _unnamed(statement: str) -> tuple[Part, ...]:
    return parse("", statement), *run("")
