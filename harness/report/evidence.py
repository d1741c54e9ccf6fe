"""Merge stored runs into one result for each planned row. Connects to no server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.model import (
    TRAIL,
    EnvironmentEvidence,
    EvidenceClass,
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
from harness.report.stacks import Newest, difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.store import StoredRun

#: worst first; decides wherever several statuses become one
_WORST = (Status.ISSUE, Status.NOT_RUN, Status.OK, Status.NA)

NOBODY_RAN_IT = "no run of this code has exercised it"


class Row(Struct, frozen=True, kw_only=True):
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


class TopologyRun(Struct, frozen=True, kw_only=True):
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
        return row.status is Status.NOT_RUN and (row.planned.target, row.planned.check) in self.unplanned

    def span(self) -> tuple[str, str]:
        """Return the start of the first result that is shown, and the end of the last one; "" without a result."""
        found = interval(self.rows)
        return (_iso(found[0]), _iso(found[1])) if found else ("", "")

    def subjects(self) -> dict[str, Subject]:
        """Return the identity of what the rows are about: of each command, each environment and the audit trail."""
        checks = {row.planned.check for row in self.rows if row.run_id}
        targets = {row.planned.target for row in self.rows if row.run_id}
        return {
            name: subject
            for record in self.shown
            for name, subject in record.subjects.items()
            if name in checks or name in targets or name == TRAIL
        }


# --- merging ---------------------------------------------------------------------------------------------


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
            key = (result.target, result.check)
            before = self._rows.get(key)
            if result.target in outdated:
                continue
            if self._is_of_another_pipeline(plan[key]):
                self._notes.append(
                    f"run {run.record.run_id} is left out for the suite ingest: it tried another pipeline than "
                    f"{self._pipeline[0]}, which the newest run tried"
                )
            elif result.check in others:
                self._leave_out(run.record.run_id, plan[key], others[result.check])
            elif self._declarations[key] != plan[key].declared_as and plan[key].job:
                self._leave_out(run.record.run_id, plan[key], "the files of its job engine")
            elif self._declarations[key] != plan[key].declared_as and plan[key].ingest:
                self._leave_out(run.record.run_id, plan[key], "the ingest pipeline, or its files")
            elif self._declarations[key] != plan[key].declared_as:
                self._notes.append(
                    f"run {run.record.run_id} is left out for {result.check}: its declaration in harness.toml has "
                    "changed since"
                )
            else:
                if not is_copy:
                    answered.setdefault(result.target, {})[result.check] = result
                    self._attempts.setdefault(key, []).append(RunAttempts(run_id=run.record.run_id, counts=counts))
                if before is None or _replaces(result, before, run.record):
                    self._rows[key] = Row(planned=plan[key], result=result, run_id=run.record.run_id)
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


def interval(rows: Iterable[Row]) -> tuple[datetime, datetime] | None:
    """Return the start of the first result and the end of the last one; None without a result."""
    times = [
        (start, start + timedelta(milliseconds=row.result.duration_ms))
        for row in rows
        if row.run_id and (start := read_time(row.result.started_at))
    ]
    return (min(start for start, _ in times), max(end for _, end in times)) if times else None


def read_time(text: str) -> datetime | None:
    """Read a time of the evidence; None when it is missing or invalid."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- statuses and times ----------------------------------------------------------------------------------


def worst(statuses: Iterable[Status]) -> Status:
    """Return the worst of some statuses; Not run if there are none."""
    found = set(statuses)
    return next((status for status in _WORST if status in found), Status.NOT_RUN)


def elapsed_s(results: Iterable[Result]) -> float:
    """Return the seconds from the first start to the last end; checks run concurrently, so this is not their sum."""
    ran = [
        (datetime.fromisoformat(result.started_at).timestamp(), result.duration_ms)
        for result in results
        if result.started_at
    ]
    if not ran:
        return 0.0
    return max(start + duration_ms / 1000 for start, duration_ms in ran) - min(start for start, _ in ran)


def elapsed_by_run(rows: Iterable[Row]) -> dict[str, float]:
    """Return the seconds that each run took for some rows: what passes between two runs belongs to neither."""
    of_run: dict[str, list[Result]] = {}
    for row in rows:
        if row.run_id:
            of_run.setdefault(row.run_id, []).append(row.result)
    return {run_id: elapsed_s(results) for run_id, results in of_run.items()}


def _has_own_subject(row: PlannedCheck) -> bool:
    """Return whether a row is about a project's own command; shipped migrations are harness code."""
    return row.section is Section.COMMANDS or (row.section is Section.MIGRATIONS and bool(row.declared_as))
