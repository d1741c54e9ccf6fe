"""Proofs: each check under its controls, and the checks of a trail under breaks of the trail itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.checks.execution import prove, run_check, unproven
from harness.events import ControlFinished
from harness.model import Status, TrailProof

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    from harness.checks.collection import Catalogue
    from harness.checks.observing import Observer
    from harness.checks.registry import Check, TrailBreak
    from harness.checks.workspace import Workspace
    from harness.events import Listener
    from harness.model import PlannedCheck, Result, Topology
    from harness.store import RunStore


class Prover:
    """Proves checks in the labs of a run. It stores each proof as it is made, and none after the run was stopped."""

    def __init__(
        self, catalogue: Catalogue, store: RunStore, listener: Listener, stop: Event, observer: Observer
    ) -> None:
        self._observer = observer
        self._catalogue = catalogue
        self._checks = {check.id: check for check in catalogue.checks}
        self._store = store
        self._notify = listener
        self._stop = stop

    def prove_row(self, check: Check, row: PlannedCheck, topology: Topology, workspace: Workspace) -> Result | None:
        """Run the check without a control, then under each control. A check that is not OK alone proves nothing.

        :return: the result without a control; None when the run was stopped before all controls had their proof.
        """
        watch = self._observer.watch(row)
        plain = run_check(check, row, topology, workspace, prepare=watch, interrupted=self._stop)
        self._observer.keep(row, plain)
        if not workspace.target.is_reference:  # controls break the reference layer
            return plain
        for control in self._catalogue.controls_of(check.id):
            if self._stop.is_set():
                return None
            defect = plain.feature is not None and plain.feature.defect
            if plain.status in {Status.OK, Status.NA} or defect:
                proof = prove(check, control, row, topology, workspace, self._stop, red_already=defect)
            else:
                reason = f"without a control the check is {plain.status}: {plain.reason}"
                proof = unproven(control, topology, reason)
            if self._stop.is_set():
                return None
            self._store.append_proof(proof)
            self._notify(ControlFinished(proof))
        return plain

    def prove_trail(
        self,
        pool: ThreadPoolExecutor,
        breaks: Iterable[TrailBreak],
        rows: Sequence[PlannedCheck],
        topology: Topology,
        workspace: Workspace,
    ) -> None:
        """Break the audit trail itself: exactly the checks that watch the broken part must turn to Issue.

        :param pool: runs the checks of one break side by side.
        :param breaks: each is tried on the rows of its suites.
        :param rows: the rows that are OK without a break.
        """
        for broken in breaks:
            tried = [
                row for row in rows if row.check.partition(".")[0] in broken.among and row.check not in broken.excluded
            ]
            due = broken.turns & {row.check for row in tried}
            if not due:
                continue
            began = time.monotonic()

            def id_if_issue(row: PlannedCheck, broken: TrailBreak = broken) -> str | None:
                if self._stop.is_set():
                    return None
                check, control = self._checks[row.check], broken.control_of(row.check)
                result = run_check(check, row, topology, workspace, control=control, interrupted=self._stop)
                return row.check if result.status is Status.ISSUE else None

            turned = {name for name in pool.map(id_if_issue, tried) if name}
            if self._stop.is_set():
                return
            self._store.append_trail_proof(
                TrailProof(
                    topology=topology.name,
                    name=broken.name,
                    what=broken.what,
                    tried=len(tried),
                    caught=tuple(sorted(turned)),
                    missed=tuple(sorted(due - turned)),
                    unexpected=tuple(sorted(turned - due)),
                    duration_ms=round((time.monotonic() - began) * 1000, 1),
                )
            )
