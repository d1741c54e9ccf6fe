"""The rows of every table of the report, as `building.py` makes them and `columns.py` shows them."""

from __future__ import annotations

from msgspec import Struct

from harness.audit.target_loading import shipped_targets
from harness.host.readiness_file import ReadinessArea, Workflow
from harness.model import Attestation, ObservedProof, Quarantine, Section, Severity, Status, TrailProof
from harness.preflight.declaration import GateResult
from harness.report.baseline import BaselineComparison
from harness.report.changes import Changes
from harness.report.evidence import Row
from harness.report.feature_map import DriverRow, FeatureGroup
from harness.report.findings import REFERENCE, Findings, findings
from harness.report.histories import StoredHistory
from harness.report.ingest_rows import IngestRow
from harness.report.job_engine_rows import JobEngines
from harness.report.job_rows import JobRow
from harness.report.limits import LimitKind
from harness.report.load_rows import FaultRow, LoadRow
from harness.report.migration_rows import MigrationRow
from harness.report.outcomes import Count
from harness.report.path_rows import PathRow
from harness.report.proofs import kill_rate
from harness.report.readiness import Decision, ReadinessRow
from harness.report.repetition import ConsecutiveRow, QuarantineRow, RepeatedRow
from harness.report.topology_rows import Question, TopologyRow
from harness.report.trials import TrialRow
from harness.report.verdicts import Verdict
from harness.report.walkthrough import ItemAnswer, causes_in_words


class IssueRow(Struct, frozen=True, kw_only=True):
    """One row of the prioritised issues."""

    severity: Severity
    id: str
    symptom: str
    area: str
    owner: str
    link: str
    #: `known`, `quarantined`, or "" for an Issue that counts
    accepted: str = ""
    command: str
    topology: str
    check: str


class ParityRow(Struct, frozen=True, kw_only=True):
    """One command of another test suite, behind one topology."""

    check: str
    #: where its evidence is
    target: str
    id: str
    status: Status
    command: str
    notes: str
    #: a link to the output of the command; "" if no run has it
    output: str = ""


class LimitRow(Struct, frozen=True, kw_only=True):
    """A documented limit that a check observed."""

    kind: LimitKind
    topologies: tuple[str, ...]
    outcome: str
    check: str
    source: str


class MatrixCell(Struct, frozen=True, kw_only=True, gc=False):
    """One check in one topology."""

    status: Status
    #: what happens to a feature, such as `lost`, which is shown in place of the status; "" for other checks
    outcome: str
    #: the word of the outcome alone
    word: str
    #: of an outcome: whether it is documented; of another check: `limit`, `known`, or ""
    mark: str
    #: `proven`, `unproven`, `not proven yet`, or "" if the check does not apply
    proven: str


class MatrixRow(Struct, frozen=True, kw_only=True):
    """One check, with a cell for each topology and environment that owes a result."""

    check: str
    claim: str
    severity: Severity
    section: Section
    cells: dict[str, MatrixCell]


#: the sections of the page about systems of a project's own, in the order of the page
ABOUT = {
    Section.JOBS: "job-engines",
    Section.INGEST: "ingest",
    Section.MIGRATIONS: "migrations",
    Section.COMMANDS: "parity",
}


