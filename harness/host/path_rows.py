"""Reads the rows that an audited path left in the trail and in its table. Checks judge the observations."""

from __future__ import annotations

import contextlib
import time
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.target import Change
from harness.database import SqlError, describe
from harness.errors import DatabaseError, TimedOutError
from harness.host.audited_table import RowsNotSeenError, TableRows, rows_in_table, trail_is_of
from harness.host.trail_reader import Recorded, Trail
from harness.model import EvidenceClass
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.database import Client
    from harness.host.declarations import Expected
    from harness.host.site import Site, Values

#: how long to watch for rows beyond the expected ones, seconds; an environment is verified rarely, so it gets longer
_LATE_S = {EvidenceClass.CI: 0.3, EvidenceClass.HOST: 2.0}
#: a host that was idle for this long writes no more rows of the attempt, seconds
_IDLE_S = 0.8


class Seen(Struct, frozen=True, kw_only=True):
    """The rows of one attempt in the trail."""

    #: the changes that hold the identifying values of the attempt
    changes: tuple[Change, ...]
    #: all changes of the table in the same transactions, `changes` included
    all_changes: tuple[Change, ...]
    #: the action of each change
    actions: tuple[Recorded | None, ...]

    @property
    def transactions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(change.transaction_id or "" for change in self.changes))


class PathRows:
    """The rows of the attempts of one path at one site."""

    def __init__(self, expected: Expected, site: Site, *, deadline_s: float, stack: contextlib.ExitStack) -> None:
        """Prepare to read; connect on first use.

        :param expected: the rows to look for in the trail.
        :param deadline_s: seconds to wait for the expected rows, unless a call says otherwise.
        :param stack: closes the connections.
        """
        self._expected = expected
        self._site = site
        self._deadline_s = deadline_s
        self._stack = stack
        self._clients: dict[Callable[[], Client], Client] = {}

    def look(self, values: Values, *, wanted: int, deadline_s: float | None = None) -> Seen:
        """Wait for the expected rows in the trail, watch for unexpected ones, and return all of them.

        :param wanted: number of rows.
        :param deadline_s: for the expected rows; the path's own by default.
        :raises DatabaseError: when the trail cannot be read.
        """
        self.wait_for(values, wanted=wanted, deadline_s=deadline_s)
        self.watch(values, wanted)
        return self.seen(values)

    def wait_for(self, values: Values, *, wanted: int, deadline_s: float | None = None) -> None:
        """Wait until the trail holds the wanted number of rows, the host is idle, or the deadline passes."""
        idle_since: float | None = None

        def probe() -> None:
            nonlocal idle_since
            is_idle = self._is_idle()
            found = self.count(values)
            if found >= wanted:
                return
            idle_since = (idle_since or time.monotonic()) if is_idle else None
            if idle_since is None or time.monotonic() - idle_since < _IDLE_S:
                raise NotYet(f"{found} rows")

        with contextlib.suppress(TimedOutError):
            deadline_s = self._deadline_s if deadline_s is None else deadline_s
            poll(probe, what="rows", deadline_s=deadline_s, interval_s=0.03)

    def watch(self, values: Values, wanted: int) -> None:
        """Wait for a moment, or until more rows than wanted appear: the host may write twice, or after it answered."""

        def more() -> None:
            if self.count(values) <= wanted:
                raise NotYet("no more rows")

        with contextlib.suppress(TimedOutError):
            poll(more, what="more rows", deadline_s=_LATE_S[self._site.evidence_class], interval_s=0.15)

    def count(self, values: Values) -> int:
        """Return how many rows of this attempt the trail holds now."""
        return len(self._trail.rows_of(self._expected, values))

    def _is_idle(self) -> bool:
        """Return whether the host has no work in progress that could still write; False when that is unknown."""
        if self._site.is_idle is None or self._site.admin is None:
            return False
        with contextlib.suppress(SqlError):
            return self._site.is_idle(self._client(self._site.admin))
        return False

    def _client(self, connect: Callable[[], Client]) -> Client:
        """Return a connection that closes with this path run; the same one for the same function."""
        client = self._clients.get(connect)
        if client is None or client.closed:
            client = self._clients[connect] = self._stack.enter_context(contextlib.closing(connect()))
        return client

    def in_table(self, values: Values) -> TableRows:
        """Return the rows of this attempt in the audited table, read with the first role that can see them.

        :raises RowsNotSeenError: when no role can; with the reason for each.
        """
        reasons = []
        for connect in filter(None, (self._site.admin, self._site.trail, self._site.application)):
            try:
                return rows_in_table(self._client(connect), self._expected, values)
            except RowsNotSeenError as error:
                reasons.append(str(error))
            except SqlError as error:
                reasons.append(describe(error))
        raise RowsNotSeenError("; ".join(dict.fromkeys(reasons)))

    def is_of_the_trail(self, rows: TableRows) -> bool | None:
        """Return whether the transactions that wrote these rows also wrote to the trail; None when that is unknown."""
        with contextlib.suppress(SqlError):
            client = self._client(self._site.trail)
            return trail_is_of(client, self._site.target.tables, rows.written_by) if rows.written_by else None
        return None

    def seen(self, values: Values) -> Seen:
        """Return the rows of this attempt in the trail, as they are now.

        :raises DatabaseError: when the trail cannot be read.
        """
        changes = tuple(self._trail.rows_of(self._expected, values))
        transactions = dict.fromkeys(change.transaction_id for change in changes if change.transaction_id)
        all_changes = tuple(self._trail.rows_with(transactions, self._expected)) if transactions else ()
        by_id = {change.action_id: self._trail.action(change.action_id) for change in changes}
        return Seen(
            changes=changes, all_changes=all_changes, actions=tuple(by_id[change.action_id] for change in changes)
        )

    @cached_property
    def _trail(self) -> Trail:
        try:
            client = self._stack.enter_context(contextlib.closing(self._site.trail()))
        except SqlError as error:
            raise DatabaseError(f"the role that reads the audit trail cannot log in: {describe(error)}") from None
        return Trail(client, self._site.target)
