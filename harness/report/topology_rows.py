"""The STG-01 rows of topologies: as their servers reported themselves, and as a client recognised them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.lab.effective import effective_limits, flag
from harness.model import EvidenceClass, Finding, Notifier, PoolMode, Prepare, Status
from harness.report.outcomes import Count, count

if TYPE_CHECKING:
    from pathlib import Path

    from harness.model import ServiceEvidence, TopologyEvidence
    from harness.report.evidence import Evidence, Row

_SANDBOX = "no SQL sandbox: every check commits; a test sandbox is not evidence about production"

_NOTIFIED = {
    Notifier.LISTEN: "LISTEN through the chain",
    Notifier.POLL: "polling: LISTEN does not survive this pool mode",
    Notifier.DIRECT: "LISTEN on a direct connection: it does not survive this pool mode",
}


class TopologyRow(Struct, frozen=True, kw_only=True):
    """One row of the STG-01 table; `TOPOLOGY` in `harness/markdown/headings.py` has its columns.

    The defaults are what a row shows that no run started, so that a new field is set in two places only: for a
    topology below, and for an environment in `environment_rows.py`.
    """

    environment: str
    evidence_class: str
    chain: str
    pooler_product: str = "Not run"
    pool_mode: str = "Not run"
    pools: str = "Not run"
    prepare_policy: str = "Not run"
    sandbox_note: str = _SANDBOX
    matches_prod: str = "no"
    #: what differs from production; the linter requires it for `partial`. What all CI-class rows share is in
    #: `templates/_words.j2`, so that documents say it once
    rationale: str
    command: str
    run_id: str = ""
    run_link: str = ""
    engine: str = ""
    origins: tuple[str, ...] = ()
    ready_ms: float = 0.0
    #: where the server kept its data
    storage: str = ""
    #: what a client found that knew only the addresses
    findings: tuple[Finding, ...] = ()
    contradictions: tuple[str, ...] = ()


class Question(Struct, frozen=True, kw_only=True):
    """One question about a topology or an environment, with its answer."""

    question: str
    answer: str
    matches_prod: str


def topology_row(evidence: Evidence, name: str, reports: Path) -> TopologyRow:
    """Return the row of a topology that the harness starts.

    :param reports: the folder of the report; the link to the run is relative to it.
    """
    topology, record = evidence.topologies.get(name), evidence.records.get(name)
    command = next((without_check(row) for row in evidence.of(name)), f"nox -s topology-{name.partition('+')[0]}")
    if topology is None or record is None or not topology.stood:
        return _not_run(name, topology, command)
    hosted = is_hosted(evidence, name)
    folder = evidence.folders[record.run_id]
    return TopologyRow(
        environment=name,
        evidence_class=record.evidence_class,
        chain=_chain(topology, hosted=hosted),
        pooler_product=_pooler_product(topology),
        pool_mode=_pool_mode(topology),
        pools=_pools(topology, hosted=hosted),
        prepare_policy=_prepare_policy(topology),
        # a topology that the harness started shows a class of topology, never somebody's production
        matches_prod="partial",
        rationale=_rationale(topology, count(row.answer for row in evidence.of(name)), hosted=hosted),
        command=command,
        run_id=record.run_id,
        run_link=os.path.relpath(folder / "run.json", reports),
        engine=record.ran_on,
        origins=tuple(
            f"{service.product} {service.version}: {service.origin}"
            for service in (*topology.services, *topology.beside)
        ),
        ready_ms=topology.ready_ms,
        storage=topology.storage,
        findings=topology.findings,
        contradictions=topology.contradictions,
    )


def _not_run(name: str, topology: TopologyEvidence | None, command: str) -> TopologyRow:
    """Return the row of a topology that no run started."""
    reason = topology.reason if topology else "no run of this code started it"
    declared = (topology.declared.pool_mode or "none: no pooler") if topology else "Not run"
    return TopologyRow(
        environment=name,
        evidence_class=EvidenceClass.CI,
        chain=f"Not run: {reason}",
        pool_mode=declared,
        rationale="There is no evidence about this topology: no run of this code started it.",
        command=command,
    )


def without_check(row: Row) -> str:
    """Return the command that runs the whole topology of a row again."""
    return row.result.reproduce.replace(f" --check {row.planned.check}", "").removesuffix(" --")


def is_hosted(evidence: Evidence, name: str) -> bool:
    """Return whether the reference host was started: a run exercised at least one of its paths."""
    return any(row.planned.path and row.status in {Status.OK, Status.ISSUE} for row in evidence.of(name))


# --- the cells -------------------------------------------------------------------------------------------


def _service(topology: TopologyEvidence, name: str) -> ServiceEvidence | None:
    return next((service for service in topology.services if service.name == name), None)


def titled(service: ServiceEvidence) -> str:
    """Return the product and the version of a service, such as `PgBouncer 1.24.1`."""
    return f"{service.title or service.product} {service.version.partition(' ')[0]}"


def _chain(topology: TopologyEvidence, *, hosted: bool = False) -> str:
    """Return the clients and servers of a topology, from the application to PostgreSQL.

    :param hosted: the reference host ran audited paths on it, in addition to the checks' own clients.
    """
    server, pooler = _service(topology, "postgres"), _service(topology, "pooler")
    middle = f"{titled(pooler)} to " if pooler else ""
    clients = "reference host and psycopg" if hosted else "psycopg"
    return f"{clients} to {middle}{titled(server)}" if server else "unknown"


def _recognised(topology: TopologyEvidence, fact: str, declared: str) -> str:
    """Return what is declared, with what a client recognised where that differs or is missing."""
    found = topology.found(fact)
    if found is None:
        return f"{declared} (declared, not recognised from outside)" if topology.findings else declared
    contradicted = any(sentence.startswith(f"{fact} ") for sentence in topology.contradictions)
    return f"{found.value} found, {declared} declared" if contradicted else declared


def _pooler_product(topology: TopologyEvidence) -> str:
    pooler = _service(topology, "pooler")
    return _recognised(topology, "product", titled(pooler)) if pooler else "none"


def _pool_mode(topology: TopologyEvidence) -> str:
    mode = topology.declared.pool_mode
    return _recognised(topology, "pool_mode", str(mode)) if mode else "none: no pooler"


def _pools(topology: TopologyEvidence, *, hosted: bool) -> str:
    clients = "no Ecto: psycopg, one connection per client"
    if hosted:
        clients += f"; reference host: psycopg_pool of {topology.declared.host.pool_size}"
    pooler = topology.declared.pooler
    if not pooler:
        return clients
    size = topology.found("pool_size")
    found = f", {size.value} found" if size and size.value != str(pooler.default_pool_size) else ""
    service = _service(topology, "pooler")
    chosen = _chosen(topology, service.settings if service else {})
    others = f"; {chosen}" if chosen != "none" else ""
    return f"{clients}; default_pool_size {pooler.default_pool_size}{found}{others}"


def _prepare_policy(topology: TopologyEvidence) -> str:
    if topology.prepare is Prepare.UNNAMED:
        return "unnamed (prepare_threshold None)"
    return f"named (prepare_threshold {topology.declared.client.prepare_threshold})"


def _rationale(topology: TopologyEvidence, counted: Count, *, hosted: bool) -> str:
    mode = topology.declared.pool_mode
    started = _chain(topology) + (f" in {mode} mode" if mode else "")
    paths = " and the audited paths of a reference host with a real job runner" if hosted else ""
    limits = f", {counted.limits} of them with a documented limit" if counted.limits else ""
    not_run = f"{counted.not_run} Not run{counted.because}"
    statuses = f"{counted.ok} OK{limits}, {counted.issue} Issue, {counted.na} N/A, {not_run}"
    features = f"; features: {counted.features}" if counted.features.observed else ""
    return (
        f"CI-class evidence, which is not about production: the harness started {started} itself and ran its "
        f"checks{paths} on it ({statuses}{features})."
    )


# --- the questions ---------------------------------------------------------------------------------------


def questions(evidence: Evidence, name: str) -> tuple[Question, ...]:
    """Return the questions about a topology; none if no run started it."""
    topology, record = evidence.topologies.get(name), evidence.records.get(name)
    if topology is None or record is None or not topology.stood:
        return ()
    settings = {service.name: service.settings for service in topology.services}
    pooler, hosted = settings.get("pooler", {}), is_hosted(evidence, name)
    answers = {
        "Which servers does a write pass through?": _chain(topology),
        "What is the pool mode?": _pool_mode(topology),
        "How many server connections can one database and user have?": _pool_size(topology),
        "Does the pooler track prepared statements?": _tracking(topology, pooler),
        "How does the client send repeated statements?": _prepare_policy(topology),
        "When does the pooler reset a server connection?": _reset(topology, pooler),
        "Which other settings of the pooler does the topology choose?": _chosen(topology, pooler),
        "Which startup parameters does the pooler ignore?": (
            pooler.get("ignore_startup_parameters") or "none" if topology.declared.pooler else "none: no pooler"
        ),
        "How do clients authenticate?": (
            "SCRAM-SHA-256, to the pooler and from the pooler to PostgreSQL" if pooler else "SCRAM-SHA-256"
        ),
        "What is the default isolation level?": settings["postgres"].get("default_transaction_isolation", "unknown"),
        "Does the evidence cover jobs and HTTP handlers?": (
            "only those of the reference host" if hosted else "no: library paths only"
        ),
        "How does the job runner learn about new jobs?": (
            _NOTIFIED[topology.declared.notifier] if hosted else "no job runner was started"
        ),
        "Where do these answers come from?": f"{record.evidence_class}-class evidence, run {record.run_id}",
    }
    return tuple(
        Question(question=question, answer=answer, matches_prod="partial") for question, answer in answers.items()
    )


def _pool_size(topology: TopologyEvidence) -> str:
    limits = effective_limits(topology)
    if limits is None:
        return "one per client"
    reserve = f", and {limits.largest} with the reserve" if limits.largest > limits.size else ""
    return f"{limits.size}{reserve}"


def _tracking(topology: TopologyEvidence, pooler: dict[str, str]) -> str:
    if not topology.declared.pooler:
        return "no pooler"
    size = pooler.get("max_prepared_statements")
    if size is not None:
        return f"yes, max_prepared_statements {size}" if size != "0" else "no: max_prepared_statements 0"
    if found := topology.found("prepared_statements"):
        return f"{found.value}: {found.how}"
    service = _service(topology, "pooler")
    return f"no: {titled(service)} does not support it" if service else "no"


def _reset(topology: TopologyEvidence, pooler: dict[str, str]) -> str:
    if not topology.declared.pooler:
        return "no pooler"
    if topology.declared.pooler.product != "pgbouncer":
        declared = pooler.get("reset_query_list")  # of Pgpool-II
        return f"when a client disconnects: {declared}" if declared else "the product's default"
    query = pooler.get("server_reset_query")
    if not query:
        return "never: server_reset_query is empty"
    mode = topology.declared.pool_mode
    if mode is PoolMode.SESSION:
        return f"when a client disconnects: {query}"
    if flag(pooler.get("server_reset_query_always", "")):
        return f"after each {mode}: {query} (server_reset_query_always is on)"
    return f"never in {mode} mode: {query} runs in session mode only (server_reset_query_always is off)"


def _chosen(topology: TopologyEvidence, pooler: dict[str, str]) -> str:
    """Return the settings that the topology file sets itself, with the values in effect; of others as declared."""
    declared = topology.declared.pooler
    if not declared:
        return "no pooler"
    chosen = {
        **declared.settings,
        **{f"database.{name}": value for name, value in declared.database.items()},
        **{f"user.{name}": value for name, value in declared.user.items()},
    }
    settings = [f"{name} = {pooler.get(name, value)}" for name, value in chosen.items()]
    processes = "peered processes" if declared.peered else "processes"
    settings += [f"{declared.instances} {processes}"] if declared.instances > 1 else []
    return "; ".join(settings) or "none"
