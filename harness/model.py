"""The frozen data that flows from a plan to a printed table.

Times are UTC, ISO 8601 with a zone; durations carry their unit in the name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

SCHEMA_VERSION = 1


class Status(StrEnum):
    """The only four words a row may say."""

    OK = "OK"
    ISSUE = "Issue"
    NA = "N/A"
    NOT_RUN = "Not run"


class Severity(StrEnum):
    """P0 wrong or missing audit data, or security; P1 operational friction or docs; P2 residual depth."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"


class Section(StrEnum):
    """The seven sections of the checklist walkthrough, in its order."""

    CAPTURE = "capture"
    ACTOR = "actor"
    REDACTION = "redaction"
    RETENTION = "retention"
    EXPORT = "export"
    OBSERVABILITY = "observability"
    CONTINUITY = "continuity"
    #: no sections of the walkthrough: what a pooler does to PostgreSQL's features,
    POOLING = "pooling"
    #: the audited paths of a host application (STG-02),
    PATHS = "paths"
    #: an operator's environment (STG-01),
    ENVIRONMENT = "environment"
    #: and commands of other test suites
    COMMANDS = "commands"


class EvidenceClass(StrEnum):
    """CI: the harness stood the topology up. Host: an environment that an operator named."""

    CI = "CI"
    HOST = "host"


class PoolMode(StrEnum):
    """PgBouncer's three ways of assigning server connections."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class Prepare(StrEnum):
    """What the client does with statements it repeats."""

    NAMED = "named"
    UNNAMED = "unnamed"


class Confidence(StrEnum):
    """How far a finding about somebody's servers can be relied on."""

    #: told by the server itself, or forced and seen
    CERTAIN = "certain"
    #: everything that was tried agrees with it, and nothing forces it
    LIKELY = "likely"
    #: nothing that was tried tells
    UNKNOWN = "unknown"


# --- what a topology file declares ---------------------------------------------------------------

Positive = Annotated[int, Meta(ge=1, le=100_000)]
Version = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)*$")]


class PostgresDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The PostgreSQL server at the end of the chain."""

    version: Version
    #: its data survives a crash: on disk, with fsync and synchronous commit, for checks that crash servers
    durable: bool = False
    settings: dict[str, str] = {}


class PoolerDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pooler in the middle of the chain."""

    #: a folder of `topologies/images/` and of `topologies/config/`
    product: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]*$")]
    version: Version
    pool_mode: PoolMode
    default_pool_size: Positive
    max_client_conn: Positive = 200
    max_prepared_statements: Annotated[int, Meta(ge=0)] = 200
    #: processes behind the one address
    instances: Annotated[int, Meta(ge=1, le=4)] = 1
    #: whether those know each other, so that a cancel request finds its way
    peered: bool = False
    settings: dict[str, str] = {}


class ClientDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the application connects."""

    prepare: Prepare = Prepare.NAMED
    #: psycopg prepares a statement on the server after it was executed this often
    prepare_threshold: Annotated[int, Meta(ge=0)] = 5


class Notifier(StrEnum):
    """How the host application's job runner learns of new jobs."""

    #: LISTEN through the chain, which a pooler in session mode lets through
    LISTEN = "listen"
    #: it looks for them at an interval
    POLL = "poll"
    #: LISTEN past the pooler
    DIRECT = "direct"


class HostDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reference host application at the outer end of the chain, where it is started."""

    #: listen without a pooler and in session mode, else poll, when it is left out
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
        """Return whether this topology is there for a check: its `verify` names the check, its suite, or nothing."""
        return not self.verify or not {check, check.partition(".")[0]}.isdisjoint(self.verify)

    @property
    def pool_mode(self) -> PoolMode | None:
        return self.pooler.pool_mode if self.pooler else None

    @property
    def notifier(self) -> Notifier:
        """What the host's job runner gets: LISTEN survives only where a client keeps its server connection."""
        keeps = self.pool_mode in {None, PoolMode.SESSION}
        return self.host.notifier or (Notifier.LISTEN if keeps else Notifier.POLL)


