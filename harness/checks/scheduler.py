"""Execution of a plan: labs side by side, checks side by side in each, evidence as it happens, teardown always."""

from __future__ import annotations

import contextlib
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import BoundedSemaphore, Event, Lock
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.documented import newer_than_seen
from harness.checks.labs_apart import LabsApart
from harness.checks.open_labs import OpenLabs
from harness.checks.ordering import (
    begins_with_disruptive,
    by_attempt,
    groups_of,
    longest_first,
    phases_of,
)
from harness.checks.row_runner import RowRunner, not_run
from harness.checks.topology_records import TopologyRecords
from harness.errors import HarnessError
from harness.events import LabFailed, LabReady, LabStarting, Listener, Notice
from harness.lab.effective import limits_all_databases
from harness.lab.host import HOST
from harness.lab.lab import stand_up, stand_up_for_faults
from harness.lab.links import LINK
from harness.lab.recognised import recognised
from harness.lab.topologies import wanted_by
from harness.model import TopologyEvidence
from harness.store import utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.checks.run_settings import RunSettings
    from harness.checks.workspace import Workspace
    from harness.engine.owner import Owner
    from harness.engine.protocol import Engine, Wanted
    from harness.lab.lab import Lab
    from harness.model import PlannedCheck, Topology
    from harness.redaction import Redactor
    from harness.store import RunStore

#: how often the main thread interrupts its wait, so that Python delivers signals
_TICK_S = 0.1
#: most topologies at the same time: their servers share one machine, and its load delays checks with deadlines
MOST_TOPOLOGIES = 4


