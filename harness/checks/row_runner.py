"""One row of a run: its attempts or its proofs, and their results in the store."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.execution import accept_known, in_quarantine, run_check
from harness.checks.observing import Observer
from harness.checks.ordering import breaks_tried_in
from harness.checks.proving import Prover
from harness.checks.workspace import Workspace
from harness.drivers.worker import Workers
from harness.events import CheckFinished, CheckStarted
from harness.model import NOT_BEGUN, EndedBy, PlannedCheck, Result, Status
from harness.mutants.observed import MUTATIONS
from harness.store import utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    from harness.checks.registry import Check, TrailBreak
    from harness.checks.run_settings import RunSettings
    from harness.events import Listener
    from harness.lab.lab import Lab
    from harness.model import Topology
    from harness.store import RunStore


class RowRunner:
    """Runs the rows of a plan, and keeps their statuses. Threads share it."""

    def __init__(self, settings: RunSettings, store: RunStore, listener: Listener, stop: Event) -> None:
        """Run nothing yet.

        :param stop: set when no check may begin any more.
        """
        self._settings = settings
        self._store = store
        self._notify = listener
        self._stop = stop
        self._checks = {check.id: check for check in settings.catalogue.checks}
        self._observer = Observer(settings.catalogue, store, listener, stop)
        self._prover = Prover(settings.catalogue, store, listener, stop, self._observer)
        #: the processes that drivers are loaded in serve all topologies, and end with the run
        self.driver_workers = Workers()
        self._lock = Lock()
        #: of the rows that have a result, by target and check: of the last attempt
        self._statuses: dict[tuple[str, str], Status] = {}

    def workspace(self, lab: Lab) -> Workspace:
        """Return a workspace for rows of this run, on a lab that is ready.

        :raises HarnessError: when its databases cannot be made.
        """
        settings = self._settings
        return Workspace(
            lab,
            settings.target,
            settings.catalogue.fixtures,
            store=self._store,
            load=settings.load,
            listener=self._notify,
            driver_workers=self.driver_workers,
        )

    def applicable(self, topology: Topology) -> list[Check]:
        """Return the checks that are planned in a topology and apply to it and to the audit target."""
        rows = (row for row in self._settings.plan if row.target == topology.name)
        return [self._checks[row.check] for row in rows if self.lacking(row, topology) is None]

    def lacking(self, row: PlannedCheck, topology: Topology) -> str | None:
        """Return why a row does not apply to a topology or to the audit target; None if it does."""
        return self._checks[row.check].lacking(topology, self._settings.target)

    def run(self, row: PlannedCheck, attempt: int, topology: Topology, workspace: Workspace) -> None:
        """Run one attempt of a row, or prove it, and store the result."""
        check = self._checks[row.check]
        if self._settings.proving:
            self._prove_row(check, row, topology, workspace)
        else:
            self._verify_row(check, row, attempt, topology, workspace)

    def _verify_row(
        self, check: Check, row: PlannedCheck, attempt: int, topology: Topology, workspace: Workspace
    ) -> None:
        if self._stop.is_set():
            return
        if reason := workspace.why_nothing_runs():
            self.finish(replace(not_run(row, reason, EndedBy.INFRASTRUCTURE), attempt=attempt))
            return
        controls = self._settings.catalogue.controls_of(check.id)
        control = next((control for control in controls if control.name == self._settings.under), None)
        if control and (lacking := control.lacking(topology)):
            self.finish(replace(not_run(row, lacking), status=Status.NA))
            return
        self._notify(CheckStarted(topology.name, check.id))
        self.finish(
            run_check(check, row, topology, workspace, control=control, interrupted=self._stop, attempt=attempt)
        )

    def _prove_row(self, check: Check, row: PlannedCheck, topology: Topology, workspace: Workspace) -> None:
        if self._stop.is_set():
            return
        self._notify(CheckStarted(topology.name, check.id))
        if result := self._prover.prove_row(check, row, topology, workspace):
            self.finish(result)

    def prove_trail(
        self, pool: ThreadPoolExecutor, rows: Sequence[PlannedCheck], topology: Topology, workspace: Workspace
    ) -> None:
        """Try the breaks of the audit trail that this topology tries, and the mutations of the rows that checks read.

        Both are tried on the rows that are OK without them.
        """
        sound = [row for row in rows if self._statuses.get((row.target, row.check)) is Status.OK]
        if workspace.target.is_reference:
            self._break_trail(pool, sound, topology, workspace)
        if topology.name in self._settings.observed_in:
            self._observer.try_mutations(pool, MUTATIONS, topology, workspace)

    def _break_trail(
        self, pool: ThreadPoolExecutor, sound: Sequence[PlannedCheck], topology: Topology, workspace: Workspace
    ) -> None:
        breaks = breaks_tried_in(topology.name, self._settings.catalogue.trail_breaks, self._able_to_try)
        self._prover.prove_trail(pool, breaks, sound, topology, workspace)

    def _able_to_try(self, broken: TrailBreak) -> list[str]:
        """Return the names of the topologies in which a check applies that has to catch the break."""
        return [
            topology.name
            for topology in self._settings.topologies
            if any(check.id in broken.turns for check in self.applicable(topology))
        ]

    def finish(self, result: Result) -> None:
        """Store the result of one attempt, marked with the entry of harness.toml that is about it."""
        result = in_quarantine(accept_known(result, self._settings.known), self._settings.quarantine)
        result = self._store.append_or_refuse(result)
        with self._lock:
            self._statuses[result.target, result.check] = result.status
        self._notify(CheckFinished(result))

    def record_missing(self, failure: str, *, interrupted: bool) -> None:
        """Record Not run for every planned row without a result."""
        reason, ended_by = (NOT_BEGUN, EndedBy.INTERRUPTION) if interrupted else (f"the run failed: {failure}", None)
        for row in self._settings.plan:
            if (row.target, row.check) not in self._statuses:
                self.finish(not_run(row, reason, ended_by))


def not_run(row: PlannedCheck, reason: str, ended_by: EndedBy | None = None) -> Result:
    """Return the result of a row that could not run."""
    return Result(
        target=row.target,
        check=row.check,
        status=Status.NOT_RUN,
        reason=reason,
        ended_by=ended_by,
        started_at=utc_now(),
        reproduce=row.reproduce,
    )
