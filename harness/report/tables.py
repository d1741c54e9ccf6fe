"""The tables of the report as data: what each cell says, before anything is rendered."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Finding, PoolMode, Prepare, Section, Severity, Status, TrailProof
from harness.report.evidence import Count, Evidence, Row, count, worst
from harness.report.features import DriverRow, FeatureGroup, driver_table, feature_map
from harness.report.walkthrough import ItemAnswer, walk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.model import Attestation, ServiceEvidence, TopologyEvidence

_SANDBOX = "no SQL sandbox: every check really commits; a test sandbox never stands for production"


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
    #: what a client found who was told the addresses only
    findings: tuple[Finding, ...] = ()
    contradictions: tuple[str, ...] = ()


class Question(Struct, frozen=True, kw_only=True):
    question: str
    answer: str
    matches_prod: str


class PathRow(Struct, frozen=True, kw_only=True):
    """One row of the STG-02 rubric."""

    path: str
    kind: str
    status: Status
    evidence: str
    notes: str


class IssueRow(Struct, frozen=True, kw_only=True):
    """One row of the prioritised issues."""

    severity: Severity
    id: str
    symptom: str
    area: str
    owner: str
    link: str
    command: str
    topology: str
    check: str


class LimitRow(Struct, frozen=True, kw_only=True):
    """A documented limit that was seen at work."""

    topologies: tuple[str, ...]
    outcome: str
    check: str
    source: str
    command: str


class MatrixRow(Struct, frozen=True, kw_only=True):
    check: str
    claim: str
    severity: Severity
    section: Section
    statuses: dict[str, Status]
    #: by topology: limit, known
    marks: dict[str, str]
    #: by topology: proven, unproven, not proven yet; empty where the check does not apply
    proven: dict[str, str]


class Report(Struct, frozen=True, kw_only=True):
    """Everything that the templates print; `report.json` is this."""

    commit: str
    dirty: bool
    tool_version: str
    audit_target: str
    target_summary: str
    evidence_from: str
    evidence_to: str
    status: Status
    counts: dict[str, Count]
    topologies: tuple[TopologyRow, ...]
    questions: dict[str, tuple[Question, ...]]
    paths: tuple[PathRow, ...]
    walkthrough: tuple[ItemAnswer, ...]
    issues: tuple[IssueRow, ...]
    limits: tuple[LimitRow, ...]
    features: tuple[FeatureGroup, ...]
    drivers: tuple[DriverRow, ...]
    #: the columns of both
    feature_topologies: tuple[str, ...]
    matrix: tuple[MatrixRow, ...]
    rows: tuple[Row, ...]
    trail_proofs: tuple[TrailProof, ...]
    notes: tuple[str, ...]
    schema_version: int = 1


def build_report(
    evidence: Evidence, reports: Path, target_summary: str = "", attestations: Sequence[Attestation] = ()
) -> Report:
    """Fill every table.

    :param reports: where the report will lie, for the links in it to be relative.
    :param target_summary: what the audit trail under test is.
    :param attestations: what operators have signed for the items of the walkthrough that are human work.
    """
    records = sorted(evidence.records.values(), key=lambda record: record.started_at)
    newest = records[-1] if records else None
    names = evidence.names()
    features, drivers = feature_map(evidence), driver_table(evidence)
    mapped = {name for group in features for row in group.rows for name in row.cells} | {
        name for row in drivers for name in row.cells
    }
    return Report(
        commit=newest.provenance.commit if newest else "",
        dirty=any(record.provenance.dirty for record in records),
        tool_version=newest.provenance.tool_version if newest else "",
        audit_target=newest.audit_target.partition(" ")[0] if newest else "",
        target_summary=target_summary,
        evidence_from=records[0].started_at if records else "",
        evidence_to=max((record.ended_at or record.started_at for record in records), default=""),
        status=worst(row.status for row in evidence.rows),
        counts={name: _count(evidence, name) for name in names},
        topologies=tuple(_topology_row(evidence, name, reports) for name in names),
        questions={name: _questions(evidence, name) for name in names},
        paths=_paths(),
        walkthrough=tuple(walk(evidence.rows, attestations)),
        issues=_issues(evidence),
        limits=_limits(evidence),
        features=features,
        drivers=drivers,
        feature_topologies=tuple(name for name in names if name in mapped),
        matrix=_matrix(evidence, names, newest.audit_target.partition(" ")[0] if newest else ""),
        rows=evidence.rows,
        trail_proofs=tuple(evidence.trail_proofs.values()),
        notes=tuple(
            dict.fromkeys(
                [note for name in names if name in evidence.topologies for note in evidence.topologies[name].notes]
                + list(evidence.left_out)
            )
        ),
    )


def _topology_row(evidence: Evidence, name: str, reports: Path) -> TopologyRow:
    stood, record = evidence.topologies.get(name), evidence.records.get(name)
    command = f"nox -s topology-{name.partition('+')[0]}"
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
    shown = _count(evidence, name)
    folder = evidence.folders[record.run_id]
    command = next((without_check(row) for row in evidence.of(name) if row.run_id), command)
    return TopologyRow(
        environment=name,
        evidence_class=record.evidence_class,
        chain=_chain(stood),
        pooler_product=_pooler_product(stood),
        pool_mode=_pool_mode(stood),
        pools=_pools(stood),
        prepare_policy=_prepare_policy(stood),
        sandbox_note=_SANDBOX,
        # what the harness stood up itself can show a class of topology, never somebody's production
        matches_prod="partial",
        rationale=_rationale(stood, shown),
        command=command,
        run_id=record.run_id,
        run_link=os.path.relpath(folder / "run.json", reports),
        engine=f"{record.engine} {record.engine_version}",
        origins=tuple(f"{service.product} {service.version}: {service.origin}" for service in stood.services),
        ready_ms=stood.ready_ms,
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


def _chain(stood: TopologyEvidence) -> str:
    """Return the chain: as it was recognised from outside, else as it was stood up."""
    server, pooler = _service(stood, "postgres"), _service(stood, "pooler")
    middle = f"{_titled(pooler)} to " if pooler else ""
    return f"psycopg to {middle}{_titled(server)}" if server else "unknown"


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


def _pools(stood: TopologyEvidence) -> str:
    clients = "no Ecto: psycopg, one connection a client"
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


def _rationale(stood: TopologyEvidence, shown: Count) -> str:
    mode = stood.declared.pool_mode
    what = f"{_chain(stood)}" + (f" in {mode} mode" if mode else "")
    return (
        f"CI-class evidence: the harness stood up {what} itself and exercised the library's paths on it "
        f"({shown.ok} OK, {shown.issue} Issue, {shown.na} N/A, {shown.not_run} Not run). It shows this class of "
        "topology, with this pool mode, these pool sizes and this prepare policy. It does not show a production "
        "environment: its servers, settings and load, its HTTP handlers and its job runner are not part of it, and "
        "those who run it have not said that these settings are theirs."
    )


def _questions(evidence: Evidence, name: str) -> tuple[Question, ...]:
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
        ("Are jobs and HTTP handlers part of it?", "no: library paths only"),
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


def _paths() -> tuple[PathRow, ...]:
    why = "in scope and not yet exercised: the reference host application is not part of this version of the harness"
    return tuple(
        PathRow(path=path, kind=kind, status=Status.NOT_RUN, evidence="", notes=why)
        for path, kind in (("an audited write by an HTTP request", "HTTP"), ("an audited write by a job", "job"))
    )


def _issue_id(row: Row) -> str:
    if row.planned.section is Section.POOLING:
        return f"PL.{row.planned.check}.{row.planned.topology}"
    section = list(Section).index(row.planned.section) + 1
    return f"AP-{section}.{row.planned.check.partition('.')[2]}.{row.planned.topology}"


def _issues(evidence: Evidence) -> tuple[IssueRow, ...]:
    found = [
        IssueRow(
            severity=row.result.severity or row.planned.severity,
            id=_issue_id(row),
            symptom=f"not so: {row.planned.claim}. {row.result.reason}",
            area=row.planned.area,
            owner=row.result.known.owner if row.result.known else "unassigned",
            link=row.result.known.link if row.result.known else "",
            command=row.result.reproduce,
            topology=row.planned.topology,
            check=row.planned.check,
        )
        for row in evidence.rows
        if row.status is Status.ISSUE
    ]
    return tuple(sorted(found, key=lambda issue: (issue.severity, issue.id)))


def _limits(evidence: Evidence) -> tuple[LimitRow, ...]:
    seen: dict[tuple[str, str, str], list[Row]] = {}
    for row in evidence.rows:
        if limit := row.result.limit:
            seen.setdefault((row.planned.check, limit.outcome, limit.source), []).append(row)
    return tuple(
        LimitRow(
            topologies=tuple(row.planned.topology for row in rows),
            outcome=outcome,
            check=check,
            source=source,
            command=rows[0].result.reproduce,
        )
        for (check, outcome, source), rows in seen.items()
    )


def proven(row: Row, about: str) -> str:
    """Say whether a check has been shown to fail when what it watches is broken: here, and for this code."""
    applicable = [proof for proof in row.proofs if proof.applicable]
    if row.status is Status.NA or (row.proofs and not applicable):
        return ""
    if not row.proofs:
        return "not proven yet"
    if not all(proof.proven for proof in applicable):
        return "unproven"
    return "proven" if about in {"", "reference"} else "proven on the reference"


def _matrix(evidence: Evidence, names: list[str], about: str) -> tuple[MatrixRow, ...]:
    by_check: dict[str, dict[str, Row]] = {}
    for row in evidence.rows:
        by_check.setdefault(row.planned.check, {})[row.planned.topology] = row
    matrix = []
    for check, rows in by_check.items():
        first = next(iter(rows.values())).planned
        marks = {
            name: "limit" if row.result.limit else "known" if row.result.known else "" for name, row in rows.items()
        }
        matrix.append(
            MatrixRow(
                check=check,
                claim=first.claim,
                severity=first.severity,
                section=first.section,
                statuses={name: rows[name].status if name in rows else Status.NOT_RUN for name in names},
                marks=marks,
                proven={name: proven(row, about) for name, row in rows.items()},
            )
        )
    return tuple(matrix)