class Run:
    """Runs a plan. `interrupt` may be called from a signal handler."""

    def __init__(
        self,
        settings: RunSettings,
        engine: Engine,
        owner: Owner,
        store: RunStore,
        redactor: Redactor,
        listener: Listener,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._owner = owner
        self._store = store
        self._redactor = redactor
        self._checks = {check.id: check for check in settings.catalogue.checks}
        self._notify = listener
        self._labs = OpenLabs(store, listener)
        self._records = TopologyRecords(store)
        #: limits the checks without a serial group: those of groups are few, and mostly wait
        self._slots = BoundedSemaphore(settings.at_a_time)
        #: set by a signal
        self.interrupted = Event()
        #: set when no check may begin any more, whatever the cause
        self._stop = Event()
        self._runner = RowRunner(settings, store, listener, self._stop)
        #: in the order in which they start
        self._topologies = longest_first(settings.topologies, lambda found: len(self._runner.applicable(found)))
        self._apart = LabsApart(
            self._checks,
            self._runner,
            self._labs,
            self._records,
            listener,
            start=self._start_apart,
            stop=self._stop,
        )

    def interrupt(self) -> None:
        """Ask the run to end: `execute` then closes the labs, and records the remaining rows as Not run."""
        self.interrupted.set()
        self._stop.set()

    def execute(self) -> None:
        """Run the plan. On return all labs are down, and every planned row has a result on disk.

        :raises HarnessError: the first error that prevented the harness from storing evidence.
        """
        failure: BaseException | None = None
        at_a_time = max(1, min(len(self._settings.topologies), MOST_TOPOLOGIES))
        with (
            self._runner.driver_workers,
            ThreadPoolExecutor(2, thread_name_prefix="preparation") as preparation,
            ThreadPoolExecutor(at_a_time, thread_name_prefix="topology") as pool,
        ):
            running = {pool.submit(self._run_topology, topology) for topology in self._topologies}
            if any(self._runs_paths(topology) for topology in self._topologies):
                running.add(preparation.submit(self._prepare_in_advance, HOST))
            if any(topology.pooler and self._uses_link(topology) for topology in self._topologies):
                running.add(preparation.submit(self._prepare_in_advance, LINK))
            try:
                failure = self._watch(running)
            finally:
                self._labs.close_all()
        failure = failure or next((error for future in running if (error := future.exception())), None)
        state = "interrupted" if self.interrupted.is_set() else "failed" if failure else "finished"
        with contextlib.suppress(HarnessError) if failure else contextlib.nullcontext():
            self._runner.record_missing(str(failure or ""), interrupted=self.interrupted.is_set())
            self._store.update(state=state, ended_at=utc_now(), failure=str(failure or ""))
        if failure:
            raise failure

    def _watch(self, running: set[Future[None]]) -> BaseException | None:
        """Wait for the topologies. On a signal or a fatal error, close the labs, so that running checks end."""
        failure: BaseException | None = None
        closed = False
        while running:
            done, running = wait(running, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            failure = failure or next((error for future in done if (error := future.exception())), None)
            if failure:
                self._stop.set()
            if (self.interrupted.is_set() or failure) and not closed:
                closed = True
                self._engine.cancel_preparation()
                self._labs.close_all()
        return failure

    def _prepare_in_advance(self, product: Wanted) -> None:
        """Prepare what not every check needs. Topologies do not wait for it."""
        with contextlib.suppress(HarnessError):  # each check that needs it reports why it could not run
            self._engine.prepare((product,), self._notify)

    def _rows(self, topology: Topology) -> list[PlannedCheck]:
        return [row for row in self._settings.plan if row.target == topology.name]

    def _uses_link(self, topology: Topology) -> bool:
        return any(check.server_link for check in self._runner.applicable(topology))

    def _runs_paths(self, topology: Topology) -> bool:
        return any(check.path for check in self._runner.applicable(topology))

    def _run_topology(self, topology: Topology) -> None:
        """Start a lab, run its rows and close it. A lab that does not start leaves its rows Not run."""
        if self._stop.is_set():
            return
        rows = self._rows(topology)
        self._notify(LabStarting(topology.name))
        lab: Lab | None = None
        try:
            # other topologies may still be building their images
            self._engine.prepare(wanted_by(topology), self._notify)
            lab = stand_up(self._engine, topology, self._owner, self._redactor, self._stop)
            self._labs.add(lab)
            self._records.write(lab.evidence)
            self._notify(LabReady(topology.name, lab.evidence))
            with ThreadPoolExecutor(1, thread_name_prefix=f"recognition-{topology.name}") as pool:
                recognition = pool.submit(recognised, lab)
                # provision the database meanwhile
                workspace = self._runner.workspace(lab)
                lab.evidence = recognition.result()
            if newer := newer_than_seen(lab.topology, lab.evidence):
                lab.evidence = replace(lab.evidence, notes=(*lab.evidence.notes, *newer))
            self._records.write(lab.evidence)
            for sentence in newer:
                self._notify(Notice(f"{topology.name}: {sentence}"))
            for contradiction in lab.evidence.contradictions:
                self._notify(Notice(f"{topology.name}: {contradiction}"))
            if errors := [f"{name}: {state}" for name, state in workspace.attached.items() if state != "done"]:
                note = f"capture could not be attached to {'; '.join(errors)}"
                self._records.write(replace(lab.evidence, notes=(*lab.evidence.notes, note)))
                self._notify(Notice(f"{topology.name}: {note}"))
        except HarnessError as error:
            reason = "the run was interrupted" if self._stop.is_set() else f"the topology did not start: {error.what}"
            self._records.write(TopologyEvidence(declared=topology, stood=False, reason=reason))
            if not self._stop.is_set():  # else the rows are recorded with all others that had not begun
                self._notify(LabFailed(topology.name, str(error)))
                for row in rows:
                    self._runner.finish(not_run(row, reason))
            if lab:
                self._labs.tear_down(lab)
            return
        try:
            self._run_rows(lab.topology, rows, workspace)
        finally:
            workspace.close()
            self._records.add_beside(lab)
            self._labs.tear_down(lab)

    def _start_apart(self, topology: Topology, linked: bool) -> Lab:
        return stand_up_for_faults(self._engine, topology, self._owner, self._redactor, self._stop, linked=linked)

    def _run_rows(self, topology: Topology, rows: list[PlannedCheck], workspace: Workspace) -> None:
        """Run the rows of a topology: paths of the host next to others, disruptive rows while nothing else runs.

        Every row has its first attempt before any row of its phase has a second one: attempts are spread over the run.
        """
        phases = phases_of(rows, self._checks)
        disruptive = phases.disruptive
        undisturbed = Lock()
        with (
            ThreadPoolExecutor(1, thread_name_prefix=f"paths-{topology.name}") as host_thread,
            ThreadPoolExecutor(1, thread_name_prefix=f"jobs-{topology.name}") as jobs_thread,
            ThreadPoolExecutor(2, thread_name_prefix=f"apart-{topology.name}") as further_labs,
        ):
            try:
                apart = [
                    further_labs.submit(self._apart.run, phases.apart, topology),
                    further_labs.submit(self._apart.run, phases.jobs_apart, topology, suffix="-jobs"),
                ]
                if begins_with_disruptive(self._topologies, topology.name, phases):
                    self._in_turn(disruptive, topology, workspace)
                    disruptive = ()
                paths = host_thread.submit(self._run_paths, phases.paths, topology, workspace, undisturbed)
                for attempt, tried in by_attempt((*phases.together, *phases.jobs, *phases.grouped)):
                    now = phases_of(tried, self._checks)
                    at_a_time = self._settings.jobs
                    jobs = jobs_thread.submit(self._side_by_side, now.jobs, attempt, at_a_time, topology, workspace)
                    if limits_all_databases(topology):
                        jobs.result()
                    self._side_by_side(now.together, attempt, at_a_time, topology, workspace)
                    self._in_groups(now.grouped, attempt, topology, workspace)
                    jobs.result()
                with undisturbed:
                    self._in_turn(disruptive, topology, workspace)
                for others in (paths, *apart):
                    others.result()
            except BaseException:
                self._stop.set()
                raise

    def _run_paths(
        self, rows: Sequence[PlannedCheck], topology: Topology, workspace: Workspace, undisturbed: Lock
    ) -> None:
        """Run the paths of the host, from its start to its end.

        :param undisturbed: held while the host runs. Preparing the host may take long, and is done before.
        """
        needs_host = self._runs_paths(topology)
        if needs_host:
            with contextlib.suppress(HarnessError):  # each path reports why it could not run
                self._engine.prepare((HOST,), self._notify)
        with undisturbed:
            if needs_host:
                workspace.start_host()
            self._in_turn(rows, topology, workspace)
            with contextlib.suppress(HarnessError):  # the lab removes what is left of it
                workspace.end_host()

    def _in_turn(self, rows: Sequence[PlannedCheck], topology: Topology, workspace: Workspace) -> None:
        for attempt, tried in by_attempt(rows):
            self._in_groups(tried, attempt, topology, workspace)

    def _in_groups(self, rows: Sequence[PlannedCheck], attempt: int, topology: Topology, workspace: Workspace) -> None:
        """Run group after group, and the rows of a group side by side."""
        for group in groups_of(rows, self._checks):
            # paths share one host, and a control changes it while it is tried
            alone = self._settings.proving and self._checks[group[0].check].path
            self._side_by_side(group, attempt, 1 if alone else len(group), topology, workspace)

    def _side_by_side(
        self, rows: Sequence[PlannedCheck], attempt: int, at_a_time: int, topology: Topology, workspace: Workspace
    ) -> None:
        if not rows:
            return
        at_a_time = 1 if limits_all_databases(topology) else at_a_time

        def in_its_turn(row: PlannedCheck) -> None:
            check = self._checks[row.check]
            with contextlib.nullcontext() if check.serial_group else self._slots:
                self._runner.run(row, attempt, topology, workspace)

        with ThreadPoolExecutor(at_a_time, thread_name_prefix=f"check-{topology.name}") as pool:
            pending = [pool.submit(in_its_turn, row) for row in rows]
            try:
                for future in pending:
                    future.result()
                if self._settings.proving and phases_of(rows, self._checks).together:
                    self._runner.prove_trail(pool, rows, topology, workspace)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
