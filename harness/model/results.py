"""The plan of a run, and the results of its rows and controls."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct, field

from harness.model.acceptance import KnownIssue, Quarantine
from harness.model.repetition import Repetition

# gc=False: they hold no cycles, and a report has tens of thousands of rows, which the garbage collector would search
# again and again

class Status(StrEnum):
    """The status of a row; no other values exist."""

    OK = "OK"
    ISSUE = "Issue"
    NA = "N/A"
    NOT_RUN = "Not run"


class Severity(StrEnum):
    """P0 wrong or missing audit data, or security; P1 operational friction or documentation; P2 residual depth."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"


class Section(StrEnum):
    """The sections of the report; the first seven are those of the checklist walkthrough, in its order."""

    CAPTURE = "capture"
    ACTOR = "actor"
    REDACTION = "redaction"
    RETENTION = "retention"
    EXPORT = "export"
    OBSERVABILITY = "observability"
    CONTINUITY = "continuity"
    #: PostgreSQL's features behind a pooler: the feature map
    POOLING = "pooling"
    #: audited paths of a host application (STG-02)
    PATHS = "paths"
    #: an operator's environment (STG-01)
    ENVIRONMENT = "environment"
    #: acknowledged work under faults
    RESILIENCE = "resilience"
    #: judged work under load for a stated time
    SOAK = "soak"
    #: job engines
    JOBS = "jobs"
    #: ingest pipelines
    INGEST = "ingest"
    #: migrations of a schema
    MIGRATIONS = "migrations"
    #: commands of other test suites
    COMMANDS = "commands"


class EvidenceClass(StrEnum):
    """CI: the harness started the topology. Host: an environment that an operator named."""

    CI = "CI"
    HOST = "host"


#: begins the reason of an Issue that shows a mistake in the harness, and not a broken expectation
CHECK_BROKE = "the check itself broke"


#: why a row of an interrupted run is Not run: its check had begun, or it had not
INTERRUPTED = "the run was interrupted before this check finished"
NOT_BEGUN = "the run was interrupted before this check began"


class EndedBy(StrEnum):
    """The cause that ended a check before its end, other than its subject: nothing after it is an observation."""

    #: the check's own time limit: the harness cut its connections
    TIME_LIMIT = "time limit"
    #: Ctrl-C, a signal, or an error that ended the whole run: the harness removed the servers
    INTERRUPTION = "interruption"
    #: a service, the engine, the machine or the evidence store failed
    INFRASTRUCTURE = "infrastructure"


