"""The STG-01 rows of topologies, and the questions about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.model import (
    Confidence,
    EvidenceClass,
    Finding,
    Notifier,
    PathLabel,
    PoolMode,
    Prepare,
    ServiceEvidence,
    Status,
)
from harness.report.evidence import Evidence, Row
from harness.report.topology_rows import TopologyRow, questions, topology_row
from tests.unit.made_up import planned, record, result, stood

if TYPE_CHECKING:
    from harness.model import TopologyEvidence

REPORTS = Path("/project/reports")
RUN = Path("/project/reports/runs/20260101T000000Z-aaaaaaaa")
SANDBOX = "no SQL sandbox: every check commits; a test sandbox is not evidence about production"


def rows(topology: str, *, hosted: bool) -> tuple[Row, ...]:
    """Return an OK row, a Not run row and, if the reference host was started, a row of an audited path."""
    found = [
        Row(planned=planned(topology, check), result=result(topology, check, status, "why"), run_id="r")
        for check, status in (("capture.insert", Status.OK), ("capture.coverage", Status.NOT_RUN))
    ]
    path = PathLabel(name="new-post", title="POST /posts", kind="HTTP")
    about_path = replace(planned(topology, "actor.many-clients"), path=path)
    status = Status.OK if hosted else Status.NOT_RUN
    return (*found, Row(planned=about_path, result=result(topology, "actor.many-clients", status), run_id="r"))


def evidence(
    topology: TopologyEvidence | None, *, hosted: bool = False, evidence_class: EvidenceClass = EvidenceClass.CI
) -> Evidence:
    name = topology.declared.name if topology else "session"
    run = replace(record(), evidence_class=evidence_class)
    return Evidence(
        rows=rows(name, hosted=hosted),
        topologies={name: topology} if topology else {},
        records={name: run},
        folders={run.run_id: RUN},
    )


def row(topology: TopologyEvidence, *, hosted: bool = False) -> TopologyRow:
    return topology_row(evidence(topology, hosted=hosted), topology.declared.name, REPORTS)


def answers(topology: TopologyEvidence, *, hosted: bool = False) -> dict[str, str]:
    found = questions(evidence(topology, hosted=hosted), topology.declared.name)
    assert {question.matches_prod for question in found} == {"partial"}
    return {question.question: question.answer for question in found}


def with_findings(topology: TopologyEvidence, *contradictions: str, **facts: str) -> TopologyEvidence:
    found = tuple(
        Finding(fact=fact, value=value, how="it was forced", confidence=Confidence.CERTAIN)
        for fact, value in facts.items()
    )
    return replace(topology, findings=found, contradictions=contradictions)


def with_settings(topology: TopologyEvidence, settings: dict[str, str]) -> TopologyEvidence:
    """Return a topology whose pooler has exactly these settings."""
    services = tuple(
        replace(service, settings=settings) if service.name == "pooler" else service for service in topology.services
    )
    return replace(topology, services=services)


# --- the row ---------------------------------------------------------------------------------------------


def test_the_row_of_a_topology_with_a_pooler() -> None:
    found = row(stood("session"))
    assert found == TopologyRow(
        environment="session",
        evidence_class="CI",
        chain="psycopg to pgbouncer 1.24.1 to postgres 17.5",
        pooler_product="pgbouncer 1.24.1",
        pool_mode="session",
        pools="no Ecto: psycopg, one connection per client; default_pool_size 8",
        prepare_policy="named (prepare_threshold 5)",
        sandbox_note=SANDBOX,
        matches_prod="partial",
        rationale=found.rationale,
        command="nox -s topology-session",
        run_id="20260101T000000Z-aaaaaaaa",
        run_link="runs/20260101T000000Z-aaaaaaaa/run.json",
        engine="docker 20.10",
        origins=("postgres 17.5 (Debian): postgres:17@sha256:ab", "pgbouncer 1.24.1: edoburu/pgbouncer@sha256:cd"),
        ready_ms=700.0,
        storage="in memory, 1024 MiB at most",
    )
    assert found.rationale == (
        "CI-class evidence, which is not about production: the harness started psycopg to pgbouncer 1.24.1 to postgres "
        "17.5 in session mode itself and ran its checks on it (1 OK, 0 Issue, 0 N/A, 2 Not run)."
    )


def test_the_row_of_a_topology_without_a_pooler() -> None:
    found = row(stood("direct"))
    assert found.chain == "psycopg to postgres 17.5"
    assert (found.pooler_product, found.pool_mode) == ("none", "none: no pooler")
    assert found.pools == "no Ecto: psycopg, one connection per client"
    assert "the harness started psycopg to postgres 17.5 itself and ran" in found.rationale


def test_the_reference_host_is_part_of_the_chain_if_it_ran_a_path() -> None:
    found = row(stood("session"), hosted=True)
    assert found.chain == "reference host and psycopg to pgbouncer 1.24.1 to postgres 17.5"
    assert "one connection per client; reference host: psycopg_pool of 4; default_pool_size 8" in found.pools
    assert (
        "ran its checks and the audited paths of a reference host with a real job runner on it (2 OK, "
        in found.rationale
    )


def test_a_product_has_its_own_spelling() -> None:
    topology = stood("session")
    services = tuple(replace(service, title=f"The {service.product}") for service in topology.services)
    found = row(replace(topology, services=services))
    assert found.chain == "psycopg to The pgbouncer 1.24.1 to The postgres 17.5"


def test_a_client_that_does_not_name_its_statements() -> None:
    assert row(replace(stood("session"), prepare=Prepare.UNNAMED)).prepare_policy == "unnamed (prepare_threshold None)"


@pytest.mark.parametrize("evidence_class", EvidenceClass)
def test_the_evidence_class_is_that_of_the_run(evidence_class: EvidenceClass) -> None:
    found = evidence(stood("session"), evidence_class=evidence_class)
    assert topology_row(found, "session", REPORTS).evidence_class == evidence_class
    asked = {question.question: question.answer for question in questions(found, "session")}
    assert asked["Where do these answers come from?"] == f"{evidence_class}-class evidence, run {record().run_id}"


@pytest.mark.parametrize(
    ("topology", "reason", "mode"),
    [
        (None, "no run of this code started it", "Not run"),
        (replace(stood("session"), stood=False, reason="no image"), "no image", "session"),
        (replace(stood("direct"), stood=False, reason="no image"), "no image", "none: no pooler"),
    ],
)
def test_a_topology_that_was_not_started_is_not_run(topology: TopologyEvidence | None, reason: str, mode: str) -> None:
    found = evidence(topology)
    (name,) = found.names()
    assert topology_row(found, name, REPORTS) == TopologyRow(
        environment=name,
        evidence_class="CI",
        chain=f"Not run: {reason}",
        pooler_product="Not run",
        pool_mode=mode,
        pools="Not run",
        prepare_policy="Not run",
        sandbox_note=SANDBOX,
        matches_prod="no",
        rationale="There is no evidence about this topology: no run of this code started it.",
        command=f"nox -s topology-{name}",
        run_id="",
        run_link="",
        engine="",
        origins=(),
        ready_ms=0.0,
    )
    assert questions(found, name) == ()


def test_a_topology_without_rows_has_the_command_of_its_base() -> None:
    nothing = Evidence(rows=(), topologies={}, records={}, folders={})
    assert topology_row(nothing, "session+postgres=15", REPORTS).command == "nox -s topology-session"


def test_the_command_of_a_topology_keeps_its_options() -> None:
    base = evidence(stood("session"))
    first = base.rows[0]
    command = "nox -s topology-session -- --engine native --check capture.insert"
    changed = replace(base, rows=(replace(first, result=replace(first.result, reproduce=command)),))
    assert topology_row(changed, "session", REPORTS).command == "nox -s topology-session -- --engine native"


# --- recognised and declared -----------------------------------------------------------------------------


def test_recognised_values_that_agree_are_not_repeated() -> None:
    found = row(with_findings(stood("session"), product="PgBouncer", pool_mode="session", pool_size="8"))
    assert (found.pooler_product, found.pool_mode) == ("pgbouncer 1.24.1", "session")
    assert found.pools.endswith("; default_pool_size 8")


def test_recognised_values_that_contradict_the_declaration_come_first() -> None:
    topology = with_findings(
        stood("session"),
        "product is Odyssey, declared pgbouncer",
        "pool_mode is transaction, declared session",
        product="Odyssey",
        pool_mode="transaction",
        pool_size="4",
    )
    found = row(topology)
    assert found.pooler_product == "Odyssey found, pgbouncer 1.24.1 declared"
    assert found.pool_mode == "transaction found, session declared"
    assert found.pools.endswith("; default_pool_size 8, 4 found")
    assert (found.findings, found.contradictions) == (topology.findings, topology.contradictions)


def test_values_that_were_not_recognised_are_marked_as_declared() -> None:
    found = row(with_findings(stood("session"), pooler="yes", pool_mode=""))
    assert found.pooler_product == "pgbouncer 1.24.1 (declared, not recognised from outside)"
    assert found.pool_mode == "session (declared, not recognised from outside)"


# --- the questions ---------------------------------------------------------------------------------------


def test_the_questions_about_a_topology_with_a_pooler() -> None:
    assert answers(stood("session")) == {
        "Which servers does a write pass through?": "psycopg to pgbouncer 1.24.1 to postgres 17.5",
        "What is the pool mode?": "session",
        "How many server connections can one database and user have?": "4",
        "Does the pooler track prepared statements?": "yes, max_prepared_statements 200",
        "How does the client send repeated statements?": "named (prepare_threshold 5)",
        "When does the pooler reset a server connection?": "when a client disconnects: DISCARD ALL",
        "Which other settings of the pooler does the topology choose?": "none",
        "Which startup parameters does the pooler ignore?": "none",
        "How do clients authenticate?": "SCRAM-SHA-256, to the pooler and from the pooler to PostgreSQL",
        "What is the default isolation level?": "read committed",
        "Does the evidence cover jobs and HTTP handlers?": "no: library paths only",
        "How does the job runner learn about new jobs?": "no job runner was started",
        "Where do these answers come from?": "CI-class evidence, run 20260101T000000Z-aaaaaaaa",
    }


def test_the_questions_about_a_topology_without_a_pooler() -> None:
    found = answers(stood("direct"))
    assert found["What is the pool mode?"] == "none: no pooler"
    assert found["How many server connections can one database and user have?"] == "one per client"
    assert found["Does the pooler track prepared statements?"] == "no pooler"
    assert found["When does the pooler reset a server connection?"] == "no pooler"
    assert found["Which startup parameters does the pooler ignore?"] == "none: no pooler"
    assert found["How do clients authenticate?"] == "SCRAM-SHA-256"


@pytest.mark.parametrize(
    ("notifier", "answer"),
    [
        (Notifier.LISTEN, "LISTEN through the chain"),
        (Notifier.POLL, "polling: LISTEN does not survive this pool mode"),
        (Notifier.DIRECT, "LISTEN on a direct connection: it does not survive this pool mode"),
    ],
)
def test_the_questions_about_jobs_are_about_the_reference_host(notifier: Notifier, answer: str) -> None:
    topology = stood("session")
    host = replace(topology.declared.host, notifier=notifier)
    found = answers(replace(topology, declared=replace(topology.declared, host=host)), hosted=True)
    assert found["Does the evidence cover jobs and HTTP handlers?"] == "only those of the reference host"
    assert found["How does the job runner learn about new jobs?"] == answer


@pytest.mark.parametrize(
    ("settings", "tracking"),
    [
        ({"max_prepared_statements": "50"}, "yes, max_prepared_statements 50"),
        ({"max_prepared_statements": "0"}, "no: max_prepared_statements 0"),
        ({}, "no: pgbouncer 1.24.1 does not support it"),
    ],
)
def test_the_tracking_of_prepared_statements_is_read_back(settings: dict[str, str], tracking: str) -> None:
    found = answers(with_settings(stood("session"), settings))
    assert found["Does the pooler track prepared statements?"] == tracking


def test_the_tracking_of_prepared_statements_is_else_what_a_client_found() -> None:
    found = answers(with_findings(with_settings(stood("session"), {}), prepared_statements="tracked"))
    assert found["Does the pooler track prepared statements?"] == "tracked: it was forced"


_ONLY_IN_SESSION_MODE = "DISCARD ALL runs in session mode only (server_reset_query_always is off)"


@pytest.mark.parametrize(
    ("mode", "settings", "reset"),
    [
        (PoolMode.SESSION, {"server_reset_query": "DISCARD ALL"}, "when a client disconnects: DISCARD ALL"),
        (PoolMode.SESSION, {"server_reset_query": ""}, "never: server_reset_query is empty"),
        (
            PoolMode.TRANSACTION,
            {"server_reset_query": "DISCARD ALL"},
            f"never in transaction mode: {_ONLY_IN_SESSION_MODE}",
        ),
        (PoolMode.TRANSACTION, {}, "never: server_reset_query is empty"),
        (
            PoolMode.TRANSACTION,
            {"server_reset_query": "DISCARD ALL", "server_reset_query_always": "0"},
            f"never in transaction mode: {_ONLY_IN_SESSION_MODE}",
        ),
        (
            PoolMode.TRANSACTION,
            {"server_reset_query": "DISCARD ALL", "server_reset_query_always": "1"},
            "after each transaction: DISCARD ALL (server_reset_query_always is on)",
        ),
        (
            PoolMode.STATEMENT,
            {"server_reset_query": "DISCARD ALL", "server_reset_query_always": "yes"},
            "after each statement: DISCARD ALL (server_reset_query_always is on)",
        ),
    ],
)
def test_the_reset_query_runs_in_session_mode_or_always(mode: PoolMode, settings: dict[str, str], reset: str) -> None:
    topology = with_settings(stood("session"), settings)
    pooler = topology.declared.pooler
    assert pooler
    declared = replace(topology.declared, pooler=replace(pooler, pool_mode=mode))
    found = answers(replace(topology, declared=declared))
    assert found["When does the pooler reset a server connection?"] == reset


def test_the_reset_of_another_product_is_its_default() -> None:
    topology = stood("session")
    pooler = topology.declared.pooler
    assert pooler
    declared = replace(topology.declared, pooler=replace(pooler, product="pgagroal"))
    found = answers(replace(topology, declared=declared))
    assert found["When does the pooler reset a server connection?"] == "the product's default"


def test_ignored_startup_parameters_are_listed() -> None:
    found = answers(with_settings(stood("session"), {"ignore_startup_parameters": "extra_float_digits"}))
    assert found["Which startup parameters does the pooler ignore?"] == "extra_float_digits"


def test_the_settings_that_a_topology_chooses_are_shown_with_their_effective_values() -> None:
    topology = with_settings(
        stood("session"), {"server_round_robin": "1", "query_timeout": "0", "database.pool_size": "3"}
    )
    pooler = topology.declared.pooler
    assert pooler
    chosen = replace(
        pooler,
        settings={"server_round_robin": "on", "dns_max_ttl": "9"},
        database={"pool_size": "3"},
        user={"max_user_connections": "7"},
        instances=2,
    )
    topology = replace(topology, declared=replace(topology.declared, pooler=chosen))
    shown = (
        "server_round_robin = 1; dns_max_ttl = 9; database.pool_size = 3; user.max_user_connections = 7; 2 processes"
    )
    assert row(topology).pools.endswith(f"; default_pool_size 8; {shown}")
    assert answers(topology)["Which other settings of the pooler does the topology choose?"] == shown


def test_the_servers_of_somebody_else_have_no_engine_version() -> None:
    assert record().ran_on == "docker 20.10"
    assert replace(record(), engine="attached", engine_version="").ran_on == "attached"


def test_a_service_next_to_the_chain_is_an_origin_and_no_part_of_the_chain() -> None:
    store = ServiceEvidence(name="store", product="rclone", version="1.75.2", origin="/cache/rclone")
    before = row(stood("transaction"))
    after = row(replace(stood("transaction"), beside=(store,)))
    assert after == replace(before, origins=(*before.origins, "rclone 1.75.2: /cache/rclone"))
