"""Writes that do not end because of the trail: what they wait for, and who holds it.

A write that hangs is an observation about the trail, unless the machine is slow or the harness itself holds the lock.
"""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import TYPE_CHECKING

from harness.checks.pauses import TOO_SLOW_S
from harness.checks.record import spell
from harness.database import Client, SqlError, connect
from harness.errors import HarnessError
from harness.model import EndedBy, Expectation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.checks.context import CheckContext

#: the name of the expectation that a write which does not end breaks
WRITES = "writes to the audited tables"
#: a write takes some milliseconds. One that waits hangs after so many seconds
HANGS_S = 20.0
#: waits that no slow machine explains
_WAITS = ("Lock", "Timeout", "Extension")
#: one that computes hangs after so many: a large value may take long
_COMPUTES_S = 60.0
#: another write shows within so many seconds that the machine is not slow
_QUICK_S = 2.0

#: the key of an advisory lock, as the function that takes it has it
ADVISORY_KEY = """
    CASE l.objsubid WHEN 1 THEN ((l.classid::bigint << 32) | l.objid::bigint)::text
                    ELSE concat_ws(', ', l.classid, l.objid) END
"""
#: the lock that the process `a.pid` waits for, as :func:`lock_in_words` wants it
LOCK = f"""
    l.locktype, l.mode,
    coalesce(l.relation, (SELECT r.relation FROM pg_locks r
                          WHERE r.pid = a.pid AND r.locktype = 'tuple' LIMIT 1))::regclass::text,
    {ADVISORY_KEY},
    ARRAY(SELECT DISTINCT w.relation::regclass::text FROM pg_locks w JOIN pg_class c ON c.oid = w.relation
          WHERE w.pid = a.pid AND w.granted AND w.mode = 'RowExclusiveLock' AND c.relkind IN ('r', 'p') ORDER BY 1)
"""
#: the oldest write of some roles that has run for so long, the sessions of these roles that block it, and all that do
_HUNG = f"""
    SELECT extract(epoch FROM clock_timestamp() - a.query_start)::int, concat_ws(' ', a.wait_event_type, a.wait_event),
           ARRAY(SELECT DISTINCT b.state FROM pg_stat_activity b
                 WHERE b.pid = ANY (pg_blocking_pids(a.pid)) AND b.usename = ANY (%(roles)s) ORDER BY 1),
           cardinality(pg_blocking_pids(a.pid)),
           {LOCK}
    FROM pg_stat_activity a LEFT JOIN pg_locks l ON l.pid = a.pid AND NOT l.granted
    WHERE a.datname = current_database() AND a.usename = ANY (%(roles)s) AND a.state = 'active'
      AND a.query ~* '\\m(insert|update|delete|truncate|merge|copy|commit)\\M'
      AND a.query_start < clock_timestamp() - make_interval(secs => %(longest)s)
    ORDER BY a.query_start LIMIT 1
"""


def lock_in_words(kind: str, mode: str, relation: str | None, key: str, written: Sequence[str]) -> str:
    """Return a lock in words.

    :param relation: the table that the lock is about, or a row of it.
    :param key: of an advisory lock.
    :param written: the tables that the waiting transaction writes to.
    """
    match kind:
        case "relation":
            return f"the lock {mode} on the table {relation}"
        case "advisory":
            return f"the advisory lock {key}"
        case "transactionid" | "tuple" if relation:
            return f"a row of {relation}"
        case "transactionid":
            return f"a key that it wrote, in one of {', '.join(written)}"
    return f"a lock of the type {kind}"


class HangWatch:
    """Ends a check with an Issue once a write to its tables hangs. Other checks go on."""

    def __init__(self) -> None:
        self._over = Event()
        self._began = time.time()

    def begin(self, ctx: CheckContext) -> None:
        """Look now and then in the background until the watch is closed."""
        Thread(target=self._look, args=[ctx], daemon=True, name="hang watch").start()

    def _look(self, ctx: CheckContext) -> None:
        began = time.time()
        while not self._over.wait(HANGS_S / 2):
            if not was_held_up(began, HANGS_S / 2) and (ctx.is_ended or end_hung_write(ctx)):
                return
            began = time.time()

    def look_last(self, ctx: CheckContext, limit_s: float) -> None:
        """Look once more at the time limit of the check."""
        if not was_held_up(self._began, limit_s):
            end_hung_write(ctx)

    def close(self) -> None:
        self._over.set()


def was_held_up(began: float, wait_s: float) -> bool:
    """Return whether the harness itself did not run at the end of a wait, such as after Ctrl-Z or a suspended machine.

    A check that holds a lock then releases it too late, and a write that waits for it shows nothing about the trail.

    :param began: by the clock that goes on meanwhile.
    """
    return time.time() - began > wait_s + TOO_SLOW_S


def end_hung_write(ctx: CheckContext) -> bool:
    """End a check in which a write hangs, and return whether one does."""
    if not (hung := _hung_write(ctx)):
        return False
    ctx.cut(EndedBy.TIME_LIMIT, hung, Expectation(name=WRITES, expected="done", observed=spell(hung), held=False))
    return True


def _hung_write(ctx: CheckContext) -> str:
    """Return what the oldest write waits for that hangs; "" without such a write."""
    roles = [ctx.lab.roles.app.name, ctx.lab.roles.owner.name]
    try:
        with connect(ctx.lab.admin(ctx.database), connect_timeout_s=5) as client:
            found = client.execute(_HUNG.encode(), {"roles": roles, "longest": HANGS_S}).fetchone()
            if not found:
                return ""
            seconds, event, holders, blockers, *lock = found
            if blockers and not holders:  # the harness itself holds the lock
                return ""
            if not event.startswith(_WAITS):
                event = ""
                if seconds < _COMPUTES_S or not _is_quick(client):
                    return ""
    except (SqlError, HarnessError):  # the check ends with a reason of its own
        return ""
    waits_for = lock_in_words(*lock) if lock[0] else event
    what = f"it waits for {waits_for}" if waits_for else "it computes"
    held = f", held by another session that is {' or '.join(holders)}" if holders else ""
    return f"the audited write did not end within {seconds} s; {what}{held}"


def _is_quick(client: Client) -> bool:
    """Return whether a write to a table that is not audited ends at once."""
    began = time.monotonic()
    with client.transaction(force_rollback=True):
        client.run("CREATE TEMPORARY TABLE quick ON COMMIT DROP AS SELECT generate_series(1, 100)")
    return time.monotonic() - began < _QUICK_S