class KnownIssue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An Issue that its owner accepts until a day; it still shows, and no longer fails the run.

    A defect of a pooler that is in the product's own issue tracker is known, too: until the version that its entry in
    `topologies/behaviour/` ends with.
    """

    check: str
    link: Annotated[str, Meta(pattern=r"^https?://\S+$")]
    owner: Annotated[str, Meta(min_length=1)]
    #: the last day it is accepted, YYYY-MM-DD; empty for a defect that is known by version
    expires: Annotated[str, Meta(pattern=r"^(\d{4}-\d{2}-\d{2})?$")]
    topologies: tuple[str, ...] = ()


class Attestation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator states about work that no harness can do, and signs."""

    item: Literal["sensitive-columns-reviewed", "backups-agree-with-retention"]
    by: Annotated[str, Meta(min_length=2)]
    #: YYYY-MM-DD
    on: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    #: one sentence of three words at least: what was done
    statement: Annotated[str, Meta(min_length=20, max_length=400)]
    #: where it can be read again: a document, a ticket
    link: Annotated[str, Meta(pattern=r"^(https?://\S+|[\w./#-]+)$")]


# --- what a run plans and finds -------------------------------------------------------------------


class Expectation(Struct, frozen=True, kw_only=True):
    """One compared fact inside a check."""

    name: str
    expected: str
    observed: str
    held: bool


class BackendProbe(Struct, frozen=True, kw_only=True):
    """The backend pids that a forced share or move was seen on; without them a probe is worth nothing."""

    how: str
    first_pid: int
    second_pid: int


class Limit(Struct, frozen=True, kw_only=True):
    """A documented limit that a check saw at work: what happens, and who documents it."""

    outcome: str
    source: str


class Behaviour(StrEnum):
    """What becomes of a feature of PostgreSQL behind a pooler."""

    WORKS = "works"
    #: loudly: with an SQLSTATE
    FAILS = "fails"
    HANGS = "hangs"
    LOST = "lost"
    WRONG = "wrong"
    #: one client's state or data reached another
    LEAKS = "leaks"


class Outcome(Struct, frozen=True, kw_only=True):
    """How one probe of a feature ended."""

    behaviour: Behaviour
    #: of a loud failure
    sqlstate: str = ""
    #: whether the failure also cost the client its connection
    closed: bool = False

    def __str__(self) -> str:
        told = ", ".join(filter(None, (self.sqlstate, "closed" if self.closed else "")))
        return f"{self.behaviour} ({told})" if told else str(self.behaviour)


class FeatureOutcome(Struct, frozen=True, kw_only=True):
    """What a feature came to, beside what it should come to and who says so."""

    observed: Outcome
    expected: tuple[Outcome, ...]
    #: where the expected behaviour is documented; empty when it is that of a direct connection
    source: str = ""
    #: what was observed is a defect that the product's issue tracker knows
    defect: bool = False


class PathLabel(Struct, frozen=True, kw_only=True):
    """Which audited path a row is about, and what of it."""

    name: str
    #: as the rubric calls it: `POST /api/posts`
    title: str
    kind: Literal["HTTP", "job"]
    #: "" for the path itself; else what else was tried with it, such as `two-callers`
    aspect: str = ""


class PlannedCheck(Struct, frozen=True, kw_only=True):
    """One row that the run owes an answer to."""

    #: the name of a topology or of an environment; the key in a stored run is `topology`
    target: str = field(name="topology")
    check: str
    claim: str
    section: Section
    severity: Severity
    area: str
    reproduce: str
    #: the row of the feature map that it fills, if any
    feature: str = ""
    #: the audited path that it is about, if any
    path: PathLabel | None = None
    #: whether it is owed about an environment that an operator named
    evidence_class: EvidenceClass = EvidenceClass.CI
    #: a digest of what harness.toml declares of it, where it does: an answer to another is none to this
    declared_as: str = ""


class Result(Struct, frozen=True, kw_only=True):
    """The answer to one planned row, or to one control of it."""

    #: the name of a topology or of an environment; the key in a stored run is `topology`
    target: str = field(name="topology")
    check: str
    status: Status
    #: N/A and Not run: why, in one line. Issue: what did not hold.
    reason: str = ""
    expectations: tuple[Expectation, ...] = ()
    probes: tuple[BackendProbe, ...] = ()
    facts: dict[str, str] = {}
    limit: Limit | None = None
    feature: FeatureOutcome | None = None
    #: of this Issue, where it depends on what was seen
    severity: Severity | None = None
    known: KnownIssue | None = None
    started_at: str = ""
    duration_ms: float = 0.0
    reproduce: str = ""


