"""`report.json`: the report as data, without repeating itself. `docs/schemas/report.schema.json` describes it.

A row is below its topology and its check, `checks` has the facts that all rows of a check share, and a field with its
default is left out. Tables that follow from the rows (the matrix, the feature map, the drivers and the limits) are not
in it: :func:`rows_of` returns the rows, from which `building.py` and `feature_map.py` make them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from harness.checks.documented import read_outcome
from harness.model import (
    BackendProbe,
    EndedBy,
    EvidenceClass,
    Expectation,
    FeatureOutcome,
    JobLabel,
    KnownIssue,
    Limit,
    ObservedProof,
    PathLabel,
    PlannedCheck,
    Proof,
    Quarantine,
    Repetition,
    Result,
    RunAttempts,
    Section,
    Severity,
    Status,
    TrailProof,
)
from harness.preflight.declaration import GateResult
from harness.report.baseline import BaselineComparison
from harness.report.changes import Changes
from harness.report.evidence import Row
from harness.report.histories import StoredHistory
from harness.report.job_engine_rows import JobEngines
from harness.report.outcomes import Count, mark_of
from harness.report.path_rows import PathRow
from harness.report.proofs import NOT_PROVEN, proven
from harness.report.readiness import Decision, ReadinessRow
from harness.report.repetition import ConsecutiveRow, QuarantineRow
from harness.report.tables import IssueRow, ParityRow, Report
from harness.report.topology_rows import Question, TopologyRow
from harness.report.trials import TrialRow
from harness.report.verdicts import Verdict
from harness.report.walkthrough import ItemAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SCHEMA_VERSION = 4
#: the fields of a report that follow from its rows
DERIVED = frozenset(
    (
        *("rows", "limits", "migrations", "faults", "jobs", "loads", "ingest", "features", "drivers"),
        *("feature_topologies", "matrix", "repeated"),
    )
)


class ReportCheck(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts that all rows of a check share."""

    claim: str
    section: Section
    severity: Severity
    #: where to look first when the check is an Issue
    area: str
    #: the row of the feature map that it fills
    feature: str = ""
    path: PathLabel | None = None
    job: JobLabel | None = None


class ReportExpectation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One compared fact."""

    name: str
    expected: str
    #: left out if it is the expected value
    observed: str | UnsetType = UNSET
    held: bool = True
    consequence: bool = False
    #: false if the harness had already ended the check
    counts: bool = True


class ReportProof(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether one control turned the check to Issue at the expectation that it names."""

    control: str
    at: str
    proven: bool = True
    applicable: bool = True
    reason: str = ""


class ReportOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of a feature, as `topologies/behaviour/` spells it: `fails (08P01, closed)`."""

    observed: str
    #: any of them is as documented
    expected: tuple[str, ...]
    #: whether it is documented, a known defect, an Issue or better than documented; left out if it works as expected
    mark: str = ""
    #: the address of the documentation; left out if the expected outcome is that of a direct connection
    source: str = ""
    #: whether the product's issue tracker lists the observed outcome
    defect: bool = False
    #: whether the feature works although a limit is documented
    better: bool = False
    #: the last older version that was seen and in which the feature did not work
    better_than: str = ""


class ReportRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One check in one topology or environment."""

    status: Status
    #: why it is N/A or Not run, or the expectation that did not hold
    reason: str = ""
    #: whether controls turned the check to Issue in this topology; "" if none applies
    proven: str = NOT_PROVEN
    expectations: tuple[ReportExpectation, ...] = ()
    probes: tuple[BackendProbe, ...] = ()
    facts: dict[str, str] = {}
    limit: Limit | None = None
    feature: ReportOutcome | None = None
    #: of this Issue, if it is not that of the check
    severity: Severity | None = None
    known: KnownIssue | None = None
    #: the entry because of which the row does not decide the exit code
    quarantine: Quarantine | None = None
    #: the number of attempts that its run planned
    attempts: int = 1
    #: the attempt that the row shows
    attempt: int = 1
    #: of all attempts on the same subject, if there were several or the row is flaky
    repetition: Repetition | None = None
    #: the attempts of each run, oldest first
    runs: tuple[RunAttempts, ...] = ()
    ended_by: EndedBy | None = None
    started_at: str = ""
    duration_ms: float = 0.0
    #: left out if it is the command of its topology with the option `--check` and the name of the check
    reproduce: str | UnsetType = UNSET
    #: of an Issue of an audit trail of somebody else's: the statements of the check's sessions, for psql
    reproduction: str = ""
    #: the run that it comes from; left out if it is the run of its topology
    run_id: str | UnsetType = UNSET
    proofs: tuple[ReportProof, ...] = ()
    evidence_class: EvidenceClass = EvidenceClass.CI
    declared_as: str = ""
    #: why nobody owes an answer to the row
    out_of_scope: str = ""
    #: if it differs from that of other topologies, as runs of different projects may
    check: ReportCheck | None = None


