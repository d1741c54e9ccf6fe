"""The STG-01 table: what each topology really was, read back from its servers and recognised from outside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Finding, Notifier, PoolMode, Prepare, Status
from harness.report.evidence import Count, Evidence, Row, count

if TYPE_CHECKING:
    from pathlib import Path

    from harness.model import ServiceEvidence, TopologyEvidence

_SANDBOX = "no SQL sandbox: every check really commits; a test sandbox never stands for production"


_NOTIFIED = {
    Notifier.LISTEN: "LISTEN through the chain",
    Notifier.POLL: "it looks for them at an interval: LISTEN does not survive this pool mode",
    Notifier.DIRECT: "LISTEN past the pooler: it does not survive this pool mode",
}


class TopologyRow(Struct, frozen=True, kw_only=True):
    """One row of the STG-01 table, in the order of its columns."""

    environment: str
    evidence_class: str
    chain: str
    pooler_product: str
    pool_mode: str
    pools: str
    prepare_policy: str
    sandbox_note: str
    matches_prod: str
    #: what differs from production, which `partial` demands
    rationale: str
    command: str
    run_id: str
    run_link: str
    engine: str
    origins: tuple[str, ...]
    ready_ms: float
    #: where the server's data was
    storage: str = ""
    #: what a client found who was told the addresses only
    findings: tuple[Finding, ...] = ()
    contradictions: tuple[str, ...] = ()


class Question(Struct, frozen=True, kw_only=True):
    question: str
    answer: str
    matches_prod: str


def topology_row(evidence: Evidence, name: str, reports: Path) -> TopologyRow:
    stood, record = evidence.topologies.get(name), evidence.records.get(name)
    command = next((without_check(row) for row in evidence.of(name)), f"nox -s topology-{name.partition('+')[0]}")
    if stood is None or record is None or not stood.stood:
        why = stood.reason if stood else "no run of this code stood it up"
        return TopologyRow(
            environment=name,
            evidence_class=EvidenceClass.CI,
            chain=f"Not run: {why}",
            pooler_product="Not run",
            pool_mode=(stood.declared.pool_mode or "none: no pooler") if stood else "Not run",
            pools="Not run",
            prepare_policy="Not run",
            sandbox_note=_SANDBOX,
            matches_prod="no",
            rationale="Nothing is shown about this topology: it did not stand in any run of this code.",
            command=command,
            run_id="",
            run_link="",
            engine="",
            origins=(),
            ready_ms=0.0,
        )
    hosted = is_hosted(evidence, name)
    shown = _count(evidence, name)
    folder = evidence.folders[record.run_id]
    return TopologyRow(
        environment=name,
        evidence_class=record.evidence_class,
        chain=_chain(stood, hosted=hosted),
        pooler_product=_pooler_product(stood),
        pool_mode=_pool_mode(stood),
        pools=_pools(stood, hosted=hosted),
        prepare_policy=_prepare_policy(stood),
        sandbox_note=_SANDBOX,
        # what the harness stood up itself can show a class of topology, never somebody's production
        matches_prod="partial",
        rationale=_rationale(stood, shown, hosted=hosted),
        command=command,
        run_id=record.run_id,
        run_link=os.path.relpath(folder / "run.json", reports),
        engine=f"{record.engine} {record.engine_version}",
        origins=tuple(f"{service.product} {service.version}: {service.origin}" for service in stood.services),
        ready_ms=stood.ready_ms,
        storage=stood.storage,
        findings=stood.findings,
        contradictions=stood.contradictions,
    )


def without_check(row: Row) -> str:
    """Return the command that reproduces a row's whole topology."""
    return row.result.reproduce.replace(f" --check {row.planned.check}", "").removesuffix(" --")


def _count(evidence: Evidence, name: str) -> Count:
    return count(row.result for row in evidence.of(name))


def _service(stood: TopologyEvidence, name: str) -> ServiceEvidence | None:
    return next((each for each in stood.services if each.name == name), None)


def _titled(service: ServiceEvidence) -> str:
    return f"{service.title or service.product} {service.version.partition(' ')[0]}"


def _chain(stood: TopologyEvidence, *, hosted: bool = False) -> str:
    """Return the chain: as it was recognised from outside, else as it was stood up.

    :param hosted: the reference host took paths over it, beside the clients of checks.
    """
    server, pooler = _service(stood, "postgres"), _service(stood, "pooler")
    middle = f"{_titled(pooler)} to " if pooler else ""
    clients = "reference host and psycopg" if hosted else "psycopg"
    return f"{clients} to {middle}{_titled(server)}" if server else "unknown"


def is_hosted(evidence: Evidence, name: str) -> bool:
    """Say whether the reference host was there: one of its paths was taken."""
    return any(row.planned.path and row.status in {Status.OK, Status.ISSUE} for row in evidence.of(name))


