"""Recognition: the probes in their order, within one deadline."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.database import refusal
from harness.errors import TimedOutError, UsageError
from harness.recognition.conclusions import add_conclusions
from harness.recognition.console_probe import probe_console
from harness.recognition.direct_probe import probe_direct
from harness.recognition.findings import PARAMETERS, PROBE_ERRORS, Findings, Recognition
from harness.recognition.login_probe import (
    add_announced,
    add_postgresql,
    probe_authentication,
    probe_databases,
    probe_pgpool,
    probe_startup,
    probe_tls,
)
from harness.recognition.parameter_probe import (
    STATEMENT,
    STAYS_ON_OLD_PGBOUNCER,
    ParameterSession,
    add_parameter_findings,
    add_version_bounds,
    log_in_with_parameters,
)
from harness.recognition.pool_probe import Contention, Move, probe_pool
from harness.recognition.route import find_route
from harness.recognition.server import (
    ServedSession,
    add_server_findings,
    judge_pooler,
    observe_reuse,
    served_session,
)
from harness.recognition.sessions import Sessions
from harness.recognition.signs import Signs
from harness.recognition.statement_probe import probe_statements
from harness.recognition.status_probe import probe_parameter_status
from harness.recognition.versions import Versions
from harness.redaction import Redactor
from harness.waiting import NotYet, poll
from harness.wire import Deadline, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from harness.database import Endpoint
    from harness.wire import Wire

#: sharing shows with two watchers and one holder at least
LEAST_CONNECTIONS = 3
#: reserved within the deadline for rolling back and closing
_CLOSING_S = 0.6
#: the limit of sessions at the direct address, and at the console
_OTHER_CONNECTIONS = 3
#: a first session that is refused is tried again for this long, in seconds: closed ones may still count
_FIRST_SESSION_S = 1.0
#: the patience with the second session, which has to wait if the pool has a single server connection
_SECOND_SESSION_S = 1.0
_PARAMETER_FACTS = tuple(f"parameter.{name}" for name in PARAMETERS)


def recognise(
    chain: Endpoint | str,
    *,
    direct: Endpoint | str | None = None,
    console: Endpoint | str | None = None,
    deadline_s: float = 10.0,
    most_connections: int = 12,
    redactor: Redactor | None = None,
    cancelled: Event | None = None,
) -> Recognition:
    """Find what is between a client and PostgreSQL.

    :param chain: the application's endpoint, or its connection string for libpq.
    :param direct: PostgreSQL itself, if it is reachable.
    :param console: PgBouncer's admin console (dbname=pgbouncer), if it is reachable.
    :param deadline_s: seconds for all probes; facts that are not found by then are unknown.
    :param most_connections: the limit of sessions through the chain at the same time.
    :param redactor: learns the passwords, and removes them from findings and errors.
    :param cancelled: ends the probes when set, as the deadline does.
    :returns: a finding for each fact; an unknown one has the reason.
    :raises UsageError: for limits that allow no recognition. :raises ConfigError: for an invalid connection string.
    :raises DatabaseError: :raises TimedOutError: when the login to the chain fails.
    """
    if deadline_s <= 0 or most_connections < LEAST_CONNECTIONS:
        raise UsageError(
            f"found a deadline of {deadline_s:g} s and {most_connections} connections, "
            f"expected more than 0 s and at least {LEAST_CONNECTIONS} connections"
        )
    began = time.monotonic()
    deadline = Deadline(max(deadline_s - _CLOSING_S, deadline_s / 2), cancelled)
    redactor = redactor or Redactor()
    findings = Findings(redactor)
    route = find_route(chain, deadline, redactor, "the connection")
    with Sessions(route, deadline, most_connections) as sessions:
        reason = _probe(sessions, findings, redactor, direct, console)
    completed = findings.completed(reason)
    return Recognition(findings=completed, elapsed_ms=round((time.monotonic() - began) * 1000, 1))


def _probe(
    chain: Sessions,
    findings: Findings,
    redactor: Redactor,
    direct: Endpoint | str | None,
    console: Endpoint | str | None,
) -> str:
    """Run all probes.

    :returns: the reason for facts that are still unknown.
    """
    signs, versions = Signs(), Versions()
    with _unknown_on_error(findings, "tls_client"):
        probe_tls(chain, findings, "tls_client")
    with _unknown_on_error(findings, "authentication"):
        probe_authentication(chain, findings, "authentication")
    with _unknown_on_error(findings):
        probe_startup(chain, signs, versions, findings)
    opened: list[Wire] = []
    served: list[ServedSession] = []
    began = time.monotonic()
    with _unknown_on_error(findings, "pooler"):
        opened.append(_open_first(chain))
        served.append(served_session(opened[0]))
        # the first query waits for a new server connection
        chain.pace.note(time.monotonic() - began)
    if not served:
        failure = "its first query failed" if opened else "a raw login failed"
        signs.add_findings(findings)
        return f"libpq logged in, but {failure}: {findings.how('pooler')}"
    plain = opened[0]
    add_announced(plain, signs, versions, findings)
    add_server_findings(served[0], findings)
    omitted = STAYS_ON_OLD_PGBOUNCER if "PgBouncer" in signs.products and versions.is_old else ()
    second = _open_second(chain, plain, served, findings, omitted, chain.pace.patience_s(_SECOND_SESSION_S))
    if second is not None:
        add_version_bounds(second, versions)
    direct_from = ""
    if direct is not None:
        with (
            _unknown_on_error(findings, "direct", "same_server"),
            _other_sessions(direct, chain, redactor, "the direct address") as direct_sessions,
        ):
            direct_from = probe_direct(served[0], direct_sessions, findings)
            probe_authentication(direct_sessions, findings, "direct_authentication")
            probe_tls(direct_sessions, findings, "direct_tls")
    _probe_pooler(chain, plain, served, direct_from, signs, findings)
    if console is not None:
        with (
            _unknown_on_error(findings),
            _other_sessions(console, chain, redactor, "the console") as console_sessions,
        ):
            probe_console(console_sessions, chain, served[0].pid, signs, findings)
    in_a_row = _probe_contention(chain, plain, served, second, signs, findings)
    with _unknown_on_error(findings, "product"):
        if findings.value("pooler") == "no":
            add_postgresql(chain, findings)
        else:
            probe_databases(chain, signs, versions, findings)
    add_conclusions(signs, versions, in_a_row, findings)
    return "no probe shows it"


@contextmanager
def _unknown_on_error(findings: Findings, *facts: str) -> Iterator[None]:
    """Add the error of a probe as the reason why its facts are unknown, and continue."""
    try:
        yield
    except PROBE_ERRORS as error:
        for fact in facts:
            findings.unknown(fact, str(error).splitlines()[0])
    except (ValueError, LookupError):
        for fact in facts:
            findings.unknown(fact, "the answer differs from PostgreSQL's")


@contextmanager
def _other_sessions(target: Endpoint | str, chain: Sessions, redactor: Redactor, name: str) -> Iterator[Sessions]:
    """Open sessions to another address, within the deadline of the chain's.

    :param name: of the address, for error messages.
    """
    route = find_route(target, chain.deadline, redactor, name)
    with Sessions(route, chain.deadline, _OTHER_CONNECTIONS) as sessions:
        yield sessions


def _open_first(chain: Sessions) -> Wire:
    """Open the first session that stays. Earlier ones were closed, but until the server notices, its limit counts them.

    :raises ServerError: the last one, when the server refuses for longer.
    """
    refused: list[ServerError] = []

    def accepted() -> Wire:
        try:
            return chain.open()
        except ServerError as error:
            if refusal(error):  # an address that refuses this login refuses it again, and may count the attempts
                raise
            refused[:] = [error]
            raise NotYet(error.what) from None

    deadline_s = min(_FIRST_SESSION_S, chain.deadline.left_s())
    try:
        return poll(accepted, what="a session", deadline_s=deadline_s, interval_s=0.05)
    except TimedOutError:
        if not refused:
            raise
        raise refused[0] from None


def _open_second(
    chain: Sessions,
    plain: Wire,
    served: list[ServedSession],
    findings: Findings,
    omitted: tuple[str, ...],
    timeout_s: float,
) -> ParameterSession | None:
    """Open the second session, with startup parameters; without them if they cannot be tried.

    :param plain: the first session.
    :param served: receives the second session.
    :param omitted: parameters that are not requested.
    :returns: the session with parameters; None without one.
    """
    usual, chain.deadline = chain.deadline, chain.deadline.within(timeout_s)
    found: list[ParameterSession] = []
    try:
        with _unknown_on_error(findings, *_PARAMETER_FACTS):
            try:
                found.append(log_in_with_parameters(chain, plain, omitted=omitted))
            except TimedOutError:
                reason = f"a second session was not answered within {timeout_s:.1f} s, while the first was idle"
                raise TimedOutError(reason) from None
        with _unknown_on_error(findings):
            served.append(served_session(found[0].wire if found else chain.open()))
    finally:
        chain.deadline = plain.deadline = usual
    for session in found:
        session.wire.deadline = usual
    return found[0] if found else None


def _probe_pooler(
    chain: Sessions,
    plain: Wire,
    served: list[ServedSession],
    direct_from: str,
    signs: Signs,
    findings: Findings,
) -> None:
    """Find whether a pooler is in the chain.

    :param direct_from: the client address that the server sees for a direct session; "" if unknown.
    """
    judged, is_certain, how = judge_pooler(served)
    if judged != "no" or not is_certain:
        with _unknown_on_error(findings):
            if probe_pgpool(plain, signs, findings):
                findings.certain("pooler", "yes", signs.how("Pgpool-II"))
                return
    if not is_certain:
        # some poolers announce the server's pid; only their own commands, or the reuse of a connection, show them
        with _unknown_on_error(findings):
            if reuse := observe_reuse(chain):
                findings.certain("pooler", "yes", reuse)
                return
        chain_from = served[0].client_address
        if direct_from and chain_from != direct_from:
            how = f"the server sees the chain come from {chain_from}, and a direct session from {direct_from}"
            findings.likely("pooler", "yes", how)
            return
    if not judged:
        findings.unknown("pooler", how)
    elif is_certain:
        findings.certain("pooler", judged, how)
    else:
        findings.likely("pooler", judged, how)


def _probe_contention(
    chain: Sessions,
    plain: Wire,
    served: list[ServedSession],
    second: ParameterSession | None,
    signs: Signs,
    findings: Findings,
) -> list[tuple[str, bool]]:
    """Run the probes that need sessions to compete for server connections: pool, parameters, statements.

    :returns: the observations that need two poolers in a row; for each, whether it is certain.
    """
    in_a_row: list[tuple[str, bool]] = []
    watchers = {plain: served[0].pid}
    if second is not None:
        watchers[second.wire] = second.pid
    contention = Contention(chain, watchers)
    moves: list[Move | None] = []
    if findings.value("pooler") == "no":
        for fact in ("pool_mode", "pool_size"):
            add = findings.certain if findings.is_certain("pooler") else findings.likely
            add(fact, "none", "the chain has no pooler")
    else:
        with _unknown_on_error(findings, "pool_mode", "pool_size"):
            moves.append(probe_pool(contention, second.wire if second is not None else None, STATEMENT, findings))
    if contention.in_a_row:
        in_a_row.append((contention.in_a_row, False))
    signs.error(contention.begin_error)
    mode = findings.value("pool_mode")
    if second is not None:
        add_parameter_findings(second, moves[0] if moves else None, mode, findings)
        chain.close([second.wire])
    with _unknown_on_error(findings, "prepared_statements"):
        wire = plain if plain in chain.opened else chain.open()
        if lost := probe_statements(wire, contention, mode, signs, findings):
            in_a_row.append((lost, False))
    with _unknown_on_error(findings, "parameter_status"):
        wire = plain if plain in chain.opened else chain.open()
        probe_parameter_status(wire, findings, allows_blocks=mode == "none" or contention.allows_blocks)
    return in_a_row
