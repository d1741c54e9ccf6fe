"""What a report says about an audit trail of somebody else's: causes, what to change, and SQL to repeat a finding."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.audit.target_file import TrailFeature
from harness.audit.target_loading import reference_target
from harness.checks.claims import unjudged_claims
from harness.checks.registry import TRAIL_SECTIONS
from harness.database import Script
from harness.model import CHECK_BROKE, Behaviour, Limit, Status
from harness.report.building import build_report
from harness.report.findings import findings
from harness.report.render import render
from harness.report.tables import Declared
from harness.suites.catalogue import catalogue
from harness.suites.causes import NAMED, Cause, cause_of
from tests.tables import each_row
from tests.unit.made_up import CHECKS, result
from tests.unit.test_changes import ACCEPTED, evidence, feature, issue

if TYPE_CHECKING:
    from pathlib import Path

    from harness.model import Result

FORGERY = issue("direct", "capture.forgery")
KEYS = issue("transaction", "capture.keys")
SCRIPT = "-- session application, role app, directly\nSELECT '</details><script>`';"


def found(*results: Result, about: str = "mine") -> list[tuple[Cause, list[str]]]:
    answers = [row.answer for row in evidence(results).rows]
    return [(group.cause, [row.check for row in group.rows]) for group in findings(answers, about)]


def test_every_check_of_the_table_of_causes_exists() -> None:
    assert {check.id for check in catalogue().checks} >= NAMED


def test_every_check_of_a_trail_has_a_cause() -> None:
    checks = [check for check in catalogue().checks if check.judges_trail]
    assert len(checks) > 100
    assert {check.id for check in checks if cause_of(check.id) is Cause.OTHER} <= {
        check.id for check in checks if check.id.startswith("observability.")
    }


def test_findings_are_grouped_by_cause_and_over_topologies() -> None:
    assert found(KEYS, FORGERY, replace(KEYS, target="direct")) == [
        (Cause.UNPROTECTED, ["capture.forgery"]),
        (Cause.VALUES, ["capture.keys"]),
    ]
    [group] = findings([row.answer for row in evidence([KEYS, replace(KEYS, target="direct")]).rows], "mine")
    assert group.rows[0].topologies == ("transaction", "direct")


def test_the_reference_layer_has_no_findings() -> None:
    assert found(KEYS, about="reference") == []


def test_an_accepted_finding_comes_after_those_that_count() -> None:
    accepted = replace(FORGERY, known=ACCEPTED)
    assert [cause for cause, _ in found(accepted, KEYS)] == [Cause.VALUES, Cause.UNPROTECTED]


def test_a_mistake_of_the_harness_is_not_a_finding_about_the_trail() -> None:
    broken = result("direct", CHECKS[0], Status.ISSUE, f"{CHECK_BROKE}: KeyError: 'x'")
    assert found(broken) == [(Cause.HARNESS, [CHECKS[0]])]


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("write with an empty search_path: expected done, observed 42P01 relation x does not exist", Cause.NAMES),
        ("the limit: expected documented, observed no entry for a.b among the `limits`", Cause.UNDOCUMENTED),
        ("rows: expected 1, observed 0", Cause.MISSED),
    ],
)
def test_what_was_observed_decides_the_cause_before_the_check_does(reason: str, cause: Cause) -> None:
    assert found(result("direct", "capture.insert", Status.ISSUE, reason)) == [(cause, ["capture.insert"])]


def test_every_advice_is_sentences() -> None:
    for cause in Cause:
        assert cause.advice.endswith(".")
        assert cause.advice.count("`") % 2 == 0
        assert not cause.title.endswith(".")


def test_the_report_of_a_foreign_trail_has_findings_with_sql_and_speaks_of_mutations(tmp_path: Path) -> None:
    rows = evidence([replace(KEYS, reproduction=SCRIPT)])
    built = build_report(rows, tmp_path, Declared(unjudged=("coverage",)))
    report = replace(built, audit_target="mine")
    render(report, tmp_path)
    pages = {name: (tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "issues.md", "matrix.md")}
    assert "What to change in mine" in pages["report.html"]
    assert "&lt;/details&gt;&lt;script&gt;" in pages["report.html"]
    assert f"\n    {SCRIPT.splitlines()[1]}\n" in pages["issues.md"]
    for text in pages.values():
        assert "nox -s prove" not in text.partition("<script>")[0]
        assert "Breaks of the audit trail itself" not in text
    assert "No check can judge what the target file claims with `coverage`" in pages["issues.md"]
    assert "`harness up TOPOLOGY --trail --audit-target path/to/mine.toml`" in pages["issues.md"]
    assert replace(report, audit_target="row-diff").audit_target_option == "row-diff"
    render(built, tmp_path)
    assert "What to change" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_of_a_foreign_trail_has_the_issues_of_others_too(tmp_path: Path) -> None:
    pooled = feature(Behaviour.LOST, status=Status.ISSUE)
    for results, section in (([KEYS], False), ([KEYS, pooled], True), ([pooled], True)):
        render(replace(build_report(evidence(results), tmp_path), audit_target="mine"), tmp_path)
        text = (tmp_path / "report.md").read_text(encoding="utf-8")
        assert ("What to change in mine" in text) is (KEYS in results)
        assert ("\n## Issues\n" in text) is section
        assert text.count(f"--check {KEYS.check}") == 0


def test_a_claim_that_every_check_needs_with_another_one_is_not_judged() -> None:
    target = reference_target()
    alone = replace(target, claims=frozenset({TrailFeature.LIBRARY}))
    assert unjudged_claims(catalogue().checks, target) == []
    assert unjudged_claims(catalogue().checks, alone) == []


@pytest.mark.parametrize(
    ("rows", "unobserved"),
    [
        ([result("direct", CHECKS[0])], (CHECKS[0],)),
        ([result("direct", CHECKS[0]), issue("transaction")], ()),
        ([replace(result("direct", CHECKS[0]), limit=Limit(outcome="o", source="https://example.org"))], ()),
        ([result("direct", CHECKS[0], Status.NA)], ()),
        ([result("direct", CHECKS[1])], ()),
    ],
)
def test_a_documented_limit_that_no_check_shows_is_named(
    rows: list[Result], unobserved: tuple[str, ...], tmp_path: Path
) -> None:
    report = build_report(evidence(rows), tmp_path, Declared(limited=(CHECKS[0],)))
    assert report.unobserved == unobserved
    render(replace(report, audit_target="mine"), tmp_path)
    assert ("remove the entries" in (tmp_path / "issues.md").read_text(encoding="utf-8")) is bool(unobserved)


# --- scripts ---------------------------------------------------------------------------------------------


def test_a_script_names_a_session_when_another_one_goes_on() -> None:
    script = Script()
    for session, statement in (("a", "BEGIN"), ("a", "SELECT 1;"), ("b", "SELECT 2"), ("a", "COMMIT")):
        script.add(session, statement)
    assert script.text == ("-- session a\nBEGIN;\nSELECT 1;\n-- session b\nSELECT 2;\n-- session a\nCOMMIT;")


def test_a_long_script_keeps_its_beginning_and_its_end() -> None:
    script = Script()
    for number in range(1000):
        script.add("a", f"SELECT {number}")
    lines = script.text.splitlines()
    assert (lines[1], lines[-1]) == ("SELECT 0;", "SELECT 999;")
    assert "-- … 800 statements are left out" in lines
    script = Script()
    for number in range(100):
        script.add("a", f"SELECT '{number}{'x' * 2000}'")
    assert len(script.text) < 21_000
    left, kept = re.search(r"… (\d+) statements", script.text), script.text.count("SELECT")
    assert left
    assert int(left[1]) + kept == 100


@each_row(
    ("session", "statement", "kept"),
    [
        ("a", "ALTER ROLE app PASSWORD 'se''cret'", "ALTER ROLE app PASSWORD '…';"),
        ("a", "CREATE ROLE x LOGIN password  E'secret' NOINHERIT", "CREATE ROLE x LOGIN password  '…' NOINHERIT;"),
        ("a", "SELECT pg_backend_pid()", ""),
        ("admin, role x, directly", "SELECT relname FROM pg_class", ""),
        ("admin", "SELECT 1 FROM pg_class c JOIN pg_catalog.pg_index i ON i.indrelid = c.oid", ""),
        (
            "admin",
            "SELECT count(*) FROM (SELECT * FROM trail.log l JOIN pg_class c ON c.oid = l.source) AS change",
            "SELECT count(*) FROM (SELECT * FROM trail.log l JOIN pg_class c ON c.oid = l.source) AS change;",
        ),
        ("application", "SELECT relname FROM pg_class", "SELECT relname FROM pg_class;"),
        ("admin, role x, directly", "CREATE TABLE t AS SELECT 1", "CREATE TABLE t AS SELECT 1;"),
    ],
)
def test_passwords_and_looks_at_the_server_are_left_out(session: str, statement: str, kept: str) -> None:
    script = Script()
    script.add(session, statement)
    assert script.text == (f"-- session {session}\n{kept}" if kept else "")


def test_a_long_statement_is_kept_once() -> None:
    script = Script()
    statement = f"SELECT {', '.join('1' for _ in range(200))}"
    script.add("a", statement)
    script.add("a", statement)
    assert script.text.count(statement) == 1
    assert "-- once more: SELECT 1, 1" in script.text


def test_only_trails_are_followed() -> None:
    followed = {check.section for check in catalogue().checks if check.judges_trail}
    assert followed <= TRAIL_SECTIONS
