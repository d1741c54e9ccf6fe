"""The order in which things are tried, within one deadline."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.errors import TimedOutError, UsageError
from harness.recognition.chain import Chain
from harness.recognition.console import ask_console
from harness.recognition.direct_probe import reach
from harness.recognition.findings import PARAMETERS, TROUBLE, Notes, Recognition
from harness.recognition.login_probe import (
    look_at_login,
    look_at_other_products,
    look_at_product,
    look_at_tls,
    look_for_pgpool,
)
from harness.recognition.parameters import (
    STATEMENT,
    STAYS_ON_OLD_PGBOUNCER,
    Tried,
    log_in_with_parameters,
    note_bounds,
    note_parameters,
)
from harness.recognition.pool_probe import Move, Pressure, press
from harness.recognition.server import Served, ask_about, judge_pooler, look_at_direct, note_server, sees_reuse
from harness.recognition.statements import look_at_statements
from harness.recognition.versions import AFTER_NEGOTIATION, AFTER_TRACKING, narrowed
from harness.redaction import Redactor
from harness.wire import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.database import Endpoint
    from harness.wire import Wire

#: fewer sessions cannot show a share: two that watch, and one that holds
LEAST_CONNECTIONS = 3
#: kept back from the deadline for rolling back and leaving
_FAREWELL_S = 0.6
_SIDE_CONNECTIONS = 3
#: how long the second session may take, if the first was fast; it waits where one is all that the pool has
_SECOND_S = 1.0
_SLOWNESS = 4
_PARAMETER_FACTS = tuple(f"parameter.{name}" for name in PARAMETERS)


def recognise(
    chain: Endpoint | str,
    *,
    direct: Endpoint | str | None = None,
    console: Endpoint | str | None = None,
    deadline_s: float = 10.0,
    most_connections: int = 12,
    redactor: Redactor | None = None,
) -> Recognition:
    """Find out what is between a client and PostgreSQL.

    :param chain: how the application connects, as an endpoint or as a connection string of libpq.
    :param direct: PostgreSQL itself, when there is a way to it.
    :param console: PgBouncer's admin console (dbname=pgbouncer), when there is a way to it.
    :param deadline_s: seconds for everything; what was not found by then is unknown.
    :param most_connections: how many sessions may be open through the chain at a time.
    :param redactor: learns the passwords, and takes them out of everything that is returned or raised.
    :returns: a finding for each fact; one that could not be forced is unknown, and says why.
    :raises UsageError: for limits in which nothing can be found. :raises ConfigError: for no connection string.
    :raises DatabaseError: :raises TimedOutError: when the chain cannot be logged in to at all.
    """
    if deadline_s <= 0 or most_connections < LEAST_CONNECTIONS:
        raise UsageError(
            f"found a deadline of {deadline_s:g} s and {most_connections} connections, "
            f"needed more than 0 s and at least {LEAST_CONNECTIONS}"
        )
    began = time.monotonic()
    deadline = Deadline(max(deadline_s - _FAREWELL_S, deadline_s / 2))
    redactor = redactor or Redactor()
    notes = Notes(redactor)
    route = reach(chain, deadline, redactor, "the connection")
    with Chain(route, deadline, most_connections) as sessions:
        why_not = _look(sessions, notes, redactor, direct, console)
    findings = notes.findings(why_not)
    return Recognition(findings=findings, elapsed_ms=round((time.monotonic() - began) * 1000, 1))


def _look(
    chain: Chain, notes: Notes, redactor: Redactor, direct: Endpoint | str | None, console: Endpoint | str | None
) -> str:
    """Try everything, and return why whatever is still unknown then is."""
    bounds: list[str] = []
    with _going_on(notes, "tls_client"):
        look_at_tls(chain, notes, "tls_client")
    with _going_on(notes, "authentication"):
        look_at_login(chain, notes, "authentication")
    with _going_on(notes):
        bounds += look_at_product(chain, notes)
    opened: list[Wire] = []
    served: list[Served] = []
    began = time.monotonic()
    with _going_on(notes, "pooler"):
        opened.append(chain.open())
        served.append(ask_about(opened[0]))
    took_s = time.monotonic() - began
    if not served:
        what = "its first query failed" if opened else "a raw login did not succeed"
        return f"libpq logged in, and {what}: {notes.how('pooler')}"
    plain = opened[0]
    note_server(served[0], notes)
    is_old = notes.value("product") == "PgBouncer" and not set(AFTER_NEGOTIATION) & set(bounds)
    except_for = STAYS_ON_OLD_PGBOUNCER if is_old else ()
    tried = _try_parameters(chain, plain, served, notes, except_for, max(_SECOND_S, took_s * _SLOWNESS))
    bounds += note_bounds(tried) if tried is not None else []
    came_from = ""
    if direct is not None:
        with _going_on(notes, "direct", "same_server"), _side(direct, chain, redactor, "the direct address") as side:
            came_from = look_at_direct(served[0], side, notes)
            look_at_login(side, notes, "direct_authentication")
            look_at_tls(side, notes, "direct_tls")
    _note_pooler(chain, plain, served, came_from, notes)
    if console is not None:
        with _going_on(notes), _side(console, chain, redactor, "the console") as side:
            ask_console(side, chain, served[0].pid, notes)
    _under_pressure(chain, plain, served, tried, notes, usual_s=took_s)
    with _going_on(notes, "product"):
        look_at_other_products(chain, notes)
    if notes.value("product") == "PgBouncer":
        bounds += AFTER_TRACKING if notes.value("prepared_statements") == "tracked" else []
        notes.likely(
            "version",
            narrowed(bounds),
            "which startup parameters and protocols it knows: " + ", ".join(dict.fromkeys(bounds)),
        )
    return "nothing that was tried tells"


@contextmanager
def _going_on(notes: Notes, *facts: str) -> Iterator[None]:
    """Let what fails be unknown, for the reason that it failed for, and go on."""
    try:
        yield
    except TROUBLE as error:
        for fact in facts:
            notes.unknown(fact, str(error).splitlines()[0])
    except (ValueError, LookupError):
        for fact in facts:
            notes.unknown(fact, "the answer is not what PostgreSQL would have answered")


@contextmanager
def _side(target: Endpoint | str, chain: Chain, redactor: Redactor, name: str) -> Iterator[Chain]:
    """Open sessions to another address, within the same deadline."""
    with Chain(reach(target, chain.deadline, redactor, name), chain.deadline, _SIDE_CONNECTIONS) as side:
        yield side


def _try_parameters(
    chain: Chain, plain: Wire, served: list[Served], notes: Notes, except_for: tuple[str, ...], patience_s: float
) -> Tried | None:
    """Open the second session, the one with parameters; without any when they cannot be tried."""
    usual, chain.deadline = chain.deadline, chain.deadline.within(patience_s)
    found: list[Tried] = []
    try:
        with _going_on(notes, *_PARAMETER_FACTS):
            try:
                found.append(log_in_with_parameters(chain, plain, except_for=except_for))
            except TimedOutError:
                why = f"a second session was not answered within {patience_s:.1f} s, while the first was idle"
                raise TimedOutError(why) from None
        with _going_on(notes):
            served.append(ask_about(found[0].session if found else chain.open()))
    finally:
        chain.deadline = plain.deadline = usual
    for each in found:
        each.session.deadline = usual
    return found[0] if found else None


def _note_pooler(chain: Chain, plain: Wire, served: list[Served], direct_from: str, notes: Notes) -> None:
    judged, is_certain, how = judge_pooler(served)
    if not is_certain:
        # some poolers tell the server's own pid, and show only when they name themselves or use a connection again
        with _going_on(notes):
            if look_for_pgpool(plain, notes):
                notes.certain("pooler", "yes", notes.how("product"))
                return
        with _going_on(notes):
            if again := sees_reuse(chain):
                notes.certain("pooler", "yes", again)
                return
        chain_from = served[0].client_address
        if direct_from and chain_from != direct_from:
            notes.likely("pooler", "yes", f"the server sees it come from {chain_from}, and us from {direct_from}")
            return
    if not judged:
        notes.unknown("pooler", how)
    elif is_certain:
        notes.certain("pooler", judged, how)
    else:
        notes.likely("pooler", judged, how)


def _under_pressure(
    chain: Chain, plain: Wire, served: list[Served], tried: Tried | None, notes: Notes, *, usual_s: float
) -> None:
    """Find what only shows when sessions compete for server connections."""
    watchers = {plain: served[0].pid}
    if tried is not None:
        watchers[tried.session] = tried.pid
    pressure = Pressure(chain, watchers, usual_s)
    moves: list[Move | None] = []
    if notes.value("pooler") == "no":
        for fact in ("pool_mode", "pool_size"):
            note = notes.certain if notes.is_certain("pooler") else notes.likely
            note(fact, "none", "there is no pooler")
    else:
        with _going_on(notes, "pool_mode", "pool_size"):
            moves.append(press(pressure, tried.session if tried is not None else None, STATEMENT, notes))
    mode = notes.value("pool_mode")
    if tried is not None:
        note_parameters(tried, moves[0] if moves else None, mode, notes)
        chain.close([tried.session])
    with _going_on(notes, "prepared_statements"):
        look_at_statements(plain if plain in chain.sessions else chain.open(), pressure, mode, notes)
