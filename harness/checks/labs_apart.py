"""Rows that crash servers: they run on further labs of their topology, which are replaced when they stop answering."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.ordering import by_attempt
from harness.checks.row_runner import not_run
from harness.errors import HarnessError
from harness.events import LabReady
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from threading import Event

    from harness.checks.open_labs import OpenLabs
    from harness.checks.registry import Check
    from harness.checks.row_runner import RowRunner
    from harness.checks.topology_records import TopologyRecords
    from harness.checks.workspace import Workspace
    from harness.events import Listener
    from harness.lab.lab import Lab
    from harness.model import PlannedCheck, Topology

#: most such labs at the same time: a load writes to each of them, and to its disk
_MOST_LABS = 4


class LabsApart:
    """Runs rows on labs that they may crash. Threads share it."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        runner: RowRunner,
        open_labs: OpenLabs,
        records: TopologyRecords,
        listener: Listener,
        *,
        start: Callable[[Topology, bool], Lab],
        stop: Event,
    ) -> None:
        """Start nothing yet.

        :param checks: by id.
        :param start: starts a lab of a topology; its second argument says whether the pooler is linked to PostgreSQL.
        :param stop: set when no check may begin any more.
        """
        self._checks = checks
        self._runner = runner
        self._open_labs = open_labs
        self._records = records
        self._notify = listener
        self._start = start
        self._stop = stop
        self._slots = BoundedSemaphore(_MOST_LABS)

    def run(self, rows: Sequence[PlannedCheck], topology: Topology, *, suffix: str = "") -> None:
        """Run rows one after another.

        The rows that need a link between the pooler and PostgreSQL get a lab of their own: others do without its cost.

        :param suffix: of the names of the labs' logs, where the topology has several such labs.
        """
        for linked in (False, True):
            if some := [row for row in rows if self._checks[row.check].server_link is linked]:
                with self._slots:
                    self._run_on_labs(some, topology, linked=linked, suffix=suffix)

    def _run_on_labs(self, rows: Sequence[PlannedCheck], topology: Topology, *, linked: bool, suffix: str) -> None:
        reasons = {row: self._runner.lacking(row, topology) for row in rows}
        if all(reasons.values()):  # no server is needed
            for row, reason in reasons.items():
                for attempt in range(1, row.attempts + 1):
                    self._runner.finish(replace(not_run(row, reason or ""), status=Status.NA, attempt=attempt))
            return
        pending = [(attempt, row) for attempt, tried in by_attempt(rows) for row in tried]
        number = 0
        while pending and not self._stop.is_set():
            number += 1
            named = f"{suffix}-{number}" if number > 1 else suffix
            pending = self._run_until_broken(pending, topology, linked=linked, suffix=named)

    def _run_until_broken(
        self, pending: list[tuple[int, PlannedCheck]], topology: Topology, *, linked: bool, suffix: str
    ) -> list[tuple[int, PlannedCheck]]:
        """Run rows on a lab of their own, until a fault leaves servers that no longer answer.

        :param pending: the number of an attempt, and its row.
        :param suffix: of the names of the lab's logs.
        :return: the rows that are left: they need other servers.
        """
        lab: Lab | None = None
        workspace: Workspace | None = None
        try:
            lab = self._start(topology, linked)
            lab.log_suffix += suffix
            self._open_labs.add(lab)
            self._records.add_own_servers(lab)
            self._notify(LabReady(topology.name, lab.evidence, own_servers=True))
            workspace = self._runner.workspace(lab)
        except HarnessError as error:
            reason = f"the servers of these checks did not start: {error.what}"
            # after an interruption, the rows are recorded with all others that had not begun
            for attempt, row in () if self._stop.is_set() else pending:
                self._runner.finish(replace(not_run(row, reason), attempt=attempt))
            return []
        else:
            for done, (attempt, row) in enumerate(pending, 1):
                self._runner.run(row, attempt, lab.topology, workspace)
                if done < len(pending) and not lab.answers():
                    return pending[done:]
            return []
        finally:
            if workspace:
                workspace.close()
            if lab:
                self._records.add_beside(lab)
                self._open_labs.tear_down(lab)
