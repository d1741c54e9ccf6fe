"""Merge stored runs into one result for each planned row. Connects to no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.model import (
    EnvironmentEvidence,
    EvidenceClass,
    ObservedProof,
    PlannedCheck,
    Proof,
    Result,
    RunAttempts,
    RunRecord,
    Section,
    Status,
    Subject,
    Topology,
    TopologyEvidence,
    TrailProof,
    target_name,
    total,
)
from harness.report.evidence import NOBODY_RAN_IT, Evidence, Row, TopologyRun
from harness.report.stacks import Newest, difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from harness.store import StoredRun


def merge(
    runs: Sequence[StoredRun],
    expected: Iterable[PlannedCheck],
    *,
    declared: Mapping[str, Topology] | None = None,
    fingerprint: str | None = None,
    target: str | None = None,
    left_out: Iterable[str] = (),
    environments: Mapping[str, str] | None = None,
    job_engines: Mapping[tuple[str, str], str] | None = None,
    subjects: Mapping[str, Subject] | None = None,
) -> Evidence:
    """Merge runs into one result for each row.

    Only runs of the same code are merged, and only results about the same subject. Within a topology they also need the
    same declaration, the same engine, and the same images or binaries as its newest run. `left_out` of the result names
    everything that was not merged.

    The newest result wins, with one exception: in a topology, Not run never replaces a result, because the same code
    started the same servers. An operator's environment changes without the harness, so there Not run replaces a result
    unless that is an Issue or the run was interrupted. A row without a result is Not run.

    :param runs: oldest first.
    :param expected: rows that the report needs, in addition to those that the runs planned.
    :param declared: the topologies as they are declared now; runs of another declaration are left out.
    :param fingerprint: of the code; the newest run's if None.
    :param target: the audit target that the report is about; the newest run's if None. Proofs are used whatever their
        audit target is, because they are about the checks.
    :param left_out: sentences about what was left out earlier.
    :param environments: the operator's environments, each with a digest of its declaration now.
    :param job_engines: the digest of the files of a project's own job engines and ingest pipeline now, by target and
        check of their rows; that of the newest run by default.
    :param subjects: the identity of each command now, by the id of its check; that of the newest run by default.
    """
    code = fingerprint or (runs[-1].record.provenance.fingerprint if runs else "")
    notes = list(left_out)
    usable = []
    for run in runs:
        if run.record.provenance.fingerprint == code:
            usable.append(run)
        else:
            notes.append(f"run {run.record.run_id} is left out: it ran other harness code")
        if run.torn:
            notes.append(f"run {run.record.run_id} has {run.torn} damaged rows; they count as Not run")
    newest = Newest.of(
        [run.record for run in usable],
        topologies=declared or {},
        environments=environments or {},
        audit_target=target,
    )
    expected = tuple(expected)
    pipeline = newest_pipeline(usable)
    declarations = {
        (row.target, row.check): row.declared_as
        for run in usable
        for row in run.record.plan
        if not row.ingest or row.ingest.identity == pipeline
    }
    declarations |= dict(job_engines or {})
    declarations |= {(row.target, row.check): row.declared_as for row in expected}
    merging = _Merging(
        expected,
        declarations,
        newest,
        notes,
        target or (usable[-1].record.audit_target if usable else ""),
        pipeline,
        {name: subject for run in usable for name, subject in run.record.subjects.items()} | dict(subjects or {}),
    )
    for run in usable:
        merging.add(run)
    return merging.evidence()


def newest_pipeline(runs: Sequence[StoredRun]) -> tuple[str, str]:
    """Return the identity of the ingest pipeline that the newest run with rows of the suite `ingest` tried.

    Rows of different pipelines have the same names, so a report is about one of them.

    :param runs: oldest first.
    :return: empty texts if no run has such rows.
    """
    labels = (row.ingest for run in reversed(runs) for row in run.record.plan if row.ingest)
    return next((label.identity for label in labels), ("", ""))


class _Merging:
    """The evidence of the runs that were added so far, oldest first."""

    def __init__(
        self,
        expected: Iterable[PlannedCheck],
        declarations: Mapping[tuple[str, str], str],
        newest: Newest,
        notes: list[str],
        audit_target: str,
        pipeline: tuple[str, str],
        subjects: Mapping[str, Subject],
    ) -> None:
        #: the declaration of each row that counts: the present one, or that of the newest run of a row on demand
        self._declarations = declarations
        self._newest = newest
        self._notes = notes
        self._audit_target = audit_target
        self._pipeline = pipeline
        self._subjects = subjects
        self._rows = {(planned.target, planned.check): _not_run(planned) for planned in expected}
        self._expected = frozenset(self._rows)
        #: rows with results about another subject only
        self._outdated: dict[tuple[str, str], Row] = {}
        self._shown: dict[str, RunRecord] = {}
        self._attempts: dict[tuple[str, str], list[RunAttempts]] = {}
        self._series: dict[str, list[TopologyRun]] = {}
        #: by topology and check, then by the name of the control
        self._proofs: dict[tuple[str, str], dict[str, Proof]] = {}
        self._trail_proofs: dict[str, TrailProof] = {}
        self._observed_proofs: dict[tuple[str, str], ObservedProof] = {}
        self._topologies: dict[str, TopologyEvidence] = {}
        self._environments: dict[str, EnvironmentEvidence] = {}
        self._records: dict[str, RunRecord] = {}
        self._folders: dict[str, Path] = {}

    def evidence(self) -> Evidence:
        for key, row in self._outdated.items():
            if key not in self._rows or self._rows[key].result.reason == NOBODY_RAN_IT:
                self._rows[key] = row
        from_runs = {row.run_id for row in self._rows.values()}
        return Evidence(
            rows=tuple(self._with_attempts(key, row) for key, row in self._rows.items()),
            shown=tuple(record for name, record in self._shown.items() if name in from_runs),
            unplanned=frozenset(
                key
                for key, row in self._rows.items()
                if row.planned.section is Section.COMMANDS and key not in self._expected
            ),
            topologies=self._topologies,
            records=self._records,
            folders=self._folders,
            left_out=tuple(dict.fromkeys(self._notes)),
            trail_proofs=self._trail_proofs,
            observed_proofs=self._observed_proofs,
            environments=self._environments,
            series={name: tuple(runs) for name, runs in self._series.items()},
        )

    def _with_attempts(self, key: tuple[str, str], row: Row) -> Row:
        """Return a row with its proofs, and with what all runs on the same subject say about it."""
        row = replace(row, proofs=tuple(self._proofs.get(key, {}).values()))
        runs = tuple(self._attempts.get(key, ()))
        counts = total(run.counts for run in runs)
        repeated = any(run.counts.attempts > 1 for run in runs)
        # an environment may change between two runs without the harness
        if not repeated and not (counts.flaky and row.planned.evidence_class is EvidenceClass.CI):
            return row
        return replace(row, runs=runs, result=replace(row.result, repetition=counts))

    def add(self, run: StoredRun) -> None:
        record = run.record
        is_copy = record.run_id in self._folders
        self._folders[record.run_id] = run.folder
        self._shown[record.run_id] = record
        self._trail_proofs |= {
            proof.name: proof for proof in run.trail_proofs if self._newest.has_servers_of(record, proof.topology)
        }
        if record.audit_target != self._audit_target:
            name = target_name(self._audit_target)
            if record.target_name == name:
                self._notes.append(f"run {record.run_id} is left out: it tested another version of audit target {name}")
            self._add_proofs(
                run, (proof for proof in run.proofs if self._newest.has_servers_of(record, proof.topology))
            )
            return
        outdated = self._newest.differences(record)
        self._note_outdated(run, outdated)
        others = self._other_subjects(record)
        self._observed_proofs |= {
            (proof.topology, proof.name): proof for proof in run.observed_proofs if proof.topology not in outdated
        }
        self._add_results(run, outdated, others, is_copy=is_copy)
        self._add_environments(record, outdated)
        for name, topology in record.topologies.items():
            # a run that could not start the topology does not replace one that could
            if name not in outdated and (topology.stood or not self._topologies.get(name, topology).stood):
                self._topologies[name], self._records[name] = topology, record
        self._add_proofs(
            run, (proof for proof in run.proofs if proof.topology not in outdated and proof.check not in others)
        )

    def _add_proofs(self, run: StoredRun, proofs: Iterable[Proof]) -> None:
        plan = {(row.target, row.check): row for row in run.record.plan}
        for proof in proofs:
            key = (proof.topology, proof.check)
            if key in plan and self._is_of_another_pipeline(plan[key]):
                continue
            if key not in plan or plan[key].declared_as == self._declarations[key]:
                self._proofs.setdefault(key, {})[proof.control] = proof

    def _is_of_another_pipeline(self, planned: PlannedCheck) -> bool:
        return planned.ingest is not None and planned.ingest.identity != self._pipeline

    def _note_outdated(self, run: StoredRun, outdated: Mapping[str, str]) -> None:
        for name, reason in outdated.items():
            issues = sum(result.target == name and result.status is Status.ISSUE for result in run.results)
            including = f", including its Issue rows ({issues})" if issues else ""
            self._notes.append(f"run {run.record.run_id} is left out for {name}{including}: {reason}")

    def _add_results(
        self, run: StoredRun, outdated: Mapping[str, str], others: Mapping[str, str], *, is_copy: bool
    ) -> None:
        """Merge the results of a run.

        :param is_copy: whether the same run was merged before, from another folder: its attempts count once.
        """
        plan = {(planned.target, planned.check): planned for planned in run.record.plan}
        answered: dict[str, dict[str, Result]] = {}
        for result, counts in run.tried():
            if result.target in outdated:
                continue
            key = (result.target, result.check)
            planned = plan[key]
            is_as_declared = planned.declared_as == self._declarations.get(key)
            if self._is_of_another_pipeline(planned):
                self._notes.append(
                    f"run {run.record.run_id} is left out for the suite ingest: it tried another pipeline than "
                    f"{self._pipeline[0]}, which the newest run tried"
                )
            # N/A follows from the declaration, which is compared below
            elif result.check in others and result.status is not Status.NA:
                self._leave_out(run.record.run_id, planned, others[result.check])
            elif not is_as_declared and planned.job:
                self._leave_out(run.record.run_id, planned, "the files of its job engine")
            elif not is_as_declared and planned.ingest:
                self._leave_out(run.record.run_id, planned, "the ingest pipeline, its files, or its store")
            elif not is_as_declared:
                self._notes.append(
                    f"run {run.record.run_id} is left out for {result.check}: its declaration in harness.toml has "
                    "changed since"
                )
            else:
                if not is_copy:
                    answered.setdefault(result.target, {})[result.check] = result
                    self._attempts.setdefault(key, []).append(RunAttempts(run_id=run.record.run_id, counts=counts))
                before = self._rows.get(key)
                if before is None or _replaces(result, before, run.record):
                    self._rows[key] = Row(planned=planned, result=result, run_id=run.record.run_id)
        for name, results in answered.items():
            self._series.setdefault(name, []).append(TopologyRun(run_id=run.record.run_id, results=results))

    def _other_subjects(self, record: RunRecord) -> dict[str, str]:
        """Return the checks whose subject in a run is another one than the one that counts, each with the difference.

        The audit trail is compared as a whole, and environments by :class:`Newest`.
        """
        commands = {row.check for row in record.plan if _has_own_subject(row)}
        found = {
            check: difference(record.subjects[check], self._subjects[check])
            if check in record.subjects
            else "the run does not say which revision it tested"
            for check in commands
        }
        return {check: why for check, why in found.items() if why}

    def _leave_out(self, run_id: str, planned: PlannedCheck, why: str) -> None:
        self._notes.append(
            f"run {run_id} is left out for {planned.check} on {planned.target}: what it tested has changed: {why}; "
            f"run it again: {planned.reproduce}"
        )
        row = _not_run(planned)
        reason = f"what the evidence is about has changed: {why}"
        self._outdated[planned.target, planned.check] = replace(row, result=replace(row.result, reason=reason))

    def _add_environments(self, record: RunRecord, outdated: Mapping[str, str]) -> None:
        for name, environment in record.environments.items():
            if not environment.reached and name in self._environments:
                self._notes.append(
                    f"run {record.run_id} did not reach {name}: {environment.reason}; the report shows what an older "
                    "run found there"
                )
            elif name not in outdated:
                self._environments[name], self._records[name] = environment, record


def _not_run(planned: PlannedCheck) -> Row:
    result = Result(
        target=planned.target,
        check=planned.check,
        status=Status.NOT_RUN,
        reason=NOBODY_RAN_IT,
        reproduce=planned.reproduce,
    )
    return Row(planned=planned, result=result, run_id="")


def _replaces(result: Result, before: Row, record: RunRecord) -> bool:
    """Return whether a newer result replaces an older one."""
    if result.status is not Status.NOT_RUN or before.status is Status.NOT_RUN:
        return True
    # an Issue stays until a run shows that it is fixed
    return result.target in record.environments and record.state == "finished" and before.status is not Status.ISSUE


def _has_own_subject(row: PlannedCheck) -> bool:
    """Return whether a row is about a project's own command; shipped migrations are harness code."""
    return row.section is Section.COMMANDS or (row.section is Section.MIGRATIONS and bool(row.declared_as))
