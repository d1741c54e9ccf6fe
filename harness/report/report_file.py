"""The data of `report.json`, without repeating itself: a row is below its topology and its check."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from harness.model import (
    BackendProbe,
    EndedBy,
    EvidenceClass,
    JobLabel,
    KnownIssue,
    Limit,
    ObservedProof,
    PathLabel,
    Quarantine,
    Repetition,
    RunAttempts,
    Section,
    Severity,
    Status,
    TrailProof,
)
from harness.preflight.declaration import GateResult
from harness.report.baseline import BaselineComparison
from harness.report.changes import Changes
from harness.report.histories import StoredHistory
from harness.report.job_engine_rows import JobEngines
from harness.report.outcomes import Count
from harness.report.path_rows import PathRow
from harness.report.proofs import NOT_PROVEN
from harness.report.readiness import Decision, ReadinessRow
from harness.report.repetition import ConsecutiveRow, QuarantineRow
from harness.report.tables import IssueRow, ParityRow
from harness.report.topology_rows import Question, TopologyRow
from harness.report.trials import TrialRow
from harness.report.verdicts import Verdict
from harness.report.walkthrough import ItemAnswer

SCHEMA_VERSION = 4


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


class ReportExpectation(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
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


class ReportOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
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


class ReportRow(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
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