class Report(Struct, frozen=True, kw_only=True):
    """Everything that the templates print. `json_report.py` writes it as `report.json`."""

    #: of the harness, in the newest of the runs that are shown
    commit: str
    #: those of all runs that are shown, oldest first; of the same code, so they differ at most in documents
    commits: tuple[str, ...]
    dirty: bool
    tool_version: str
    audit_target: str
    target_summary: str
    #: of the results that are shown: the start of the first one and the end of the last one
    evidence_from: str
    evidence_to: str
    #: the revision of each foreign command that has results, in one line
    subjects: tuple[str, ...]
    status: Status
    #: in the order of the columns
    verdicts: tuple[Verdict, ...]
    counts: dict[str, Count]
    topologies: tuple[TopologyRow, ...]
    #: the environments that an operator named
    hosts: tuple[str, ...]
    questions: dict[str, tuple[Question, ...]]
    paths: tuple[PathRow, ...]
    parity: tuple[ParityRow, ...]
    migrations: tuple[MigrationRow, ...]
    preflight: tuple[GateResult, ...]
    readiness: tuple[ReadinessRow, ...]
    decisions: tuple[Decision, ...]
    walkthrough: tuple[ItemAnswer, ...]
    issues: tuple[IssueRow, ...]
    limits: tuple[LimitRow, ...]
    features: tuple[FeatureGroup, ...]
    drivers: tuple[DriverRow, ...]
    #: the topologies that are columns of `features` and `drivers`
    feature_topologies: tuple[str, ...]
    matrix: tuple[MatrixRow, ...]
    rows: tuple[Row, ...]
    #: of the rows that are shown and have one
    histories: tuple[StoredHistory, ...]
    #: smoke, resilience and soak
    trials: tuple[TrialRow, ...]
    faults: tuple[FaultRow, ...]
    #: jobs of the reference host whose runner ends
    jobs: tuple[JobRow, ...]
    loads: tuple[LoadRow, ...]
    #: None if no row is about a job engine
    job_engines: JobEngines | None
    consecutive: tuple[ConsecutiveRow, ...]
    #: the rows that a run repeated, and those that are flaky
    repeated: tuple[RepeatedRow, ...]
    quarantine: tuple[QuarantineRow, ...]
    trail_proofs: tuple[TrailProof, ...]
    notes: tuple[str, ...]
    #: one sentence for each run that was edited
    edited: tuple[str, ...] = ()
    #: of the ingest pipeline under test
    ingest: tuple[IngestRow, ...] = ()
    #: of the mutations of the rows that checks read from the trail
    observed_proofs: tuple[ObservedProof, ...] = ()
    #: claims of the audit target that no check can judge for it
    unjudged: tuple[str, ...] = ()
    #: checks that are OK without the limit that the target file documents for them
    unobserved: tuple[str, ...] = ()
    #: since another run; None if the report is compared with none
    changes: Changes | None = None
    #: since the last release of the audit trail; None if the report is compared with no baseline
    baseline: BaselineComparison | None = None

    @property
    def about(self) -> tuple[str, ...]:
        """The sections that have all rows, if every row is about a system of the project's own; else ().

        Tables about the audit trail and about PostgreSQL would come first, and have no row.
        """
        found = {ABOUT.get(row.planned.section, "") for row in self.rows}
        return () if "" in found or self.hosts else tuple(name for name in ABOUT.values() if name in found)

    @property
    def is_foreign(self) -> bool:
        """Whether the report is about an audit trail of somebody else's."""
        return self.audit_target not in REFERENCE

    @property
    def audit_target_option(self) -> str:
        """What `--audit-target` needs: the name of a shipped target, or the file of another one, wherever it is."""
        return self.audit_target if self.audit_target in shipped_targets() else f"path/to/{self.audit_target}.toml"

    @property
    def kill_rate(self) -> str:
        """How many mutations of the rows of the trail checks noticed, in words; "" when none was tried."""
        return kill_rate(self.observed_proofs)

    @property
    def findings(self) -> tuple[Findings, ...]:
        """What was found in an audit trail of somebody else's, by cause."""
        return findings((row.answer for row in self.rows), self.audit_target)

    @property
    def others(self) -> tuple[Row, ...]:
        """The rows that no finding is about: a run about somebody else's trail may have Issues of a pooler, too."""
        named = {finding.check for group in self.findings for finding in group.rows}
        return tuple(row for row in self.rows if row.planned.check not in named)

    @property
    def why_items_not_run(self) -> str:
        """Why items of the checklist are Not run, as the end of a sentence that counts them."""
        return causes_in_words(self.walkthrough)

    @property
    def has_load(self) -> bool:
        """Whether a fault, the end of a job runner or a load was planned."""
        return bool(self.faults or self.jobs or self.loads)

    @property
    def has_repetition(self) -> bool:
        """Whether anything is known about how far verdicts can be relied on."""
        return bool(self.consecutive or self.repeated or self.quarantine)

    @property
    def declares_readiness(self) -> bool:
        """Whether the project declares a readiness area or a workflow to decide about."""
        return bool(self.readiness or self.decisions)


class Declared(Struct, frozen=True, kw_only=True):
    """The input of a report that the project declares, in addition to the evidence."""

    #: a description of the audit trail under test
    target_summary: str = ""
    #: the checks that the target file documents limits for
    limited: tuple[str, ...] = ()
    #: claims of the audit target that no check can judge for it
    unjudged: tuple[str, ...] = ()
    #: what operators have signed for items of the walkthrough that are human work
    attestations: tuple[Attestation, ...] = ()
    #: for each environment, the environment that it is compared with; "" for none
    environments: dict[str, str] = {}
    readiness: tuple[ReadinessArea, ...] = ()
    workflows: tuple[Workflow, ...] = ()
    preflight: tuple[GateResult, ...] = ()
    quarantine: tuple[Quarantine, ...] = ()
    expired_quarantine: tuple[Quarantine, ...] = ()