class ReportFile(Struct, frozen=True, kw_only=True):
    """The document."""

    schema_version: int = SCHEMA_VERSION
    commit: str
    commits: tuple[str, ...]
    dirty: bool
    tool_version: str
    audit_target: str
    target_summary: str
    #: of the results that are shown: the start of the first one and the end of the last one
    evidence_from: str
    evidence_to: str
    #: the revision of each foreign command that has results
    subjects: tuple[str, ...]
    #: the worst of all rows
    status: Status
    verdicts: tuple[Verdict, ...]
    #: by topology or environment
    counts: dict[str, Count]
    topologies: tuple[TopologyRow, ...]
    #: the environments that an operator named
    hosts: tuple[str, ...]
    questions: dict[str, tuple[Question, ...]]
    paths: tuple[PathRow, ...]
    parity: tuple[ParityRow, ...]
    preflight: tuple[GateResult, ...]
    readiness: tuple[ReadinessRow, ...]
    decisions: tuple[Decision, ...]
    walkthrough: tuple[ItemAnswer, ...]
    issues: tuple[IssueRow, ...]
    #: whether the newest three runs of each topology were complete and without an Issue
    consecutive: tuple[ConsecutiveRow, ...]
    quarantine: tuple[QuarantineRow, ...]
    #: by the name of the check
    checks: dict[str, ReportCheck]
    #: by topology or environment, then by check
    rows: dict[str, dict[str, ReportRow]]
    #: the files that hold every operation of a check under load or faults; `harness judge` judges them again
    histories: tuple[StoredHistory, ...]
    #: of each topology and environment: smoke, resilience and soak
    trials: tuple[TrialRow, ...]
    #: the table of job engines and its findings; null if no row is about a job engine
    job_engines: JobEngines | None
    trail_proofs: tuple[TrailProof, ...]
    #: whether checks noticed each mutation of the rows that they read from the trail
    observed_proofs: tuple[ObservedProof, ...]
    #: claims of the audit target that no check can judge for it
    unjudged: tuple[str, ...]
    #: checks that are OK without the limit that the target file documents for them
    unobserved: tuple[str, ...]
    notes: tuple[str, ...]
    #: one sentence for each run that was edited
    edited: tuple[str, ...]
    #: since another run; null if the report is compared with none
    changes: Changes | None
    #: since the last release of the audit trail; null if the report is compared with no baseline
    baseline: BaselineComparison | None


def report_file(report: Report) -> ReportFile:
    """Return a report in the form of `report.json`."""
    checks: dict[str, ReportCheck] = {}
    rows: dict[str, dict[str, ReportRow]] = {}
    topologies = {topology.environment: topology for topology in report.topologies}
    for row in report.rows:
        name, check = row.planned.target, _check(row.planned)
        shared = checks.setdefault(row.planned.check, check)
        rows.setdefault(name, {})[row.planned.check] = _row(
            row, topologies.get(name), check=None if check == shared else check, about=report.audit_target
        )
    fields: dict[str, Any] = {name: getattr(report, name) for name in Report.__struct_fields__ if name not in DERIVED}
    return ReportFile(**fields, checks=checks, rows=rows)


def _check(planned: PlannedCheck) -> ReportCheck:
    return ReportCheck(**{name: getattr(planned, name) for name in ReportCheck.__struct_fields__})


#: the fields that a row has in common with its plan and with its result
_OF_PLAN = ("evidence_class", "declared_as", "out_of_scope", "attempts")
_OF_RESULT = tuple(
    name
    for name in Result.__struct_fields__
    if name in ReportRow.__struct_fields__ and name not in {"check", "expectations", "feature", "reproduce"}
)


