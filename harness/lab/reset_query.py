"""What a reset query resets, judged by what its statements do and not by their spelling.

A pooler runs a reset query on a server connection before the next client gets it. `DISCARD ALL` resets everything;
lighter queries leave some state to the next client. A statement that is not understood makes its effect unknown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTINGS, ROLE, AUTHORIZATION = "settings", "role", "session_authorization"
PREPARED, TEMPORARY, SEQUENCES = "prepared_statements", "temporary_tables", "sequences"
CURSORS, NOTIFICATIONS, LOCKS = "cursors", "notifications", "advisory_locks"
#: the kinds of state that a session keeps, and that `DISCARD ALL` resets
STATES = frozenset(
    {SETTINGS, ROLE, AUTHORIZATION, PREPARED, TEMPORARY, SEQUENCES, CURSORS, NOTIFICATIONS, LOCKS},
)

#: the effect of one statement in normal form (https://www.postgresql.org/docs/current/sql-discard.html). `RESET ALL`
#: leaves the role and the session authorization; a reset of the latter also resets the role
_EFFECTS: dict[str, frozenset[str]] = {
    "": frozenset(),
    "discard all": STATES,
    "discard plans": frozenset(),
    "discard sequences": frozenset({SEQUENCES}),
    "discard temp": frozenset({TEMPORARY}),
    "discard temporary": frozenset({TEMPORARY}),
    "deallocate all": frozenset({PREPARED}),
    "deallocate prepare all": frozenset({PREPARED}),
    "reset all": frozenset({SETTINGS}),
    "reset role": frozenset({ROLE}),
    "set role none": frozenset({ROLE}),
    "set session role none": frozenset({ROLE}),
    "reset session authorization": frozenset({AUTHORIZATION, ROLE}),
    "set session authorization default": frozenset({AUTHORIZATION, ROLE}),
    "set session session authorization default": frozenset({AUTHORIZATION, ROLE}),
    "unlisten *": frozenset({NOTIFICATIONS}),
    "close all": frozenset({CURSORS}),
    "select pg_advisory_unlock_all()": frozenset({LOCKS}),
    "select pg_catalog.pg_advisory_unlock_all()": frozenset({LOCKS}),
    "select 1": frozenset(),
    "abort": frozenset(),
    "rollback": frozenset(),
}
_ONE_SETTING = re.compile(
    r"(?:reset|set(?: session)?) (?P<name>[a-z_][a-z0-9_.]*)(?P<default>(?: ?= ?| to )default)?$",
)
#: the parts of a query between which blanks, case and semicolons mean something: comments, quoted text, the rest
_PARTS = re.compile(
    r"(?P<comment>--[^\n]*|/\*)|(?P<quoted>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)|(?P<other>.)",
    re.DOTALL,
)


class Reset(Struct, frozen=True, kw_only=True):
    """What happens to the state of a session when its client releases the server connection."""

    #: kinds of state that are reset
    states: frozenset[str] = frozenset()
    #: settings that are reset one by one, in lower case
    names: frozenset[str] = frozenset()
    #: whether every statement was understood
    understood: bool = True
    #: whether the server connection is closed: then nothing of the session remains
    closes: bool = False

    def resets(self, state: str) -> bool | None:
        """Return whether a kind of state, or one setting by its name, is reset; None if that is unknown."""
        kind = state if state in STATES else SETTINGS
        if self.closes or kind in self.states or state.casefold() in self.names:
            return True
        return False if self.understood else None


def read_reset_query(query: str) -> Reset:
    """Return what a reset query resets: several statements, with comments, in any case and spacing."""
    states: frozenset[str] = frozenset()
    names: set[str] = set()
    understood = True
    for statement in _statements(query):
        if (effect := _EFFECTS.get(statement)) is not None:
            states |= effect
        elif name := _single_setting(statement):
            names.add(name)
        else:
            understood = False
    return Reset(states=states, names=frozenset(names), understood=understood)


def _single_setting(statement: str) -> str:
    """Return the setting that a statement resets; "" if it is another statement."""
    if statement in {"reset time zone", "set time zone default", "set time zone local"}:
        return "timezone"
    found = _ONE_SETTING.match(statement)
    if not found or statement.startswith("reset ") is bool(found["default"]):
        return ""
    return found["name"]


def _statements(query: str) -> Iterable[str]:
    """Return the statements in normal form: lower case, single blanks, without comments. Quoted text stays as it is."""
    statements, begun = [], ""
    for text in _tokens(query):
        if text == ";":
            statements.append(begun)
            begun = ""
        else:
            begun += text
    return [_normal(statement) for statement in (*statements, begun)]


def _tokens(query: str) -> Iterable[str]:
    position = 0
    while found := _PARTS.match(query, position):
        position = found.end()
        if found["comment"] == "/*":
            position = _end_of_comment(query, position)
            yield " "
        elif found["comment"]:
            yield " "
        elif found["quoted"]:
            yield found["quoted"]
        else:
            yield found["other"].lower()


def _end_of_comment(query: str, position: int) -> int:
    """Return the end of a block comment that began before the position. PostgreSQL's comments nest."""
    depth = 1
    for found in re.compile(r"/\*|\*/").finditer(query, position):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return len(query)


def _normal(statement: str) -> str:
    return re.sub(r" ?([()]) ?", r"\1", " ".join(statement.split()))
