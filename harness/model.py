"""The frozen data of the harness: declarations of topologies, the plan and results of a run, and its evidence.

Times are UTC, ISO 8601 with a zone; durations have their unit in the name. :mod:`harness.store` writes these classes as
JSON: a new field needs a default, so that runs that were stored before are still read.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

#: 2: rows are chained by hash, and `run.json` has a seal
SCHEMA_VERSION = 2
#: the key of the audit trail among the subjects of a run
TRAIL = "audit trail"


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
    #: commands of other test suites
    COMMANDS = "commands"


class EvidenceClass(StrEnum):
    """CI: the harness started the topology. Host: an environment that an operator named."""

    CI = "CI"
    HOST = "host"


class PoolMode(StrEnum):
    """How long a client keeps a server connection, in PgBouncer's terms."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class Prepare(StrEnum):
    """How the client runs repeated statements: as named prepared statements, or unnamed."""

    NAMED = "named"
    UNNAMED = "unnamed"


class Confidence(StrEnum):
    """How certain a finding about a chain is."""

    #: the server said so, or the probe forced it and observed it
    CERTAIN = "certain"
    #: all observations agree with it, but nothing forces it
    LIKELY = "likely"
    #: no observation decides it
    UNKNOWN = "unknown"


# --- declarations: the contents of topology files and of harness.toml ------------------------------

Positive = Annotated[int, Meta(ge=1, le=100_000)]
Version = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)*$")]


class PostgresDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The PostgreSQL server at the end of the chain."""

    version: Version
    #: whether its data survives a crash: on disk, with fsync and synchronous commit, for checks that crash servers
    durable: bool = False
    #: lines of postgresql.conf
    settings: dict[str, str] = {}


class PoolerDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pooler in the middle of the chain."""

    #: a folder of `topologies/images/` and of `topologies/config/`
    product: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*$")]
    version: Version
    pool_mode: PoolMode
    #: most server connections of one pool. In a topology as it runs, all other limits are applied
    default_pool_size: Positive
    max_client_conn: Positive = 200
    max_prepared_statements: Annotated[int, Meta(ge=0)] = 200
    #: number of processes behind one address
    instances: Annotated[int, Meta(ge=1, le=4)] = 1
    #: whether these processes are peers, so that they forward cancel requests to each other
    peered: bool = False
    #: lines of the pooler's configuration file
    settings: dict[str, str] = {}
    #: options of PgBouncer's entry in [databases], which all databases share, and of each role in [users]
    database: dict[str, str] = {}
    user: dict[str, str] = {}


class ClientDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the application connects."""

    prepare: Prepare = Prepare.NAMED
    #: number of executions after which psycopg prepares a statement on the server
    prepare_threshold: Annotated[int, Meta(ge=0)] = 5


class Notifier(StrEnum):
    """How the job runner of the host application is notified of new jobs."""

    #: LISTEN through the chain; it needs session mode or a chain without a pooler
    LISTEN = "listen"
    #: it queries for new jobs at an interval
    POLL = "poll"
    #: LISTEN on a direct connection
    DIRECT = "direct"


class HostDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reference host application at the outer end of the chain, in runs that start it."""

    #: by default `listen` without a pooler and in session mode, else `poll`
    notifier: Notifier | None = None
    pool_size: Annotated[int, Meta(ge=2, le=1000)] = 4