def _row(row: Row, topology: TopologyRow | None, *, check: ReportCheck | None, about: str) -> ReportRow:
    return ReportRow(
        **{name: getattr(row.planned, name) for name in _OF_PLAN},
        **{name: getattr(row.result, name) for name in _OF_RESULT},
        proven=proven(row, about),
        expectations=tuple(map(_expectation, row.result.expectations)),
        feature=_outcome(row.result.feature, mark_of(row.result)) if row.result.feature else None,
        run_id=UNSET if row.run_id == _run_of(topology) else row.run_id,
        runs=row.runs,
        reproduce=UNSET if row.result.reproduce == _command(topology, row.planned.check) else row.result.reproduce,
        proofs=tuple(
            ReportProof(**{name: getattr(proof, name) for name in ReportProof.__struct_fields__})
            for proof in row.proofs
        ),
        check=check,
    )


def _run_of(topology: TopologyRow | None) -> str:
    return topology.run_id if topology else ""


def _command(topology: TopologyRow | None, check: str) -> str:
    """Return the command that reproduces a row, as rows of the topology usually have it."""
    command = topology.command if topology else ""
    return f"{command}{' --' if command.startswith('nox ') else ''} --check {check}"


def _outcome(found: FeatureOutcome, mark: str) -> ReportOutcome:
    return ReportOutcome(
        observed=str(found.observed),
        expected=tuple(map(str, found.expected)),
        mark=mark,
        source=found.source,
        defect=found.defect,
        better=found.better,
        better_than=found.better_than,
    )


def _expectation(found: Expectation) -> ReportExpectation:
    return ReportExpectation(
        name=found.name,
        expected=found.expected,
        observed=UNSET if found.observed == found.expected else found.observed,
        held=found.held,
        consequence=found.consequence,
        counts=found.counts,
    )


def rows_of(file: ReportFile) -> Iterator[Row]:
    """Yield the rows of a document, topology by topology. Of a proof, it has no duration and no broken expectations."""
    topologies = {topology.environment: topology for topology in file.topologies}
    for target, checks in file.rows.items():
        for name, row in checks.items():
            check, topology = row.check or file.checks[name], topologies.get(target)
            reproduce = _command(topology, name) if row.reproduce is UNSET else row.reproduce
            yield Row(
                planned=PlannedCheck(
                    target=target,
                    check=name,
                    reproduce=reproduce,
                    **msgspec.structs.asdict(check),
                    **{name: getattr(row, name) for name in _OF_PLAN},
                ),
                result=Result(
                    target=target,
                    check=name,
                    expectations=tuple(map(_full_expectation, row.expectations)),
                    feature=_full_outcome(row.feature) if row.feature else None,
                    reproduce=reproduce,
                    **{name: getattr(row, name) for name in _OF_RESULT},
                ),
                run_id=_run_of(topology) if row.run_id is UNSET else row.run_id,
                runs=row.runs,
                proofs=tuple(
                    Proof(topology=target, check=name, **msgspec.structs.asdict(proof)) for proof in row.proofs
                ),
            )


def _full_outcome(found: ReportOutcome) -> FeatureOutcome:
    return FeatureOutcome(
        observed=read_outcome(found.observed),
        expected=tuple(map(read_outcome, found.expected)),
        source=found.source,
        defect=found.defect,
        better=found.better,
        better_than=found.better_than,
    )


def _full_expectation(found: ReportExpectation) -> Expectation:
    observed = found.expected if found.observed is UNSET else found.observed
    return Expectation(**(msgspec.structs.asdict(found) | {"observed": observed}))


def encoded(report: Report) -> Iterable[str]:
    """Yield the document in pieces: a field on each line, and each topology, check and row on a line of its own."""
    file = report_file(report)
    yield "{"
    for number, name in enumerate(ReportFile.__struct_fields__):
        yield f'{"," if number else ""}\n"{name}": '
        if name == "rows":
            yield from _lines(file.rows, lambda checks: _lines(checks, _compact))
        elif name == "checks":
            yield from _lines(file.checks, _compact)
        else:
            yield from _compact(getattr(file, name))
    yield "\n}\n"


def _compact(value: object) -> Iterable[str]:
    return [msgspec.json.encode(value).decode()]


def _lines(values: dict[str, Any], entry: Any) -> Iterator[str]:
    yield "{"
    for number, (name, value) in enumerate(values.items()):
        yield f"{',' if number else ''}\n{msgspec.json.encode(name).decode()}: "
        yield from entry(value)
    yield "\n}"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of `report.json`."""
    found = msgspec.json.schema(ReportFile)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"report.json of pooler-harness, version {SCHEMA_VERSION}",
        **found,
    }
