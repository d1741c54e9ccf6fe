"""The sections of the page: the order of their rows, and their results in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.model import IngestLabel, JobLabel, Proof, Section, Severity, Status
from harness.preflight.declaration import GateResult
from harness.report.building import build_report
from harness.report.evidence import Row
from harness.report.feature_map import DriverRow, FeatureCell, safe_drivers
from harness.report.limits import LimitKind
from harness.report.merging import merge
from harness.report.render import html_page, render
from harness.report.sections import sections
from harness.report.tables import IssueRow, LimitRow, Report
from harness.report.tried_rows import about_own_systems
from harness.report.verdicts import verdicts
from tests.unit.made_up import NAMES, PLAN, mixed, planned, record, result, store_run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.report.listings import Section as Listed


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return build_report(merge([store_run(tmp_path, mixed())], PLAN), tmp_path)


def section(report: Report, anchor: str) -> Listed:
    (found,) = [one for one in sections(report) if one.anchor == anchor]
    return found


def issue(name: str, severity: Severity, accepted: str = "") -> IssueRow:
    empty = dict.fromkeys(("symptom", "area", "owner", "command", "topology", "check"), "x")
    link = "https://example.org/1" if accepted else ""
    return IssueRow(id=name, severity=severity, link=link, accepted=accepted, **empty)


def cell(word: str) -> FeatureCell:
    return FeatureCell(text=word, word=word, mark="", anchor="a", command="c")


def test_issues_that_nobody_accepted_come_first(report: Report) -> None:
    rows = (
        issue("a", Severity.P0, "known"),
        issue("b", Severity.P2),
        issue("c", Severity.P1),
        issue("d", Severity.P1, "quarantined"),
        issue("e", Severity.P2, "known"),
    )
    found = section(replace(report, issues=rows), "issues")
    assert [row.id for _, rows in found.listings[1].groups for row in rows] == ["c", "b", "a", "d", "e"]
    assert found.result == "5 Issues: 1 P0, 2 P1, 2 P2; 2 known, 1 quarantined"


def test_the_worst_status_comes_first(report: Report) -> None:
    statuses = (Status.OK, Status.NA, Status.ISSUE, Status.NOT_RUN, Status.OK)
    items = tuple(
        GateResult(item=str(number), status=status, evidence="", notes="") for number, status in enumerate(statuses)
    )
    found = section(replace(report, preflight=items), "preflight")
    assert [row.item for _, rows in found.listings[0].groups for row in rows] == ["2", "3", "0", "4", "1"]
    assert found.result == "5 items: 2 OK, 1 Issue, 1 Not run, 1 N/A"


def test_drivers_with_wrong_results_come_first(report: Report) -> None:
    rows = tuple(
        DriverRow(
            driver=name, check="c", settings="s", versions="v", cells=dict(zip(NAMES, map(cell, words), strict=False))
        )
        for name, words in {"a": ["works"], "b": ["works", "wrong"], "c": ["fails"], "d": []}.items()
    )
    found = section(replace(report, drivers=rows), "drivers")
    assert [row.driver for _, rows in found.listings[0].groups for row in rows] == ["b", "c", "a", "d"]
    assert found.result == "without a pooler: safe: a, b (1 other breaks in direct); session mode: none works"


def test_a_defect_of_several_topologies_is_one_row_of_the_page(report: Report) -> None:
    rows = tuple(
        replace(row, result=replace(row.result, status=Status.ISSUE, reason="r", known=None))
        for row in report.rows
        if row.planned.check == report.rows[0].planned.check
    )
    assert len(rows) > 1
    first, each = section(replace(report, rows=rows, issues=(issue("a", Severity.P0),)), "issues").listings
    assert (first.number, first.folded, each.folded) == (1, False, True)


def test_drivers_are_safe_by_pool_mode() -> None:
    words = {"named": ("works", "works", "wrong", "fails"), "named, cache=0": ("works", "works", "works", "fails")}
    names = {"direct": "", "transaction": "transaction", "unprepared": "transaction", "statement": "statement"}
    rows = [
        DriverRow(
            driver=driver, check="c", settings="", versions="", cells=dict(zip(names, map(cell, of), strict=True))
        )
        for driver, of in words.items()
    ]
    assert safe_drivers(rows, names) == (
        "without a pooler: all 2 drivers work; transaction mode: safe: named with cache=0 "
        "(1 other breaks in unprepared); statement mode: none works"
    )
    assert safe_drivers((), names) == ""


def test_a_long_table_is_folded_unless_it_belongs_on_paper(report: Report) -> None:
    limit = LimitRow(kind=LimitKind.TRAIL, topologies=NAMES, outcome="o", check="c", source="https://example.org")
    many = replace(report, limits=(limit,) * 100, paths=report.paths * 50, topologies=report.topologies * 50)
    folded = {one.anchor: [listing.folded for listing in one.listings] for one in sections(many)}
    assert (folded["limits"], folded["paths"], folded["topology"]) == ([True], [False], [False])


def test_the_page_says_first_whether_controls_prove_its_checks(report: Report, tmp_path: Path) -> None:
    page = "".join(html_page(report, tmp_path))
    assert page.index("Not proven in this store") < page.index('id="verdicts"')
    proof = Proof(topology="", check="", control="no-trigger", at="rows", proven=True, applicable=True, reason="")
    first, *others = [row for row in report.rows if row.status in {Status.OK, Status.ISSUE}]
    part = "".join(html_page(replace(report, rows=(replace(first, proofs=(proof,)), *others)), tmp_path))
    assert f"for 1 of {len(others) + 1} results, controls turned the check to Issue" in part
    assert f"has not run for the other {len(others)}." in part
    whole = "".join(html_page(replace(report, rows=(replace(first, proofs=(proof,)),)), tmp_path))
    assert "for every result, controls turned the check to Issue" in whole
    foreign = replace(report, rows=(replace(first, proofs=(proof,)),), audit_target="carbonite")
    about = "".join(html_page(foreign, tmp_path))
    assert "harness prove TOPOLOGY --audit-target path/to/carbonite.toml</code> measures it." in about
    assert "On the reference layer, controls turned the check of 1 of 1 results to Issue." in about


def test_every_section_has_its_anchor_with_and_without_rows(report: Report, tmp_path: Path) -> None:
    """A link to a section leads to its table, or to the line that says why it has none."""
    page = "".join(html_page(report, tmp_path))
    for found in sections(report):
        assert page.count(f'id="{found.anchor}"') == 1
        assert (f'<a href="#{found.anchor}">' in page) is found.is_shown
        assert found.title in page
    assert {found.anchor for found in sections(report) if not found.is_shown} >= {"preflight", "breaks"}


# --- one system of the project's own ---------------------------------------------------------------------

_OWN = {Section.JOBS: "job-engines", Section.INGEST: "ingest", Section.MIGRATIONS: "migrations"}


def _alone(folder: Path, *rows: Section) -> Report:
    """Return a report whose rows are about such systems, one row of each."""
    plan = []
    for found in rows:
        row = replace(planned("direct", f"{found}.a-case"), section=found)
        if found is Section.INGEST:
            row = replace(row, ingest=IngestLabel(pipeline="shop", title="Shop", case="a-case"), declared_as="shop")
        if found is Section.JOBS:
            row = replace(row, job=JobLabel(engine="absurd", title="absurd", variant="a", case="works"))
        plan.append(row)
    results = [result("direct", row.check) for row in plan]
    run = store_run(folder, results, replace(record(), plan=tuple(plan)))
    return build_report(merge([run], []), folder)


@pytest.mark.parametrize("about", list(_OWN))
def test_a_report_about_one_system_has_no_table_of_the_audit_trail(about: Section, tmp_path: Path) -> None:
    report = _alone(tmp_path, about)
    assert report.about == (_OWN[about],)
    shown = [one.anchor for one in sections(report) if one.is_shown]
    assert {"paths", "trials", "checklist"}.isdisjoint(shown)
    assert [one.anchor for one in sections(report)][:3] == [_OWN[about], "issues", "limits"]
    render(report, tmp_path)
    text = (tmp_path / "report.md").read_text()
    for heading in ("STG", "Three questions", "Differences", "Checklist"):
        assert f"\n## {heading}" not in text
    assert "the checklist, parity and preflight are not part of it" in text
    assert text.index("## Summary") < text.index("## Issues") < text.index("## What ran")


def test_a_report_about_two_systems_begins_with_both(tmp_path: Path) -> None:
    report = _alone(tmp_path, Section.MIGRATIONS, Section.INGEST)
    assert report.about == ("ingest", "migrations")
    assert _alone(tmp_path / "mixed", Section.INGEST, Section.CAPTURE).about == ()


def test_the_verdict_on_a_pipeline_counts_its_checks(tmp_path: Path) -> None:
    [verdict] = _alone(tmp_path, Section.INGEST).verdicts
    assert verdict.sentences == ("the ingest pipeline keeps its promises in 1 check",)
    command = replace(planned("direct", "capture.a"), section=Section.COMMANDS)
    rows = [Row(planned=command, result=result("direct", command.check), run_id="a")]
    assert about_own_systems(rows) == ["", "", "other test suites pass in 1 command"]
    [verdict] = _alone(tmp_path / "both", Section.MIGRATIONS, Section.CAPTURE).verdicts
    assert verdict.sentences == ("the audit trail holds in 1 check", "migrations hold in 1 check")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (Status.OK, "migrations hold in 1 check"),
        (Status.ISSUE, "migrations do not hold in 1 of 1 check"),
        (Status.NA, "migrations were not verified here"),
        (Status.NOT_RUN, "migrations were not verified here, and 1 is Not run"),
    ],
)
def test_checks_of_the_trail_that_nobody_asked_for_are_in_no_verdict_on_migrations(
    tmp_path: Path, status: Status, sentence: str
) -> None:
    row, reason = replace(planned("direct", "migrations.a-case"), section=Section.MIGRATIONS), "because"
    run = store_run(tmp_path, [result("direct", row.check, status, "" if status is Status.OK else reason)], replace(record(), plan=(row,)))
    [verdict] = verdicts(merge([run], [row, planned("direct", "capture.insert")]), ["direct"])
    assert verdict.sentences == (sentence,)
