"""The record of a run, `run.json`: the servers as they ran, the environments as they were found, code and subjects."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

from harness.model.results import EvidenceClass, PlannedCheck
from harness.model.topology import Prepare, Topology

#: 2: rows are chained by hash, and `run.json` has a seal; 3: a planned row may have several attempts, a row each
SCHEMA_VERSION = 3
#: the fact of a subject that is a digest of its whole declaration
DECLARATION = "declaration"
#: the key of the audit trail among the subjects of a run
TRAIL = "audit trail"


class Confidence(StrEnum):
    """How certain a finding about a chain is."""

    #: the server said so, or the probe forced it and observed it
    CERTAIN = "certain"
    #: all observations agree with it, but nothing forces it
    LIKELY = "likely"
    #: no observation decides it
    UNKNOWN = "unknown"


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

    #: its role: `postgres` or `pooler`; of a service next to the chain, such as `store`
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


class OwnServers(Struct, frozen=True, kw_only=True):
    """The second servers of a topology as they ran: those of checks that crash servers or put them under load."""

    #: from the database outwards
    services: tuple[ServiceEvidence, ...]
    #: the place of the server's data, and the reason
    storage: str
    #: whether a link that can be cut is between the pooler and PostgreSQL
    linked: bool = False


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
    #: of checks with servers of their own; the other fields are about the servers of all other checks
    own_servers: tuple[OwnServers, ...] = ()
    #: services next to the chain that checks used, such as the object store
    beside: tuple[ServiceEvidence, ...] = ()
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
    #: the folder that the topologies were read from; "" for the shipped one
    topologies_folder: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def ran_on(self) -> str:
        """The engine with its version; the servers of somebody else have none."""
        return f"{self.engine} {self.engine_version}".strip()

    @property
    def target_name(self) -> str:
        """The name of the audit target, without its fingerprint."""
        return target_name(self.audit_target)


def target_name(identity: str) -> str:
    """Return the name in the identity of an audit target, `name fingerprint`; the name may hold blanks."""
    return identity.rpartition(" ")[0] or identity