def _seen(stood: TopologyEvidence, fact: str, declared: str) -> str:
    """Return what was found about a fact, with its confidence; what is declared where nothing was found."""
    found = stood.found(fact)
    if found is None:
        return f"{declared} (declared; not recognised from outside)" if stood.findings else declared
    wrong = any(each.startswith(f"{fact} ") for each in stood.contradictions)
    return f"{found.value}, found; declared is {declared}" if wrong else declared


def _pooler_product(stood: TopologyEvidence) -> str:
    pooler = _service(stood, "pooler")
    return _seen(stood, "product", _titled(pooler)) if pooler else "none"


def _pool_mode(stood: TopologyEvidence) -> str:
    mode = stood.declared.pool_mode
    return _seen(stood, "pool_mode", str(mode)) if mode else "none: no pooler"


def _pools(stood: TopologyEvidence, *, hosted: bool) -> str:
    clients = "no Ecto: psycopg, one connection a client"
    if hosted:
        clients += f"; reference host: psycopg_pool of {stood.declared.host.pool_size}"
    pooler = stood.declared.pooler
    if not pooler:
        return clients
    size = stood.found("pool_size")
    seen = f", {size.value} found" if size and size.value != str(pooler.default_pool_size) else ""
    return f"{clients}; default_pool_size {pooler.default_pool_size}{seen}"


def _prepare_policy(stood: TopologyEvidence) -> str:
    if stood.prepare is Prepare.UNNAMED:
        return "unnamed (prepare_threshold None)"
    return f"named (prepare_threshold {stood.declared.client.prepare_threshold})"


def _rationale(stood: TopologyEvidence, shown: Count, *, hosted: bool) -> str:
    mode = stood.declared.pool_mode
    what = f"{_chain(stood)}" + (f" in {mode} mode" if mode else "")
    return (
        f"CI-class evidence: the harness started {what} itself and ran its checks "
        f"{'and the paths of a reference host with a real job runner ' if hosted else ''}on it "
        f"({shown.ok} OK, {shown.issue} Issue, {shown.na} N/A, {shown.not_run} Not run). It shows this class of "
        "topology, with this pool mode, these pool sizes and this prepare policy. It does not show a production "
        "environment: its servers, settings and load, its own HTTP handlers and job runner are not part of it, and "
        "those who run it have not said that these settings are theirs."
    )


def questions(evidence: Evidence, name: str) -> tuple[Question, ...]:
    stood, record = evidence.topologies.get(name), evidence.records.get(name)
    if stood is None or record is None or not stood.stood:
        return ()
    settings = {service.name: service.settings for service in stood.services}
    pooler = settings.get("pooler", {})
    answers = [
        ("What does a write pass on its way?", _chain(stood)),
        ("Which pool mode?", _pool_mode(stood)),
        ("How many server connections for one database and user?", pooler.get("default_pool_size", "one a client")),
        ("Does the pooler track prepared statements?", _tracks(stood, pooler)),
        ("What does the client do with repeated statements?", _prepare_policy(stood)),
        ("What does the pooler run when a client leaves?", _reset(stood, pooler)),
        (
            "Which startup parameters does it ignore?",
            pooler.get("ignore_startup_parameters") or "none" if stood.declared.pooler else "none: no pooler",
        ),
        ("How do clients authenticate?", "SCRAM-SHA-256, to the pooler and through it" if pooler else "SCRAM-SHA-256"),
        ("Which isolation level by default?", settings["postgres"].get("default_transaction_isolation", "unknown")),
        (
            "Are jobs and HTTP handlers part of it?",
            "those of the reference host, and not of any other"
            if is_hosted(evidence, name)
            else "no: library paths only",
        ),
        (
            "How does the job runner learn of new jobs?",
            _NOTIFIED[stood.declared.notifier] if is_hosted(evidence, name) else "there is none",
        ),
        ("Who says so?", f"{record.evidence_class}-class evidence, run {record.run_id}"),
    ]
    return tuple(Question(question=question, answer=answer, matches_prod="partial") for question, answer in answers)


def _tracks(stood: TopologyEvidence, pooler: dict[str, str]) -> str:
    if not stood.declared.pooler:
        return "no pooler"
    size = pooler.get("max_prepared_statements")
    if size is None:
        service = _service(stood, "pooler")
        told = stood.found("prepared_statements")
        if told:
            return f"{told.value}: {told.how}"
        return f"no: {_titled(service)} cannot" if service else "no"
    return f"yes, max_prepared_statements {size}" if size != "0" else "no: max_prepared_statements 0"


def _reset(stood: TopologyEvidence, pooler: dict[str, str]) -> str:
    if not stood.declared.pooler:
        return "no pooler"
    if stood.declared.pooler.product != "pgbouncer":
        return "as the product does by default"
    query = pooler.get("server_reset_query") or "nothing"
    if stood.declared.pool_mode is PoolMode.SESSION or pooler.get("server_reset_query_always") == "1":
        return query
    return f"nothing in this mode (server_reset_query is {query})"