class Expectation(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One compared fact inside a check."""

    name: str
    expected: str
    observed: str
    held: bool
    #: whether it follows from other expectations of its check; the reason of an Issue names those first
    consequence: bool = False
    #: false when the harness had already ended the check: it then shows nothing about the subject
    counts: bool = True

    @property
    def broken(self) -> bool:
        """Whether it makes its check an Issue."""
        return self.counts and not self.held


class BackendProbe(Struct, frozen=True, kw_only=True, gc=False):
    """The pids of the server connections of a forced share or move. A probe without them proves nothing."""

    #: what forced it, in one sentence without a full stop
    how: str
    first_pid: int
    second_pid: int


class Limit(Struct, frozen=True, kw_only=True, gc=False):
    """A documented limit that a check observed."""

    #: what happens, in one sentence without a full stop
    outcome: str
    #: the address of the documentation
    source: str


class Behaviour(StrEnum):
    """The behaviour of a PostgreSQL feature behind a pooler."""

    WORKS = "works"
    #: with an error that has an SQLSTATE
    FAILS = "fails"
    #: no answer within the deadline
    HANGS = "hangs"
    #: no effect, and no error
    LOST = "lost"
    #: a wrong answer without an error
    WRONG = "wrong"
    #: state or data of one client reached another
    LEAKS = "leaks"


class Outcome(Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of one probe of a feature. Its text is that of `topologies/behaviour/`: `fails (08P01, closed)`."""

    behaviour: Behaviour
    #: of the error, when the feature fails
    sqlstate: str = ""
    #: whether the error also ended the client's connection
    closed: bool = False

    def __str__(self) -> str:
        details = ", ".join(filter(None, (self.sqlstate, "closed" if self.closed else "")))
        return f"{self.behaviour} ({details})" if details else str(self.behaviour)


class FeatureOutcome(Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of a feature, compared with the documented one."""

    observed: Outcome
    #: any of them is as documented
    expected: tuple[Outcome, ...]
    #: the address of the documentation; empty when the expected outcome is that of a direct connection
    source: str = ""
    #: whether the observed outcome is a defect in the product's issue tracker
    defect: bool = False
    #: whether the feature works although a limit is documented
    better: bool = False
    #: the last older version that was seen and in which the feature did not work, with its outcome and the source
    better_than: str = ""


class PathLabel(Struct, frozen=True, kw_only=True, gc=False):
    """The audited path of a row, and the aspect of it that the row checks."""

    name: str
    #: as the rubric spells it: `POST /api/posts`
    title: str
    kind: Literal["HTTP", "job"]
    #: "" for the path itself, else another aspect of it, such as `two-callers`
    aspect: str = ""


class JobLabel(Struct, frozen=True, kw_only=True, gc=False):
    """The job engine of a row, with which settings, and the case of the suite `jobs` that the row tries."""

    #: the name of the target, such as `pg-boss`
    engine: str
    #: as its project spells it, with the version that was tried
    title: str
    #: the name of its settings, such as `default`
    variant: str
    #: such as `idle`
    case: str
    #: the path of its file, for a job engine of the project's own; "" for a shipped one, whose files are harness code
    file: str = ""


class IngestLabel(Struct, frozen=True, kw_only=True, gc=False):
    """The ingest pipeline of a row, and the case of the suite `ingest` that the row tries."""

    #: the name of the pipeline, such as `reference`
    pipeline: str
    #: as its project spells it
    title: str
    #: such as `end-to-end`
    case: str
    #: the path of its file, for a pipeline of the project's own; "" for a shipped one, whose files are harness code
    file: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """What distinguishes the pipeline from others: its name, and its file."""
        return self.pipeline, self.file


class PlannedCheck(Struct, frozen=True, kw_only=True, gc=False):
    """One planned row: a check on a target. Every planned row gets a result."""

    #: the name of a topology or of an environment; the key in a stored run is `topology`
    target: str = field(name="topology")
    check: str
    claim: str
    section: Section
    severity: Severity
    #: where to look first when the check is an Issue
    area: str
    #: the command that runs only this row
    reproduce: str
    #: the row of the feature map that it fills; none when empty
    feature: str = ""
    #: the audited path that it checks, if any
    path: PathLabel | None = None
    #: the job engine that it tries, if any
    job: JobLabel | None = None
    #: the ingest pipeline that it tries, if any
    ingest: IngestLabel | None = None
    evidence_class: EvidenceClass = EvidenceClass.CI
    #: a digest of its declaration in harness.toml, if it has one: a result for another declaration does not count
    declared_as: str = ""
    #: why nobody owes an answer to the row, in one sentence without a full stop; "" for a row that is owed
    out_of_scope: str = ""
    #: how often the run tries it
    attempts: int = 1

    @property
    def owed(self) -> bool:
        """Whether the row counts as a gap when it is Not run."""
        return not self.out_of_scope


class Result(Struct, frozen=True, kw_only=True, gc=False):
    """The result of one attempt of a planned row, of all of its attempts, or of one control of it."""

    #: the name of a topology or of an environment; the key in a stored run is `topology`
    target: str = field(name="topology")
    check: str
    status: Status
    #: one line. N/A and Not run: why. Issue: the expectation that did not hold. Empty for OK
    reason: str = ""
    expectations: tuple[Expectation, ...] = ()
    probes: tuple[BackendProbe, ...] = ()
    #: observations that are not judged, by name
    facts: dict[str, str] = {}
    limit: Limit | None = None
    feature: FeatureOutcome | None = None
    #: of this Issue, when it depends on the outcome; else the planned row has it
    severity: Severity | None = None
    #: the accepted or known Issue that this Issue is
    known: KnownIssue | None = None
    #: the cause that ended the check early, other than its subject; None when it ran to its end
    ended_by: EndedBy | None = None
    started_at: str = ""
    duration_ms: float = 0.0
    reproduce: str = ""
    #: of an Issue of an audit trail of somebody else's: the statements of the check's sessions, to repeat them in psql
    reproduction: str = ""
    #: the number of the attempt, from 1; of all attempts: of the one that the other fields are about
    attempt: int = 1
    #: the verdicts of all attempts, if there were several; a stored row is one attempt, and has none
    repetition: Repetition | None = None
    #: the entry because of which the row does not decide the exit code, whatever its status
    quarantine: Quarantine | None = None

    @property
    def gates(self) -> bool:
        """Whether it is an Issue that fails the run: nobody accepts it, and its check is not in quarantine."""
        return self.status is Status.ISSUE and self.known is None and self.quarantine is None

    @property
    def flaky(self) -> bool:
        """Whether attempts on the same subject were OK and others an Issue."""
        return self.repetition is not None and self.repetition.flaky


class Proof(Struct, frozen=True, kw_only=True, gc=False):
    """Whether one control turned its check to Issue at the expectation it names."""

    topology: str
    check: str
    control: str
    #: the name of the expectation that must not hold
    at: str
    proven: bool
    #: whether check and control apply to the topology; if not, the control is neither proven nor unproven
    applicable: bool
    #: why it is not proven or not applicable, in one line; empty when proven
    reason: str
    duration_ms: float = 0.0
    #: the expectations that did not hold under the control; empty in runs that were stored without them
    broken: tuple[Expectation, ...] = ()


class MutationState(StrEnum):
    """The outcome of one mutation of the rows that the harness reads from the trail."""

    #: a check turned to Issue
    NOTICED = "noticed"
    #: no check that was OK without it did
    SURVIVED = "survived"
    #: no check read a row that it changes, or those that look at what it changes are Issues without it
    NEVER_MET = "never met"
    #: a sound trail of this kind can show such rows
    LEFT_OUT = "left out"


class ObservedProof(Struct, frozen=True, kw_only=True):
    """Whether checks notice one mutation of the rows that the harness reads from the trail."""

    topology: str
    #: the name of the mutation, `column.operator`
    name: str
    #: completes the sentence "a trail that …"
    what: str
    state: MutationState
    #: number of checks that ran with the mutated rows; the first one that turns to Issue ends the mutation
    tried: int = 0
    #: the check that turned to Issue, and the expectation that did not hold; empty when none did
    check: str = ""
    at: str = ""
    #: why it was left out or not noticed, in one sentence; empty when it was noticed
    reason: str = ""
    duration_ms: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether checks could notice it."""
        return self.state in {MutationState.NOTICED, MutationState.SURVIVED}


class TrailProof(Struct, frozen=True, kw_only=True):
    """The checks that one break of the audit trail turned to Issue, of those that ran under it."""

    topology: str
    #: the name of the break
    name: str
    #: what the trail no longer does, in one sentence
    what: str
    #: number of checks that ran under the break
    tried: int
    #: checks that turned to Issue; the keys in a stored run are `turned`, `stayed` and `beside`
    caught: tuple[str, ...] = field(name="turned")
    #: checks that had to turn to Issue and did not
    missed: tuple[str, ...] = field(name="stayed")
    #: checks that turned to Issue although they had to stay OK
    unexpected: tuple[str, ...] = field(name="beside")
    duration_ms: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether exactly the checks that watch the broken part turned to Issue."""
        return not self.missed and not self.unexpected
