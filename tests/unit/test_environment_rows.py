"""The STG-01 rows of an operator's environments, and their comparison with production."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from harness.model import Confidence, EnvironmentEvidence, EvidenceClass, Finding, Prepare
from harness.report.environment_rows import environment_questions, environment_row, facts_of
from harness.report.evidence import Evidence
from harness.report.topology_rows import Question, TopologyRow
from tests.unit.made_up import record

if TYPE_CHECKING:
    from harness.report.comparison import Comparison

REPORTS = Path("/project/reports/rendered")
RUN = Path("/project/reports/runs/20260101T000000Z-aaaaaaaa")
FACTS = {
    "pooler": "yes",
    "product": "PgBouncer",
    "version": "1.24.1",
    "pool_mode": "transaction",
    "pool_size": "20",
    "prepared_statements": "tracked",
    "server_version": "17.5",
}
SETTINGS = {
    "session_replication_role": "origin",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
}
#: what is declared of a production that is the same
SAME = {**FACTS, **SETTINGS, "prepare": "unnamed"}


def findings(facts: dict[str, str], confidence: Confidence = Confidence.CERTAIN) -> tuple[Finding, ...]:
    return tuple(
        Finding(fact=fact, value=value, how="it was asked", confidence=confidence) for fact, value in facts.items()
    )


def environment(name: str = "staging", **changes: Any) -> EnvironmentEvidence:
    found = EnvironmentEvidence(
        name=name,
        reached=True,
        application="the shop",
        pools="two pools of 10",
        prepare=Prepare.UNNAMED,
        findings=findings(FACTS),
        settings=SETTINGS,
        production=SAME,
        declared_by="ada, docs/production.md",
    )
    return replace(found, **changes)


def evidence(*environments: EnvironmentEvidence) -> Evidence:
    run = replace(record(), evidence_class=EvidenceClass.HOST, engine="attached")
    return Evidence(
        rows=(),
        topologies={},
        records={found.name: run for found in environments},
        folders={run.run_id: RUN},
        environments={found.name: found for found in environments},
    )


def row(
    *environments: EnvironmentEvidence, compare_with: str = "", name: str = "staging"
) -> tuple[TopologyRow, Comparison | None]:
    return environment_row(evidence(*environments), name, REPORTS, {name: compare_with})


def compared(*environments: EnvironmentEvidence, compare_with: str = "") -> Comparison:
    _, comparison = row(*environments, compare_with=compare_with)
    assert comparison
    return comparison


# --- the row ---------------------------------------------------------------------------------------------


def test_the_row_of_an_environment_that_is_the_same_as_production() -> None:
    found, comparison = row(environment(contradictions=("pool_size is 20, declared 10",)))
    assert comparison
    assert found == TopologyRow(
        environment="staging",
        evidence_class="host",
        chain="the shop to PgBouncer 1.24.1 to PostgreSQL 17.5",
        pooler_product="PgBouncer 1.24.1",
        pool_mode="transaction",
        pools="two pools of 10",
        prepare_policy="unnamed",
        sandbox_note=(
            "no SQL sandbox: the harness commits what it writes; a test sandbox is not evidence about production"
        ),
        matches_prod="yes",
        rationale=comparison.paragraph,
        command="python -m harness verify --environment staging",
        run_id="20260101T000000Z-aaaaaaaa",
        run_link="../runs/20260101T000000Z-aaaaaaaa/run.json",
        engine="attached: the operator's own servers",
        origins=(),
        ready_ms=0.0,
        findings=findings(FACTS),
        contradictions=("pool_size is 20, declared 10",),
    )
    assert comparison.paragraph.startswith("According to ada, docs/production.md, staging has the same chain, ")
    assert comparison.paragraph.endswith(" as production.")


def test_an_environment_without_a_pooler() -> None:
    found, _ = row(environment(findings=findings({"pooler": "no", "server_version": "17.5"})))
    assert found.chain == "the shop to PostgreSQL 17.5"
    assert (found.pooler_product, found.pool_mode) == ("none", "none: no pooler")


def test_an_environment_of_which_nothing_was_found() -> None:
    found, _ = row(EnvironmentEvidence(name="staging", reached=True))
    assert found.chain == "the application to an unknown pooler to PostgreSQL of an unknown version"
    assert (found.pooler_product, found.pool_mode) == ("unknown", "unknown")
    assert (found.pools, found.prepare_policy) == ("not stated by the operator", "not stated by the operator")
    assert found.matches_prod == "partial"


@pytest.mark.parametrize(
    ("environments", "reason"),
    [
        ((), "no run of this code verified this environment"),
        ((environment(reached=False, reason="connection refused"),), "not reached: connection refused"),
    ],
)
def test_an_environment_that_no_run_reached_is_not_run(
    environments: tuple[EnvironmentEvidence, ...], reason: str
) -> None:
    found, comparison = row(*environments)
    assert comparison is None
    assert environment_questions(found, comparison) == ()
    assert found.evidence_class == "host"
    assert found.chain == f"Not run: {reason}"
    assert {found.pooler_product, found.pool_mode, found.pools, found.prepare_policy} == {"Not run"}
    assert found.rationale == f"There is no evidence about this environment: {reason}."
    assert found.command == "python -m harness verify --environment staging"
    assert (found.matches_prod, found.run_id, found.run_link) == ("no", "", "")


# --- the comparison --------------------------------------------------------------------------------------


def test_servers_of_the_harness_are_at_best_partial() -> None:
    found = compared(environment(is_a_lab=True))
    assert found.matches == "partial"
    assert found.paragraph.startswith("CI-class evidence: the harness started staging itself, ")
    shown, _ = row(environment(is_a_lab=True))
    assert shown.evidence_class == "CI", "one class, in the table and in the paragraph"
    assert shown.engine == "attached: servers that the harness started"


def test_an_environment_is_compared_with_another_one() -> None:
    production = environment("live", findings=findings(FACTS | {"pool_size": "40"}), production={})
    found = compared(environment(production={}), production, compare_with="live")
    assert found.matches == "partial"
    assert "pool_size is 20 in staging and 40 in live: " in found.paragraph
    same = compared(environment(production={}), environment("live", production={}), compare_with="live")
    assert same.matches == "yes"
    assert same.paragraph.startswith("According to a verification of live by the same checks, staging has the same ")


@pytest.mark.parametrize("others", [(), (environment("live", reached=False),)])
def test_another_environment_that_no_run_reached_leaves_everything_unknown(
    others: tuple[EnvironmentEvidence, ...],
) -> None:
    """The declaration of production is about production, not about that environment."""
    found = compared(environment(), *others, compare_with="live")
    assert found.matches == "partial"
    assert {field.verdict for field in found.fields} == {"unknown"}


def test_two_names_of_one_database_show_nothing_about_production() -> None:
    found = compared(environment(database="d1"), environment("live", database="d1"), compare_with="live")
    assert found.matches == "partial"
    assert found.paragraph == (
        "staging and live are the same database on the same server, so comparing them does not show anything about "
        "production."
    )
    assert {field.there for field in found.fields} == {""}


@pytest.mark.parametrize("databases", [("d1", "d2"), ("", "")])
def test_other_databases_and_unknown_ones_are_compared(databases: tuple[str, str]) -> None:
    here, there = (
        environment(name, database=database) for name, database in zip(("staging", "live"), databases, strict=True)
    )
    assert compared(here, there, compare_with="live").matches == "yes"


def test_only_certain_findings_are_facts() -> None:
    found = environment(
        findings=findings({"product": "PgBouncer"})
        + findings({"version": "1.24.1"}, Confidence.LIKELY)
        + findings({"pool_mode": ""}, Confidence.UNKNOWN)
    )
    assert facts_of(found) == {**SETTINGS, "product": "PgBouncer", "prepare": "unnamed"}
    assert facts_of(replace(found, prepare=None)) == {**SETTINGS, "product": "PgBouncer"}


def test_a_finding_wins_over_a_setting_of_the_same_name() -> None:
    found = environment(findings=findings({"synchronous_commit": "off"}))
    assert facts_of(found)["synchronous_commit"] == "off"


# --- the questions ---------------------------------------------------------------------------------------


def test_there_is_a_question_for_every_field_that_was_compared() -> None:
    production = {**SAME, "pool_size": "40", "version": ""}
    found, comparison = row(environment(production=production))
    questions = {question.question: question for question in environment_questions(found, comparison)}
    assert comparison
    assert len(questions) == len(comparison.fields)
    expected = [
        ("product", "staging: PgBouncer; production: PgBouncer", "yes"),
        ("pool_size", "staging: 20; production: 40", "no"),
        ("version", "staging: 1.24.1; production: not declared", "partial"),
    ]
    for field, answer, matches in expected:
        question = f"Is {field} the same as in production?"
        assert questions[question] == Question(question=question, answer=answer, matches_prod=matches)


def test_a_value_that_was_not_found_is_unknown_in_its_answer() -> None:
    found, comparison = row(environment(findings=()))
    answers = [question.answer for question in environment_questions(found, comparison)]
    assert "staging: unknown; production: transaction" in answers


def test_a_likely_value_is_named_and_not_compared() -> None:
    likely = findings({"pool_size": "4"}, Confidence.LIKELY)
    certain = findings({name: value for name, value in FACTS.items() if name != "pool_size"})
    found, comparison = row(replace(environment(production=SAME), findings=(*certain, *likely)))
    assert comparison is not None
    [size] = [field for field in comparison.fields if field.field == "pool_size"]
    assert (size.verdict, size.here, size.found) == ("unknown", "", "likely 4")
    assert "pool_size (staging: likely 4, production: 20)" in found.rationale
    answers = [question.answer for question in environment_questions(found, comparison)]
    assert "staging: likely 4; production: 20" in answers
