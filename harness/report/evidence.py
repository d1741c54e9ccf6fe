"""The evidence of a report: each planned row with its newest result, and where it comes from."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import (
    TRAIL,
    EnvironmentEvidence,
    EvidenceClass,
    ObservedProof,
    PlannedCheck,
    Proof,
    Result,
    RunAttempts,
    RunRecord,
    Status,
    Subject,
    TopologyEvidence,
    TrailProof,
)
from harness.report.spans import span_of

if TYPE_CHECKING:
    from collections.abc import Iterable


#: worst first; decides wherever several statuses become one
_WORST = (Status.ISSUE, Status.NOT_RUN, Status.OK, Status.NA)

NOBODY_RAN_IT = "no run of this code has exercised it"


class Row(Struct, frozen=True, kw_only=True, gc=False):
    """One planned check in one topology, with its newest result."""

    planned: PlannedCheck
    result: Result
    #: the name of the run folder; "" if no run exercised it
    run_id: str
    proofs: tuple[Proof, ...] = ()
    #: the attempts of each run on the same subject, oldest first, if a run repeated the row or the row is flaky
    runs: tuple[RunAttempts, ...] = ()

    @property
    def status(self) -> Status:
        return self.result.status

    @property
    def answer(self) -> tuple[PlannedCheck, Result]:
        """The row and its result, as they are counted."""
        return self.planned, self.result


class TopologyRun(Struct, frozen=True, kw_only=True, gc=False):
    """The results of one run for one topology, as far as they are about the subject of the report."""

    run_id: str
    #: by check
    results: dict[str, Result]


class Evidence(Struct, frozen=True, kw_only=True, dict=True):
    """The input of a report."""

    rows: tuple[Row, ...]
    #: how each topology was started, in the run that its rows come from
    topologies: dict[str, TopologyEvidence]
    #: the run that the evidence of each topology comes from
    records: dict[str, RunRecord]
    folders: dict[str, Path]
    #: why runs were left out, one sentence each
    left_out: tuple[str, ...] = ()
    #: one sentence for each run that was edited
    edited: tuple[str, ...] = ()
    #: which checks each break of the audit trail turned to Issue, by the name of the break
    trail_proofs: dict[str, TrailProof] = {}
    #: whether checks noticed each mutation of the rows that they read, by topology and the name of the mutation
    observed_proofs: dict[tuple[str, str], ObservedProof] = {}
    #: the operator's environments, each as the newest run that reached it found it
    environments: dict[str, EnvironmentEvidence] = {}
    #: the runs that the rows come from, oldest first
    shown: tuple[RunRecord, ...] = ()
    #: rows of foreign commands that harness.toml does not declare, as `exec` runs them: by target and check
    unplanned: frozenset[tuple[str, str]] = frozenset()
    #: the runs of each topology that were merged, oldest first
    series: dict[str, tuple[TopologyRun, ...]] = {}

    @cached_property
    def _by_topology(self) -> dict[str, tuple[Row, ...]]:
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.planned.target, []).append(row)
        return {name: tuple(rows) for name, rows in found.items()}

    def of(self, topology: str) -> tuple[Row, ...]:
        return self._by_topology.get(topology, ())

    def row(self, target: str, check: str) -> Row | None:
        """Return the row of a check on a topology or environment; None when the report has none."""
        return self._by_key.get((target, check))

    @cached_property
    def _by_key(self) -> dict[tuple[str, str], Row]:
        return {(row.planned.target, row.planned.check): row for row in self.rows}

    def class_of(self, name: str) -> EvidenceClass:
        """Return the class of the evidence about a topology or environment.

        Servers that the harness started are CI-class, whatever an operator calls the environment.
        """
        if name in self.environments:
            return EvidenceClass.CI if self.environments[name].is_a_lab else EvidenceClass.HOST
        return next((row.planned.evidence_class for row in self.of(name)), EvidenceClass.CI)

    def names(self) -> list[str]:
        return list(self._by_topology)

    def missing(self, engine: str = "auto") -> list[str]:
        """Return the topologies that have rows without a result, or results from another engine."""
        elsewhere = {name for name, record in self.records.items() if engine not in {"auto", record.engine}}
        return [
            name
            for name in self.names()
            if name in elsewhere
            or any(row.status is Status.NOT_RUN and not self._only_again(row) for row in self.of(name))
        ]

    def to_repeat(self, topology: str) -> list[Row]:
        """Return the rows that are Not run and that no plan of this project contains: `exec` must run again."""
        return [row for row in self.of(topology) if self._only_again(row)]

    def _only_again(self, row: Row) -> bool:
        return row.status is Status.NOT_RUN and self.is_unplanned(row)

    def is_unplanned(self, row: Row) -> bool:
        """Return whether no plan of this project contains a row: only `exec` tried it."""
        return (row.planned.target, row.planned.check) in self.unplanned

    def span(self) -> tuple[str, str]:
        """Return the start of the first result that is shown, and the end of the last one; "" without a result."""
        return span_of(self.rows)

    def subjects(self) -> dict[str, Subject]:
        """Return the identity of what the rows are about: of each command, each environment and the audit trail."""
        # other rows show nothing about a revision
        checks = {row.planned.check for row in self.rows if row.run_id and row.status in {Status.OK, Status.ISSUE}}
        targets = {row.planned.target for row in self.rows if row.run_id}
        return {
            name: subject
            for record in self.shown
            for name, subject in record.subjects.items()
            if name in checks or name in targets or name == TRAIL
        }


def worst(statuses: Iterable[Status]) -> Status:
    """Return the worst of some statuses; Not run if there are none."""
    found = set(statuses)
    return next((status for status in _WORST if status in found), Status.NOT_RUN)
