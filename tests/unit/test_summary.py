"""What report.md says about all topologies at once: Issues in groups, and features that differ."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness import places
from harness.checks.judging import STATEMENTS
from harness.lint.linter import lint
from harness.model import CHECK_BROKE, KnownIssue, Quarantine, Severity, Status
from harness.preflight.declaration import GateResult
from harness.report.building import build_report
from harness.report.documents import MACHINES, MARKDOWN, SUMMARY
from harness.report.feature_differences import Difference, differences
from harness.report.feature_map import FeatureCell, FeatureGroup, FeatureRow
from harness.report.issue_groups import issue_groups
from harness.report.merging import merge
from harness.report.render import render
from harness.report.tables import Declared
from tests.unit.made_up import NAMES, PLAN, mixed, planned, record, result, store_run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.report.issue_groups import Answer

ERROR = f"{next(iter(STATEMENTS.values()))}: expected no error, observed 42501"
LINKS = ("", "https://example.org/1", "https://example.org/2")
CHECKS = ("capture.insert", "capture.update", "actor.types")


def issue(topology: str, check: str, reason: str = "rows: expected 1, observed 0", link: str = "") -> Answer:
    known = KnownIssue(check=check, link=link, owner="ada", expires="2099-01-01") if link else None
    found = replace(result(topology, check, Status.ISSUE, reason), known=known)
    return planned(topology, check), found


ISSUES = st.builds(
    issue, st.sampled_from(NAMES), st.sampled_from(CHECKS), st.sampled_from((ERROR, "rows: x")), st.sampled_from(LINKS)
)


@given(st.lists(ISSUES))
def test_every_issue_is_in_one_group(rows: list[Answer]) -> None:
    groups = issue_groups(rows)
    assert sum(group.number for group in groups) == len(rows)
    new = [check for group in groups if not group.link for check in group.checks]
    assert len(new) == len(set(new))
    assert [bool(group.link) for group in groups] == sorted(bool(group.link) for group in groups)


def test_the_same_check_on_several_topologies_is_one_group() -> None:
    (group,) = issue_groups([issue("session", CHECKS[0]), issue("transaction", CHECKS[0], "rows: another reason")])
    assert (group.topologies, group.number) == (("session", "transaction"), 2)
    assert group.text == (
        f"{CHECKS[0]} on session, transaction: the claim of {CHECKS[0]}: rows: expected 1, observed 0; "
        "also rows: another reason (transaction)"
    )


def test_a_line_names_a_few_symptoms_and_counts_the_others() -> None:
    (group,) = issue_groups([issue(f"t{number}", CHECKS[0], f"rows: {number}") for number in range(6)])
    assert group.found == "rows: 0; also rows: 1 (t1); also rows: 2 (t2); also rows: 3 (t3); and 2 more, in issues.md"


@pytest.mark.parametrize("reason", [ERROR, f"{CHECK_BROKE}: KeyError"])
def test_the_same_error_in_two_checks_is_one_group(reason: str) -> None:
    (group,) = issue_groups([issue("session", CHECKS[0], reason), issue("transaction", CHECKS[1], reason)])
    assert group.checks == CHECKS[:2]
    assert group.text.endswith(f"; the same cause: {CHECKS[1]}")


def test_expectations_that_break_alike_are_no_common_cause() -> None:
    assert len(issue_groups([issue("session", CHECKS[0]), issue("session", CHECKS[1])])) == 2


def test_known_issues_follow_new_ones_and_share_their_link() -> None:
    rows = [issue("session", CHECKS[0], link=LINKS[1]), issue("direct", CHECKS[1], link=LINKS[1])]
    plan, found = issue("session", CHECKS[0])
    groups = issue_groups([*rows, (replace(plan, severity=Severity.P2), found)])
    assert [(group.link, group.checks) for group in groups] == [("", CHECKS[:1]), (LINKS[1], CHECKS[:2])]


def test_the_symptom_of_another_check_is_named_with_the_check() -> None:
    (group,) = issue_groups(
        [issue("session", CHECKS[0], link=LINKS[1]), issue("session", CHECKS[1], "rows: 7", link=LINKS[1])]
    )
    assert group.symptoms == ("rows: expected 1, observed 0", f"rows: 7 ({CHECKS[1]} on session)")
    assert group.found == f"rows: expected 1, observed 0; also rows: 7 ({CHECKS[1]} on session)"


def test_a_group_shows_its_worst_issue() -> None:
    plan, found = issue("session", CHECKS[0], "minor")
    (group,) = issue_groups([(replace(plan, severity=Severity.P2), found), issue("transaction", CHECKS[0], "worse")])
    assert (group.severity, group.symptoms) == (Severity.P0, ("worse", "minor (session)"))
    assert group.command == planned("transaction", CHECKS[0]).reproduce


# --- features ----------------------------------------------------------------------------------------------


def feature(name: str, **outcomes: str) -> FeatureRow:
    cells = {
        topology: FeatureCell(text=text, word=text.partition(" ")[0], mark="", anchor="a", command="c")
        for topology, text in outcomes.items()
    }
    return FeatureRow(feature=name, check=f"pooling.{name}", cells=cells)


def grouped(*rows: FeatureRow) -> tuple[Difference, ...]:
    return differences([FeatureGroup(name="settings", rows=rows)])


def test_a_feature_with_one_outcome_does_not_differ() -> None:
    assert grouped(feature("a", session="lost", transaction="lost"), feature("b", session="works")) == ()


def test_a_topology_without_an_outcome_is_no_difference() -> None:
    row = feature("a", session="works", transaction="works")
    cells = row.cells | {"statement": replace(row.cells["session"], text="N/A", word="")}
    assert grouped(replace(row, cells=cells)) == ()


def test_features_with_the_same_outcomes_share_a_row_and_silent_ones_come_first() -> None:
    fails, lost = {"session": "works", "transaction": "fails (26000)"}, {"session": "works", "transaction": "lost"}
    first, second = grouped(feature("a", **fails), feature("b", **lost), feature("c", **lost))
    assert first == Difference(
        features=("b", "c"), works_in=("session",), elsewhere={"lost": ("transaction",)}, silent=True
    )
    assert second.elsewhere == {"fails (26000)": ("transaction",)}


# --- the documents -----------------------------------------------------------------------------------------


def test_documents_of_what_nobody_declares_are_not_written_and_old_ones_are_removed(tmp_path: Path) -> None:
    evidence = merge([store_run(tmp_path, mixed())], PLAN)
    gate = GateResult(item="version", status=Status.OK, evidence="pyproject.toml:3", notes="n")
    declared = build_report(evidence, tmp_path, Declared(preflight=(gate,)))
    assert "preflight.md" in {path.name for path in render(declared, tmp_path)}
    text = (tmp_path / "report.md").read_text()
    assert "- Distribution preflight: 1 OK." in text
    assert "[preflight.md](./preflight.md)" in text
    assert "preflight.md" not in {path.name for path in render(build_report(evidence, tmp_path), tmp_path)}
    assert not (tmp_path / "preflight.md").exists()
    assert "preflight.md" not in (tmp_path / "report.md").read_text()


def test_every_file_that_report_md_names_is_written(tmp_path: Path) -> None:
    report = build_report(merge([store_run(tmp_path, mixed())], PLAN), tmp_path)
    written = {path.name for path in render(report, tmp_path)}
    assert set(re.findall(r"\]\(\./(.*?)\)", (tmp_path / "report.md").read_text())) == written - {"report.md"}


def test_a_quarantine_without_consecutive_runs_has_its_file(tmp_path: Path) -> None:
    """An environment has no three consecutive runs."""
    entry = Quarantine(check="capture.insert", link="https://example.org/1", owner="ada", expires="2099-01-01")
    built = build_report(merge([store_run(tmp_path, mixed())], PLAN), tmp_path, Declared(quarantine=(entry,)))
    written = {path.name for path in render(replace(built, consecutive=()), tmp_path)}
    assert "`repetition.md` has all repeated rows" in (tmp_path / "report.md").read_text()
    assert "repetition.md" in written
    assert "repetition.md" not in {
        path.name for path in render(replace(built, consecutive=(), repeated=(), quarantine=()), tmp_path)
    }


def test_what_all_topologies_share_is_said_once(tmp_path: Path) -> None:
    render(build_report(merge([store_run(tmp_path, mixed())], PLAN), tmp_path), tmp_path)
    for name in ("report.md", "stg-01-topology.md"):
        assert (tmp_path / name).read_text().count("It is not evidence about a production environment") == 1


def test_the_linter_accepts_the_documents(tmp_path: Path) -> None:
    """A shared paragraph does not replace the one that describes how an environment differs from production."""
    written = render(build_report(merge([store_run(tmp_path, mixed())], PLAN), tmp_path), tmp_path)
    documents = [path for path in written if path.suffix == ".md"]
    found = lint(documents, places.PACKAGE.parent).findings
    assert [finding for finding in found if finding.rule == "R8"] == []


def test_the_guide_names_every_file_of_a_report() -> None:
    guide = (places.PACKAGE.parent / "docs" / "report.md").read_text()
    files = [document.name for document in (SUMMARY, *MARKDOWN, *MACHINES)]
    assert [name for name in files if f"`{name}`" not in guide] == []


def test_every_output_has_only_what_a_run_was_asked_for(tmp_path: Path) -> None:
    asked = replace(record(), plan=PLAN[:2], topologies={"direct": record().topologies["direct"]})
    evidence = merge([store_run(tmp_path, [result("direct", PLAN[0].check)], asked)], PLAN)
    written = {path.name: path.read_text() for path in render(build_report(evidence, tmp_path), tmp_path)}
    data, tests = json.loads(written["report.json"]), json.loads(written["ctrf.json"])["results"]["tests"]
    shown = {(name, check) for name, rows in data["rows"].items() for check in rows}
    assert shown == {("direct", row.check) for row in PLAN[:2]}
    assert {(test["suite"][0], test["name"]) for test in tests} == shown
    assert re.findall('testsuite name="(.*?)"', written["junit.xml"]) == ["direct"]
    assert [verdict["name"] for verdict in data["verdicts"]] == ["direct"]
    for name in ("report.md", "matrix.md", "stg-01-topology.md", "feature-map.md", "issues.md"):
        assert "topology-session" not in written[name], name
        assert "| transaction |" not in written[name], name
    # one topology answers no item of the checklist for the others
    items = "19 items: 2 N/A, 17 Not run; 17 need rows that no run was asked for."
    assert items in written["report.md"]
