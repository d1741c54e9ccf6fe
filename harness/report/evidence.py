"""From run folders to one answer a row: merged, completed, counted. Asks no server."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.model import PlannedCheck, Proof, Result, RunRecord, Status, TopologyEvidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.store import StoredRun

#: worst first; used wherever several answers become one
_WORST = (Status.ISSUE, Status.NOT_RUN, Status.OK, Status.NA)

NOBODY_RAN_IT = "no run of this commit has exercised it"


class Row(Struct, frozen=True, kw_only=True):
    """One planned check in one topology, with the newest answer that the evidence has."""

    planned: PlannedCheck
    result: Result
    #: the run folder's name; empty when nobody ran it
    run_id: str
    proofs: tuple[Proof, ...] = ()

    @property
    def status(self) -> Status:
        return self.result.status


class Evidence(Struct, frozen=True, kw_only=True):
    """What a report is made from."""

    rows: tuple[Row, ...]
    #: how each topology stood, in the run that its rows come from
    topologies: dict[str, TopologyEvidence]
    #: the run that each topology's evidence comes from
    records: dict[str, RunRecord]
    folders: dict[str, Path]
    #: why run folders were left out, one sentence each
    left_out: tuple[str, ...] = ()

    def of(self, topology: str) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.planned.topology == topology)

    def names(self) -> list[str]:
        return list(dict.fromkeys(row.planned.topology for row in self.rows))

    def missing(self) -> list[str]:
        """Return the topologies that still lack an answer to a row."""
        return list(dict.fromkeys(row.planned.topology for row in self.rows if row.status is Status.NOT_RUN))


def merge(runs: Sequence[StoredRun], expected: Iterable[PlannedCheck], *, fingerprint: str | None = None) -> Evidence:
    """Merge runs into one answer a row.

    Only runs of the same code go together: that of `fingerprint`, else that of the newest run. The newest
    answer wins, but an answer is never replaced by Not run. Rows nobody ran are Not run.

    :param runs: oldest first.
    :param expected: rows that the report owes an answer to, beside those that the runs planned.
    """
    chosen = fingerprint or (runs[-1].record.provenance.fingerprint if runs else "")
    taken = [run for run in runs if run.record.provenance.fingerprint == chosen]
    rows: dict[tuple[str, str], Row] = {}
    for planned in expected:
        nothing = Result(
            topology=planned.topology,
            check=planned.check,
            status=Status.NOT_RUN,
            reason=NOBODY_RAN_IT,
            reproduce=planned.reproduce,
        )
        rows[planned.topology, planned.check] = Row(planned=planned, result=nothing, run_id="")
    proofs: dict[tuple[str, str], dict[str, Proof]] = {}
    topologies: dict[str, TopologyEvidence] = {}
    records: dict[str, RunRecord] = {}
    for run in taken:
        plan = {(each.topology, each.check): each for each in run.record.plan}
        for result in run.answers():
            key = (result.topology, result.check)
            before = rows.get(key)
            if result.status is not Status.NOT_RUN or before is None or before.status is Status.NOT_RUN:
                rows[key] = Row(planned=plan[key], result=result, run_id=run.record.run_id)
        for name, stood in run.record.topologies.items():
            if stood.stood or not topologies.get(name, stood).stood:
                topologies[name], records[name] = stood, run.record
        for proof in run.proofs:
            proofs.setdefault((proof.topology, proof.check), {})[proof.control] = proof
    left_out = (
        [
            f"run {run.record.run_id} is of other code (commit {run.record.provenance.commit[:10] or 'unknown'})"
            for run in runs
            if run.record.provenance.fingerprint != chosen
        ]
        if fingerprint is None
        else []
    )
    return Evidence(
        rows=tuple(replace(row, proofs=tuple(proofs.get(key, {}).values())) for key, row in rows.items()),
        topologies=topologies,
        records=records,
        folders={run.record.run_id: run.folder for run in taken},
        left_out=tuple(left_out),
    )


def worst(statuses: Iterable[Status]) -> Status:
    """Merge answers into one: the worst wins, and nothing at all is Not run."""
    found = set(statuses)
    return next((each for each in _WORST if each in found), Status.NOT_RUN)


def elapsed_s(results: Iterable[Result]) -> float:
    """Return seconds from the first start to the last end; checks run side by side, so this is no sum."""
    ran = [
        (datetime.fromisoformat(each.started_at).timestamp(), each.duration_ms) for each in results if each.started_at
    ]
    if not ran:
        return 0.0
    return max(start + took / 1000 for start, took in ran) - min(start for start, _ in ran)


class Count(Struct, frozen=True, kw_only=True):
    """How the rows of one topology ended."""

    ok: int
    issue: int
    known: int
    na: int
    not_run: int


def count(results: Iterable[Result]) -> Count:
    results = tuple(results)
    by_status = Counter(result.status for result in results)
    return Count(
        ok=by_status[Status.OK],
        issue=by_status[Status.ISSUE],
        known=sum(result.known is not None for result in results),
        na=by_status[Status.NA],
        not_run=by_status[Status.NOT_RUN],
    )