class Proof(Struct, frozen=True, kw_only=True):
    """Whether one control turned its check to Issue at the expectation it names."""

    topology: str
    check: str
    control: str
    at: str
    proven: bool
    #: N/A rows are neither proven nor failed
    applicable: bool
    reason: str
    duration_ms: float = 0.0
    #: the expectations that did not hold under the control; empty in runs that were stored without them
    broken: tuple[Expectation, ...] = ()


class TrailProof(Struct, frozen=True, kw_only=True):
    """Which checks one break of the audit trail turned to Issue, of those that were run under it."""

    topology: str
    name: str
    what: str
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
        return not self.missed and not self.unexpected


class Finding(Struct, frozen=True, kw_only=True):
    """One fact about a chain, found by asking and trying instead of believing what is declared."""

    #: what the fact is about: `pooler`, `product`, `version`, `pool_mode`, ...
    fact: str
    #: "" when it could not be found
    value: str
    #: by which observation, in one sentence
    how: str
    confidence: Confidence


class ServiceEvidence(Struct, frozen=True, kw_only=True):
    """One server as it really ran."""

    name: str
    product: str
    #: the product's own spelling of its name
    title: str = ""
    #: as the server says it
    version: str
    #: image reference with its digest, or the path of the binary
    origin: str
    settings: dict[str, str] = {}


class TopologyEvidence(Struct, frozen=True, kw_only=True):
    """A topology as it really stood, or why it did not."""

    declared: Topology
    stood: bool
    reason: str = ""
    services: tuple[ServiceEvidence, ...] = ()
    #: what the client really did, also where the pooler's version forced it
    prepare: Prepare = Prepare.NAMED
    notes: tuple[str, ...] = ()
    #: where the server's data was: in memory or on disk, and why
    storage: str = ""
    ready_ms: float = 0.0
    #: what the chain is found to be by a client that knows nothing of it
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
        return next((each for each in self.findings if each.fact == fact and each.value), None)


class EnvironmentEvidence(Struct, frozen=True, kw_only=True):
    """An environment that an operator named, as it was found; or why nobody got there."""

    name: str
    reached: bool
    reason: str = ""
    #: what the operator says of the application: its name, its pools, what it does with repeated statements
    application: str = ""
    pools: str = ""
    prepare: Prepare | None = None
    #: a digest of what harness.toml said of it, of its paths and callers: with another, the evidence is another's
    declared_as: str = ""
    #: whether its servers are the harness's own: then it shows nothing about anybody's staging
    is_a_lab: bool = False
    #: a digest of which database of which server it is; "" where the role may not know
    database: str = ""
    #: of what runs there, by what they are of: `library`, `app`
    versions: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()
    contradictions: tuple[str, ...] = ()
    #: of the server, as it says itself
    settings: dict[str, str] = {}
    #: what production is declared to be, by the names of facts and settings
    production: dict[str, str] = {}
    #: whose declaration that is
    declared_by: str = ""
    notes: tuple[str, ...] = ()

    def found(self, fact: str) -> Finding | None:
        """Return the finding about a fact; None when it was not found."""
        return next((each for each in self.findings if each.fact == fact and each.value), None)


class Provenance(Struct, frozen=True, kw_only=True):
    """Which code produced the evidence."""

    tool_version: str
    #: git commit of the project, empty outside a checkout
    commit: str
    dirty: bool
    #: hash of everything but the topology that decides a result
    fingerprint: str
    python: str
    psycopg: str


class RunRecord(Struct, frozen=True, kw_only=True):
    """`run.json`: everything about a run but its results."""

    run_id: str
    started_at: str
    argv: tuple[str, ...]
    provenance: Provenance
    evidence_class: EvidenceClass
    engine: str
    engine_version: str
    #: name and fingerprint of the audit trail under test
    audit_target: str
    plan: tuple[PlannedCheck, ...]
    topologies: dict[str, TopologyEvidence] = {}
    environments: dict[str, EnvironmentEvidence] = {}
    ended_at: str = ""
    #: running, finished, interrupted or failed; a run that is `running` and whose owner is gone was killed
    state: Literal["running", "finished", "interrupted", "failed"] = "running"
    failure: str = ""
    schema_version: int = SCHEMA_VERSION
