"""Which startup parameters are refused, dropped, honoured, and kept when the server connection changes.

Nothing is ever SET: on a pooled connection that would stay behind for somebody else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.recognition.findings import PARAMETERS
from harness.recognition.versions import AFTER_OPTIONS, BEFORE_OPTIONS
from harness.wire import ServerError, Wire

if TYPE_CHECKING:
    from harness.recognition.chain import Chain
    from harness.recognition.findings import Notes
    from harness.recognition.pool_probe import Move

#: what shows whether a parameter arrived, where that has another name
_SHOWN_AS = {"options": "statement_timeout"}
_MILLISECONDS = re.compile(r"statement_timeout=(\d+)$")

#: PgBouncer 1.18 does not take a client's application_name off the server connection (measured), and nothing that a
#: client may send at its login does; 1.24 does (measured)
STAYS_ON_OLD_PGBOUNCER = ("application_name",)

STATEMENT = "SELECT pg_catalog.pg_backend_pid(), " + ", ".join(
    f"pg_catalog.current_setting('{_SHOWN_AS.get(name, name)}')" for name in PARAMETERS
)


class Tried(Struct, frozen=True, kw_only=True):
    """A session that asked for parameters when it logged in."""

    session: Wire
    #: what it asked for, by name; without what was refused
    asked: dict[str, str]
    #: the refusal, by name
    refused: dict[str, str]
    pid: int
    #: what it was given, in the order of PARAMETERS
    values: tuple[str, ...]


def log_in_with_parameters(chain: Chain, plain: Wire, *, except_for: tuple[str, ...] = ()) -> Tried:
    """Log in with every parameter that is not refused.

    :param plain: a session without any, which says what the defaults are.
    :param except_for: what is not asked for.
    :raises ServerError: when a login is refused for another reason.
    """
    _, *defaults = plain.query(STATEMENT)[0]
    asked = {
        name: other if value == default else value
        for (name, (value, other)), default in zip(PARAMETERS.items(), defaults, strict=True)
        if name not in except_for
    }
    refused: dict[str, str] = {}
    while True:
        try:
            session = chain.open(asked)
        except ServerError as error:
            named = [name for name in asked if re.search(rf"\b{name}\b", error.message, re.IGNORECASE)]
            if not named:
                raise
            # "in options: statement_timeout" names options first
            refused[named[-1]] = error.what
            del asked[named[-1]]
        else:
            break
    pid, *values = session.query(STATEMENT)[0]
    return Tried(
        session=session,
        asked=asked,
        refused=refused,
        pid=int(pid or 0),
        values=tuple(each or "" for each in values),
    )


def note_bounds(tried: Tried) -> list[str]:
    """Return bounds of PgBouncer's version."""
    bounds: list[str] = []
    if said := tried.refused.get("options"):
        bounds += AFTER_OPTIONS if "in options" in said else BEFORE_OPTIONS
    if "IntervalStyle" in tried.refused:
        bounds += BEFORE_OPTIONS
    return bounds


def note_parameters(tried: Tried, move: Move | None, mode: str, notes: Notes) -> None:
    """Note what became of each parameter.

    :param move: what the session was answered on another server connection; None when it did not move.
    :param mode: the pool mode as found, "" when it is unknown.
    """
    for place, (name, value) in enumerate(zip(PARAMETERS, tried.values, strict=True)):
        fact = f"parameter.{name}"
        if name in tried.refused:
            notes.certain(fact, "refused", f"the login was refused: {tried.refused[name]}")
            continue
        if name not in tried.asked:
            notes.likely(fact, "kept", "PgBouncer documents it; not tried, because old versions leave it on the server")
            continue
        asked = tried.asked[name]
        if not _is(asked, value):
            notes.certain(fact, "dropped", f"the login asked for {asked!r}, and the session has {value!r}")
        elif move:
            kept = _is(asked, move.values[place])
            then = f"asked for {asked!r}; on {move.before} it was that, after a move to {move.after} it was"
            notes.certain(fact, "kept" if kept else "lost", f"{then} {move.values[place]!r}")
        elif mode in {"none", "session"}:
            reason = "no pooler moves it" if mode == "none" else "its server connection stayed its own"
            note = notes.certain if notes.is_certain("pool_mode") else notes.likely
            note(fact, "kept", f"asked for {asked!r}, and got it; {reason}")
        else:
            notes.certain(fact, "honoured", f"asked for {asked!r}, and got it; no move could be forced")


def _is(asked: str, shown: str) -> bool:
    if found := _MILLISECONDS.search(asked):
        return shown in {f"{found[1]}ms", found[1]}
    return asked.casefold() == shown.casefold()
