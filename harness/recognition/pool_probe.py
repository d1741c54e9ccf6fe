"""Forcing a pooler to show how it assigns server connections.

A lone client gets the same server connection in every mode, because PgBouncer hands out what was released last. So
some sessions only watch, and others hold one server connection each, until a watcher's own is taken or none is left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import TimedOutError
from harness.recognition.findings import TROUBLE
from harness.waiting import NotYet, poll
from harness.wire import ClosedError, ServerError, Wire, parse, run

if TYPE_CHECKING:
    from harness.recognition.chain import Chain
    from harness.recognition.findings import Notes

#: a client that got nothing for so long waits for somebody else to leave; more where getting takes long
_WAIT_S = 0.3
_SLOWNESS = 4
#: some poolers leave a login itself waiting
_LOGIN_S = 0.8
_PID = "SELECT pg_catalog.pg_backend_pid()"
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"
# PgBouncer keeps a pool for each pair of user and database
_IN_POOL = (
    "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity "
    "WHERE usename OPERATOR(pg_catalog.=) current_user AND datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"
)
_PROTOCOL_VIOLATION = "08P01"


class Move(Struct, frozen=True, kw_only=True):
    """What a session was answered after its server connection was taken from it."""

    before: int
    after: int
    values: tuple[str, ...]


class Pressure:
    """Watchers, which are idle, and holders, which keep a server connection each."""

    def __init__(self, chain: Chain, watchers: dict[Wire, int], usual_s: float = 0.0) -> None:
        """Begin.

        :param watchers: idle sessions, and the server process that served each of them last.
        :param usual_s: how long a login with a first query took, when nobody had to wait.
        """
        self.chain = chain
        self.watchers = watchers
        self.holders: dict[Wire, int] = {}
        self.waiting: list[Wire] = []
        #: how the server answered BEGIN when it does not allow it
        self.no_blocks = ""
        #: why no further session could be opened
        self.limit = ""
        #: whether it was that none was left
        self.starved = False
        #: whether the server has answered a BEGIN with a transaction
        self.allows_blocks = False
        self._slowest_s = usual_s

    def add_holder(self) -> int | None:
        """Let one more session hold a server connection, and return its process; None when none is left."""
        wire: Wire | None = None
        began = time.monotonic()
        try:
            wire = self._open()
            pid = self.hold(wire)
        except TimedOutError:
            if wire:
                self.waiting.append(wire)
            if not self.chain.deadline.left_s():
                self.limit = "the deadline came before the next session had one"
                return None
            self.starved = True
            self.limit = f"the next session waited for more than {self._patience_s:.1f} s"
            return None
        except (ServerError, ClosedError) as error:
            if wire:
                self.chain.drop(wire)
            if wire and isinstance(error, ServerError) and self._forbids_blocks(error):
                self.no_blocks = error.what
                self._look_again()
                return self.add_holder()
            self.limit = f"the next session was refused: {error.what}"
            return None
        self._slowest_s = max(self._slowest_s, time.monotonic() - began)
        self.holders[wire] = pid
        return pid

    def _open(self) -> Wire:
        """Log one more session in. One that we closed a moment ago may still count where their number is limited."""
        again = self.chain.deadline.within(self._patience_s)

        def probe() -> Wire:
            try:
                return self.chain.open(within_s=max(_LOGIN_S, self._patience_s))
            except (ServerError, ClosedError) as error:
                if not again.left_s():
                    raise
                raise NotYet(str(error)) from None

        return poll(probe, what="one more session", deadline_s=self.chain.deadline.left_s(), interval_s=0.1)

    def _look_again(self) -> None:
        """Ask the watchers where they are now: what refuses BEGIN closes the server connection that it was sent to."""
        for wire in self.watchers:
            self.watchers[wire] = int(wire.query(_PID)[0][0] or 0)

    def _forbids_blocks(self, error: ServerError) -> bool:
        return not self.no_blocks and error.sqlstate == _PROTOCOL_VIOLATION and "statement pool" in error.message

    @property
    def _patience_s(self) -> float:
        return max(_WAIT_S, self._slowest_s * _SLOWNESS)

    def hold(self, wire: Wire) -> int:
        """Open a transaction as :meth:`begin` does, and wait no longer than usual for a server connection.

        :raises TimedOutError: the answer is still to come then, and :meth:`release` takes care of it.
        """
        usual = wire.deadline
        wire.deadline = usual.within(self._patience_s)
        try:
            return self.begin(wire)
        finally:
            wire.deadline = usual

    def begin(self, wire: Wire) -> int:
        """Open a transaction, and return the server process that it is on."""
        if self.no_blocks:
            # where BEGIN is not allowed, a statement whose Sync is still to come holds the server connection;
            # it reads nothing but a pid
            (pid,) = wire.pipe(parse("", _PID), *run(""), until="12C")[0]
        else:
            (pid,) = wire.query(f"{_BEGIN}; {_PID}")[0]
            self.allows_blocks = True
        return int(pid or 0)

    def end(self, wire: Wire) -> None:
        """Leave a transaction, undone."""
        if wire.piping:
            wire.sync()
        if wire.status in {"T", "E"}:
            wire.query("ROLLBACK")

    def ask_moved(self, wire: Wire, statement: str) -> Move | None:
        """Ask a watcher whose server connection is held by another; None when it would have to wait.

        :param statement: its first column is the pid.
        """
        usual = wire.deadline
        wire.deadline = usual.within(self._patience_s)
        try:
            pid, *values = wire.query(statement)[0]
        except TimedOutError:
            self.waiting.append(wire)
            return None
        finally:
            wire.deadline = usual
        move = Move(before=self.watchers[wire], after=int(pid or 0), values=tuple(each or "" for each in values))
        self.watchers[wire] = move.after
        return move

    def in_pool(self) -> int | None:
        """Return how many server processes serve this role and database, whoever uses them."""
        for wire in [*self.holders, *self.watchers]:
            rows = wire.pipe(parse("", _IN_POOL), *run(""), until="12C") if wire.piping else wire.query(_IN_POOL)
            return int(rows[0][0] or 0)
        return None

    def release(self) -> None:
        """Let go of everything but the watchers that do not wait."""
        for wire in self.waiting:
            self.watchers.pop(wire, None)
        self.chain.close([*self.holders, *self.waiting])
        self.holders, self.waiting = {}, []


def press(pressure: Pressure, probe: Wire | None, statement: str, notes: Notes) -> Move | None:
    """Find pool_mode and pool_size, and let the probe move when that can be forced.

    :param probe: the watcher that is asked after its server connection was taken; None when there is none.
    :returns: what it answered, when it moved.
    """
    chain, watchers = pressure.chain, pressure.watchers
    taken, stayed = "", True
    move: Move | None = None
    if len(set(watchers.values())) < len(watchers):
        taken = f"two sessions at a time were served by one server process, {next(iter(watchers.values()))}"
    try:
        while not chain.is_full and (pid := pressure.add_holder()) is not None:
            if not taken and pid in watchers.values():
                taken = f"an idle session's server process, {pid}, was given to another session"
            if move is None and probe is not None and watchers.get(probe) == pid:
                move = pressure.ask_moved(probe, statement)
        if not taken and not pressure.no_blocks and pressure.starved:
            stayed = _stays(pressure)
        _note_mode(pressure, taken, move, notes, stayed=stayed)
        _note_size(pressure, bool(taken or pressure.no_blocks), notes)
    finally:
        pressure.release()
    return move if move and move.before != move.after else None


def _stays(pressure: Pressure) -> bool:
    """Say whether an idle session still has its server connection while another waits for one."""
    for wire, pid in pressure.watchers.items():
        move = pressure.ask_moved(wire, _PID)
        return move is not None and move.after == pid
    return False


def _note_mode(pressure: Pressure, taken: str, move: Move | None, notes: Notes, *, stayed: bool) -> None:
    if pressure.no_blocks:
        notes.certain("pool_mode", "statement", f"BEGIN is refused: {pressure.no_blocks}")
    elif taken and not pressure.allows_blocks:
        notes.unknown("pool_mode", f"{taken}, so transaction or statement; no BEGIN was answered: {pressure.limit}")
    elif taken:
        then = f"; it went on with {move.after}" if move and move.before != move.after else ""
        notes.certain("pool_mode", "transaction", f"{taken}{then}; transactions are allowed")
    elif not stayed:
        notes.unknown("pool_mode", f"nothing was shared, {pressure.limit}, and so did an idle one that asked again")
    elif pressure.holders or pressure.waiting:
        pids = ", ".join(str(pid) for pid in pressure.watchers.values())
        how = f"{len(pressure.holders)} further sessions took no server process of an idle session ({pids})"
        notes.likely("pool_mode", "session", f"{how}; {pressure.limit or 'no more sessions are allowed'}")
    else:
        notes.unknown("pool_mode", f"no second session could be opened: {pressure.limit}")


def _note_size(pressure: Pressure, shares: bool, notes: Notes) -> None:
    held = len(pressure.holders) + (0 if shares else len(pressure.watchers))
    if not held:
        notes.unknown("pool_size", pressure.limit)
        return
    if not pressure.limit:
        notes.certain("pool_size", f"at least {held}", f"{held} were held at a time, and no more were tried")
        return
    how = f"{held} were held at a time, and {pressure.limit}"
    try:
        found = pressure.in_pool()
    except TROUBLE:
        found = None
    if found == held and pressure.starved:
        notes.likely("pool_size", str(held), f"{how}; nobody else had one")
    else:
        notes.certain("pool_size", f"at least {held}", f"{how}; others may have had some")
