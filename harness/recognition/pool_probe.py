"""The probe of the pool: sessions compete for server connections until the pooler shows how it assigns them.

A single client gets the same server connection in every pool mode, because PgBouncer reuses the one that was released
last. Some sessions therefore stay idle (the watchers), and others hold one server connection each (the holders), until
a holder gets the server connection of a watcher, or none is free.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import TimedOutError
from harness.recognition.findings import PROBE_ERRORS
from harness.recognition.pace import FLOOR_S
from harness.waiting import NotYet, poll
from harness.wire import ClosedError, ServerError, Wire, bind_and_execute, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.recognition.findings import Findings
    from harness.recognition.sessions import Sessions

#: with some poolers the login itself waits; the patience with a fast one
_LOGIN_S = 0.8
#: the same for the first message of a login, which most poolers answer at once
_MEASURED_S = 2.0
#: an idle session that has a server connection needs no new one; the patience with a fast pooler
_IDLE_S = 0.05
_PID = "SELECT pg_catalog.pg_backend_pid()"
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
# PgBouncer keeps a pool for each pair of user and database
_IN_POOL = (
    "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity "
    "WHERE usename OPERATOR(pg_catalog.=) current_user AND datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"
)
_PROTOCOL_VIOLATION = "08P01"


class Move(Struct, frozen=True, kw_only=True):
    """The move of a session to another server connection."""

    #: the server processes
    before: int
    after: int
    #: the answer of the server process `after`, without the pid
    values: tuple[str, ...]


class Contention:
    """Sessions that compete for server connections: watchers are idle, holders keep one server connection each."""

    def __init__(self, sessions: Sessions, watchers: dict[Wire, int]) -> None:
        """Begin without holders.

        :param sessions: opens the holders.
        :param watchers: idle sessions, and the server process that last served each of them.
        """
        self.sessions = sessions
        self.watchers = watchers
        self.holders: dict[Wire, int] = {}
        self.waiting: list[Wire] = []
        #: the server's error for BEGIN, if it does not allow transaction blocks
        self.begin_error = ""
        #: why no further holder could be added
        self.limit = ""
        #: whether the reason is that no server connection was free
        self.exhausted = False
        #: an observation that needs two poolers in a row
        self.in_a_row = ""
        #: whether the server has accepted a BEGIN
        self.allows_blocks = False
        self._pace = sessions.pace

    def add_holder(self) -> int | None:
        """Open a session that holds a server connection, and return its server process; None if none was free."""
        wire: Wire | None = None
        began = time.monotonic()
        try:
            wire = self._open()
            pid = self.hold(wire)
        except TimedOutError:
            if wire:
                self.waiting.append(wire)
            if not self.sessions.deadline.left_s():
                self.limit = "the deadline passed before the next session got a server connection"
                return None
            waited = f"the next session waited for more than {self._pace.patience_s():.1f} s"
            self.exhausted = not self._pace.is_too_slow
            slow = f"; an answer takes up to {self._pace.slowest_s:.1f} s, so this shows no full pool"
            self.limit = waited if self.exhausted else waited + slow
            return None
        except (ServerError, ClosedError) as error:
            if wire:
                self.sessions.drop(wire)
            if wire and isinstance(error, ServerError) and self._forbids_blocks(error):
                self.begin_error = error.what
                self._refresh_watchers()
                return self.add_holder()
            self.limit = f"the next session was refused: {error.what}"
            return None
        self._pace.note(time.monotonic() - began)
        self.holders[wire] = pid
        return pid

    def _open(self) -> Wire:
        """Open a session.

        Errors are retried, because a session that was just closed may still count towards a limit. So is a timeout, if
        the chain became slower.
        """
        retries = self.sessions.deadline.within(self._pace.patience_s())

        def login() -> Wire:
            try:
                return self.sessions.open(within_s=self._pace.patience_s(_LOGIN_S))
            except TimedOutError as error:
                if not self._became_slower(_LOGIN_S):
                    raise
                raise NotYet(str(error)) from None
            except (ServerError, ClosedError) as error:
                if not retries.left_s():
                    raise
                raise NotYet(str(error)) from None

        return poll(login, what="one more session", deadline_s=self.sessions.deadline.left_s(), interval_s=0.1)

    def _refresh_watchers(self) -> None:
        """Query the server processes of the watchers: a pooler that refuses BEGIN closes the server connection."""
        for wire in self.watchers:
            self.watchers[wire] = int(wire.query(_PID)[0][0] or 0)

    def _forbids_blocks(self, error: ServerError) -> bool:
        return not self.begin_error and error.sqlstate == _PROTOCOL_VIOLATION and "statement pool" in error.message

    def hold(self, wire: Wire) -> int:
        """Open a transaction like :meth:`begin`, but wait for a server connection only as long as usual.

        :raises TimedOutError: the answer may still arrive; :meth:`release` then ends the transaction.
        """
        with self._patient(wire, self._pace.patience_s()):
            try:
                return self.begin(wire)
            except TimedOutError:
                if self.begin_error:  # the answer to a pipeline cannot be awaited again
                    raise
        if not self._became_slower(FLOOR_S):
            raise TimedOutError("no server connection was free")
        with self._patient(wire, self._pace.patience_s()):
            pid = int(wire.rows()[-1][0] or 0)
        self.allows_blocks = True
        return pid

    @contextmanager
    def _patient(self, wire: Wire, seconds: float) -> Iterator[None]:
        """Limit the waits of a session for the block."""
        usual = wire.deadline
        wire.deadline = usual.within(seconds)
        try:
            yield
        finally:
            wire.deadline = usual

    def _became_slower(self, least_s: float) -> bool:
        """Measure how long the answer to a login takes now, and return whether more patience follows from it.

        A pooler answers the first message of a login itself, without a server connection.

        :param least_s: the patience with a fast chain.
        """
        before_s = self._pace.patience_s(least_s)
        with suppress(*PROBE_ERRORS):
            wire, _ = self.sessions.start_login(within_s=self._pace.patience_s(_MEASURED_S))
            self.sessions.drop(wire)
        return self._pace.patience_s(least_s) > before_s

    def begin(self, wire: Wire) -> int:
        """Open a transaction, and return its server process."""
        if self.begin_error:
            # without BEGIN, a statement without a Sync holds the server connection; the statement only reads a pid
            (pid,) = wire.pipeline(parse("", _PID), *bind_and_execute(""), until="12C")[0]
        else:
            (pid,) = wire.query(f"{_BEGIN}; {_PID}")[0]
            self.allows_blocks = True
        return int(pid or 0)

    def end(self, wire: Wire) -> None:
        """Roll a transaction back."""
        if wire.in_pipeline:
            wire.sync()
        if wire.status in {"T", "E"}:
            wire.query("ROLLBACK")

    def move(self, wire: Wire, statement: str, least_s: float = FLOOR_S) -> Move | None:
        """Run a statement in a watcher whose server connection may be held by another session.

        :param statement: a query; the first column is the pid.
        :param least_s: the patience with a fast chain.
        :returns: the move; None if no server connection was free.
        """
        with self._patient(wire, self._pace.patience_s(least_s)):
            try:
                pid, *values = wire.query(statement)[0]
            except TimedOutError:
                self.waiting.append(wire)
                return None
        move = Move(before=self.watchers[wire], after=int(pid or 0), values=tuple(value or "" for value in values))
        self.watchers[wire] = move.after
        return move

    def gets_one(self, wire: Wire) -> bool:
        """Return whether a session that waits for a server connection gets one now."""
        with self._patient(wire, self._pace.patience_s()), suppress(*PROBE_ERRORS):
            wire.rows()
            return True
        return False

    def in_pool(self) -> int | None:
        """Return the number of server processes for this role and database, including those of other clients."""
        for wire in [*self.holders, *self.watchers]:
            rows = (
                wire.pipeline(parse("", _IN_POOL), *bind_and_execute(""), until="12C")
                if wire.in_pipeline
                else wire.query(_IN_POOL)
            )
            return int(rows[0][0] or 0)
        return None

    def release(self) -> None:
        """Close the holders and the waiting sessions; the idle watchers stay open."""
        for wire in self.waiting:
            self.watchers.pop(wire, None)
        self.sessions.close([*self.holders, *self.waiting])
        self.holders, self.waiting = {}, []


def probe_pool(contention: Contention, mover: Wire | None, statement: str, findings: Findings) -> Move | None:
    """Find pool_mode and pool_size, and force a session to move if possible.

    :param mover: the watcher to move; None without one.
    :param statement: the query to run in it after its server connection was taken; the first column is the pid.
    :returns: the move of that session; None if it did not move.
    """
    sessions, watchers = contention.sessions, contention.watchers
    taken, stayed = "", True
    move: Move | None = None
    if len(set(watchers.values())) < len(watchers):
        taken = f"two sessions at a time were served by one server process, {next(iter(watchers.values()))}"
    try:
        while not sessions.is_full and (pid := contention.add_holder()) is not None:
            if not taken and pid in watchers.values():
                taken = f"an idle session's server process, {pid}, was assigned to another session"
            if move is None and mover is not None and watchers.get(mover) == pid:
                move = contention.move(mover, statement)
        if not taken and not contention.begin_error and contention.exhausted:
            stayed = _idle_session_stays(contention)
        if taken and contention.exhausted:
            contention.in_a_row = _idle_session_takes_a_place(contention)
        _add_mode(contention, taken, move, findings, stayed=stayed)
        _add_size(contention, bool(taken or contention.begin_error), findings)
    finally:
        contention.release()
    return move if move and move.before != move.after else None


def _idle_session_stays(contention: Contention) -> bool:
    """Return whether an idle session still has its server connection while another session waits for one."""
    for wire, pid in contention.watchers.items():
        move = contention.move(wire, _PID)
        return move is not None and move.after == pid
    return False


def _idle_session_takes_a_place(contention: Contention) -> str:
    """Return the observation that an idle session takes a place in a pool, although sessions share server processes.

    A pooler in session mode is then in front of one that shares. The idle session is answered while another one waits,
    and the waiting one gets its place when it ends.
    """
    idle = [wire for wire in contention.watchers if wire not in contention.waiting]
    if not contention.waiting or not idle:
        return ""
    # the first session has no startup parameters, which would stay on the server connection that it gets
    waiting, first = contention.waiting[-1], idle[0]
    if contention.move(first, _PID, _IDLE_S) is None:
        return ""
    del contention.watchers[first]
    contention.sessions.close([first])
    if not contention.gets_one(waiting):
        return ""
    return "sessions share server processes, and yet an idle session took a place that another one waited for"


def _add_mode(contention: Contention, taken: str, move: Move | None, findings: Findings, *, stayed: bool) -> None:
    """Add the pool mode.

    :param taken: the observation that sessions share a server process; "" without one.
    :param stayed: whether an idle session kept its server connection.
    """
    if contention.begin_error:
        findings.certain("pool_mode", "statement", f"BEGIN is refused: {contention.begin_error}")
    elif taken and not contention.allows_blocks:
        how = f"{taken}, so transaction or statement; no BEGIN was answered: {contention.limit}"
        findings.unknown("pool_mode", how)
    elif taken:
        then = f"; the idle session moved to {move.after}" if move and move.before != move.after else ""
        findings.certain("pool_mode", "transaction", f"{taken}{then}; transactions are allowed")
    elif not stayed:
        how = f"no server process was shared, {contention.limit}, and an idle session that sent a query waited, too"
        findings.unknown("pool_mode", how)
    elif contention.holders or contention.waiting:
        pids = ", ".join(str(pid) for pid in contention.watchers.values())
        how = f"{len(contention.holders)} further sessions did not get a server process of an idle session ({pids})"
        findings.likely("pool_mode", "session", f"{how}; {contention.limit or 'no more sessions are allowed'}")
    else:
        findings.unknown("pool_mode", f"no second session could be opened: {contention.limit}")


def _add_size(contention: Contention, shares: bool, findings: Findings) -> None:
    """Add the pool size.

    :param shares: whether sessions share server connections, so that watchers hold none.
    """
    held = len(contention.holders) + (0 if shares else len(contention.watchers))
    if not held:
        findings.unknown("pool_size", contention.limit)
        return
    if not contention.limit:
        how = f"{held} server connections were held at a time, and no more were tried"
        findings.certain("pool_size", f"at least {held}", how)
        return
    how = f"{held} server connections were held at a time, and {contention.limit}"
    try:
        found = contention.in_pool()
    except PROBE_ERRORS:
        found = None
    if found == held and contention.exhausted:
        findings.likely("pool_size", str(held), f"{how}; other clients had none")
    else:
        findings.certain("pool_size", f"at least {held}", f"{how}; other clients may have had some")