class Topology(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named chain from the application to PostgreSQL: one file in `topologies/`."""

    #: the stem of the file, and not one of its keys
    name: str
    summary: Annotated[str, Meta(min_length=1)]
    postgres: PostgresDeclaration
    pooler: PoolerDeclaration | None = None
    client: ClientDeclaration = ClientDeclaration()
    host: HostDeclaration = HostDeclaration()
    #: the suites and checks that run unless others are named; all when empty
    verify: tuple[str, ...] = ()
    #: runs only when it is named
    on_demand: bool = False

    def verifies(self, check: str) -> bool:
        """Return whether the topology runs a check by default: `verify` names the check or its suite, or is empty."""
        return not self.verify or not {check, check.partition(".")[0]}.isdisjoint(self.verify)

    @property
    def pool_mode(self) -> PoolMode | None:
        """The pool mode; None without a pooler."""
        return self.pooler.pool_mode if self.pooler else None

    @property
    def notifier(self) -> Notifier:
        """The notifier that the host uses: LISTEN works only where a client keeps its server connection."""
        keeps = self.pool_mode in {None, PoolMode.SESSION}
        return self.host.notifier or (Notifier.LISTEN if keeps else Notifier.POLL)


class KnownIssue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An Issue that its owner accepts until a date. The report still shows it, but it does not fail the run.

    A defect in the issue tracker of a pooler is known as well: up to the version that its entry in
    `topologies/behaviour/` ends with.
    """

    #: the id of the check
    check: str
    link: Annotated[str, Meta(pattern=r"^https?://\S+$")]
    owner: Annotated[str, Meta(min_length=1)]
    #: the last day on which it is accepted, YYYY-MM-DD; empty for a defect that ends with a version
    expires: Annotated[str, Meta(pattern=r"^(\d{4}-\d{2}-\d{2})?$")]
    #: names of topologies and environments; all when empty
    topologies: tuple[str, ...] = ()


class Attestation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed statement of an operator about work that no harness can do."""

    item: Literal["sensitive-columns-reviewed", "backups-agree-with-retention"]
    #: the name of the operator
    by: Annotated[str, Meta(min_length=2)]
    #: YYYY-MM-DD
    on: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    #: one sentence about what was done, of at least three words
    statement: Annotated[str, Meta(min_length=20, max_length=400)]
    #: its source: a document or a ticket
    link: Annotated[str, Meta(pattern=r"^(https?://\S+|[\w./#-]+)$")]


# --- plan and results of a run --------------------------------------------------------------------


#: begins the reason of an Issue that shows a mistake in the harness, and not a broken expectation
CHECK_BROKE = "the check itself broke"


class EndedBy(StrEnum):
    """The cause that ended a check before its end, other than its subject: nothing after it is an observation."""

    #: the check's own time limit: the harness cut its connections
    TIME_LIMIT = "time limit"
    #: Ctrl-C, a signal, or an error that ended the whole run: the harness removed the servers
    INTERRUPTION = "interruption"
    #: a service, the engine, the machine or the evidence store failed
    INFRASTRUCTURE = "infrastructure"


class Expectation(Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class BackendProbe(Struct, frozen=True, kw_only=True):
    """The pids of the server connections of a forced share or move. A probe without them proves nothing."""

    #: what forced it, in one sentence without a full stop
    how: str
    first_pid: int
    second_pid: int


class Limit(Struct, frozen=True, kw_only=True):
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


class Outcome(Struct, frozen=True, kw_only=True):
    """The outcome of one probe of a feature. Its text is that of `topologies/behaviour/`: `fails (08P01, closed)`."""

    behaviour: Behaviour
    #: of the error, when the feature fails
    sqlstate: str = ""
    #: whether the error also ended the client's connection
    closed: bool = False

    def __str__(self) -> str:
        details = ", ".join(filter(None, (self.sqlstate, "closed" if self.closed else "")))
        return f"{self.behaviour} ({details})" if details else str(self.behaviour)


class FeatureOutcome(Struct, frozen=True, kw_only=True):
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


class PathLabel(Struct, frozen=True, kw_only=True):
    """The audited path of a row, and the aspect of it that the row checks."""

    name: str
    #: as the rubric spells it: `POST /api/posts`
    title: str
    kind: Literal["HTTP", "job"]
    #: "" for the path itself, else another aspect of it, such as `two-callers`
    aspect: str = ""


class PlannedCheck(Struct, frozen=True, kw_only=True):
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
    evidence_class: EvidenceClass = EvidenceClass.CI
    #: a digest of its declaration in harness.toml, if it has one: a result for another declaration does not count
    declared_as: str = ""
    #: why nobody owes an answer to the row, in one sentence without a full stop; "" for a row that is owed
    out_of_scope: str = ""

    @property
    def owed(self) -> bool:
        """Whether the row counts as a gap when it is Not run."""
        return not self.out_of_scope


class Result(Struct, frozen=True, kw_only=True):
    """The result of one planned row, or of one control of it."""

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


class Proof(Struct, frozen=True, kw_only=True):
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


# --- evidence about servers -----------------------------------------------------------------------


class Finding(Struct, frozen=True, kw_only=True):
    """One fact about a chain that recognition found by queries and probes, without its declaration."""

    #: the name of the fact: `pooler`, `product`, `version`, `pool_mode`, ...
    fact: str
    #: "" when it could not be found
    value: str
    #: the observation, in one sentence
    how: str
    confidence: Confidence


class ServiceEvidence(Struct, frozen=True, kw_only=True):
    """One service as it ran."""

    #: its role: `postgres` or `pooler`
    name: str
    product: str
    #: the product's own spelling of its name
    title: str = ""
    #: as the server reports it
    version: str
    #: image reference with its digest, or the path of the binary
    origin: str
    #: effective settings by name; the declared ones for a pooler without a console
    settings: dict[str, str] = {}
    #: of PostgreSQL: the parameters whose values it reports to clients, in lower case
    reported: tuple[str, ...] = ()


class TopologyEvidence(Struct, frozen=True, kw_only=True):
    """A topology as it ran, or the reason why it did not start."""

    declared: Topology
    #: whether it started
    stood: bool
    #: why it did not start; empty when it started
    reason: str = ""
    #: from the database outwards
    services: tuple[ServiceEvidence, ...] = ()
    #: the prepare policy of the client; the pooler's version may force another than the declared one
    prepare: Prepare = Prepare.NAMED
    #: sentences for the report, such as versions that differ from the declared ones
    notes: tuple[str, ...] = ()
    #: the place of the server's data, in memory or on disk, and the reason
    storage: str = ""
    #: from the start to the first answer through the whole chain
    ready_ms: float = 0.0
    #: facts about the chain, found by a client that knows nothing but its addresses
    findings: tuple[Finding, ...] = ()
    #: a sentence for each declared value that a finding contradicts
    contradictions: tuple[str, ...] = ()

    def service(self, name: str) -> ServiceEvidence:
        """Return the evidence of a service by its name: `postgres` or `pooler`.

        :raises KeyError: when no service of this name was running.
        """
        return {service.name: service for service in self.services}[name]

    def found(self, fact: str) -> Finding | None:
        """Return the finding about a fact; None when it was not found."""
        return next((finding for finding in self.findings if finding.fact == fact and finding.value), None)


class EnvironmentEvidence(Struct, frozen=True, kw_only=True):
    """An environment that an operator named, as it was found; or the reason why it could not be reached."""

    name: str
    reached: bool
    #: why it could not be reached; empty when it was
    reason: str = ""
    #: the operator's declaration of the application: its name, its pools, its prepare policy
    application: str = ""
    pools: str = ""
    prepare: Prepare | None = None
    #: a digest of its declaration in harness.toml, with paths and callers: evidence for another digest does not count
    declared_as: str = ""
    #: whether its servers are the harness's own; it then shows nothing about the operator's staging
    is_a_lab: bool = False
    #: a digest that identifies the database and its server; "" when the role may not read that
    database: str = ""
    #: versions by component: `library`, `app`
    versions: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()
    #: a sentence for each declared value that a finding contradicts
    contradictions: tuple[str, ...] = ()
    #: effective settings of the server
    settings: dict[str, str] = {}
    #: the declaration of production, by the names of facts and settings
    production: dict[str, str] = {}
    #: the person who declared production
    declared_by: str = ""
    notes: tuple[str, ...] = ()

    def found(self, fact: str) -> Finding | None:
        """Return the finding about a fact; None when it was not found."""
        return next((finding for finding in self.findings if finding.fact == fact and finding.value), None)


class Subject(Struct, frozen=True, kw_only=True):
    """The identity of what evidence is about. Evidence about another subject does not count."""

    #: everything that decides the identity, by name, such as `commit` and `uncommitted changes`
    facts: dict[str, str]
    #: of a command: its working directory, relative to the project's folder where that is possible
    folder: str = ""
    #: files that runs wrote into that folder; the identity leaves them out
    written: tuple[str, ...] = ()
    #: what the identity covers, in one sentence without a full stop
    covers: str = ""


class Provenance(Struct, frozen=True, kw_only=True):
    """The code that produced the evidence."""

    tool_version: str
    #: git commit of the project, empty outside a checkout
    commit: str
    #: whether the checkout had changes that were not committed
    dirty: bool
    #: a hash of everything that decides a result, except the topology
    fingerprint: str
    python: str
    psycopg: str


class RunRecord(Struct, frozen=True, kw_only=True):
    """`run.json`: everything about a run except its results."""

    run_id: str
    started_at: str
    argv: tuple[str, ...]
    provenance: Provenance
    evidence_class: EvidenceClass
    engine: str
    engine_version: str
    #: name and fingerprint of the audit trail under test
    audit_target: str
    #: what the evidence is about: by the id of a check of a command, the name of an environment, or :data:`TRAIL`
    subjects: dict[str, Subject] = {}
    plan: tuple[PlannedCheck, ...]
    topologies: dict[str, TopologyEvidence] = {}
    environments: dict[str, EnvironmentEvidence] = {}
    ended_at: str = ""
    #: a run that is still `running` and has no owner process any more was killed
    state: Literal["running", "finished", "interrupted", "failed"] = "running"
    #: the error that ended the run; empty unless it failed
    failure: str = ""
    #: the control that every check ran under; reports leave such a run out, because it is not evidence
    under: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def target_name(self) -> str:
        """The name of the audit target, without its fingerprint."""
        return target_name(self.audit_target)


def target_name(identity: str) -> str:
    """Return the name in the identity of an audit target, `name fingerprint`; the name may hold blanks."""
    return identity.rpartition(" ")[0] or identity
