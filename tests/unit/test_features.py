"""The feature map and the driver table, from evidence that is made up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.checks.execution import accept_known
from harness.model import Behaviour, FeatureOutcome, Outcome, PlannedCheck, Result, Section, Severity, Status
from harness.report.building import build_report
from harness.report.evidence import Evidence, Row
from harness.report.feature_map import anchor, driver_table, feature_map
from harness.report.render import render
from tests.unit.pages import evidence_of

if TYPE_CHECKING:
    from pathlib import Path

WORKS = Outcome(behaviour=Behaviour.WORKS)
LEAKS = Outcome(behaviour=Behaviour.LEAKS)
FAILS = Outcome(behaviour=Behaviour.FAILS, sqlstate="26000")


def row(
    topology: str,
    check: str,
    outcome: Outcome | None,
    status: Status = Status.OK,
    *,
    area: str = "session settings",
    facts: dict[str, str] | None = None,
    defect: bool = False,
) -> Row:
    reproduce = f"nox -s topology-{topology} -- --check {check}"
    planned = PlannedCheck(
        target=topology,
        check=check,
        claim="c",
        section=Section.POOLING,
        severity=Severity.P1,
        area=area,
        reproduce=reproduce,
        feature=f"the feature {check}",
    )
    seen = (
        FeatureOutcome(observed=outcome, expected=(WORKS,), source="https://example.org/1", defect=defect)
        if outcome
        else None
    )
    result = Result(
        target=topology,
        check=check,
        status=status,
        reason="" if status is Status.OK else "why",
        feature=seen,
        facts=facts or {},
        reproduce=reproduce,
        severity=Severity.P0 if status is Status.ISSUE else None,
    )
    return Row(planned=planned, result=accept_known(result, ()), run_id="")


def evidence(*rows: Row) -> Evidence:
    return Evidence(rows=rows, topologies={}, records={}, folders={})


MIXED = evidence(
    row("direct", "pooling.a", WORKS),
    row("transaction", "pooling.a", LEAKS),
    row("transaction", "pooling.b", FAILS, Status.ISSUE),
    row("direct", "pooling.b", None, Status.NOT_RUN),
    row("transaction", "pooling.c", LEAKS, Status.ISSUE, defect=True),
    row(
        "transaction",
        "drivers.x",
        FAILS,
        area="drivers",
        facts={
            "errors": '{"26000":7,"42P05":2}',
            "wrong results": "3",
            "queries": "1440",
            "settings": "s",
            "versions": "v",
        },
    ),
    row("direct", "drivers.x", None, Status.NOT_RUN, area="drivers"),
)


def test_a_feature_is_a_row_and_a_topology_is_a_column() -> None:
    (group,) = feature_map(MIXED)
    texts = {(feature.check, name): cell.text for feature in group.rows for name, cell in feature.cells.items()}
    assert texts == {
        ("pooling.a", "direct"): "works",
        ("pooling.a", "transaction"): "leaks",
        ("pooling.b", "transaction"): "fails (26000)",
        ("pooling.b", "direct"): "Not run",
        ("pooling.c", "transaction"): "leaks",
    }
    marks = {feature.check: feature.cells["transaction"].mark for feature in group.rows}
    assert marks == {"pooling.a": "", "pooling.b": "Issue", "pooling.c": "known defect"}


@pytest.mark.parametrize(
    ("outcome", "text", "word"),
    [
        (WORKS, "works", "works"),
        (FAILS, "fails (26000)", "fails"),
        (Outcome(behaviour=Behaviour.HANGS), "hangs", "hangs"),
        (Outcome(behaviour=Behaviour.LOST), "lost", "lost"),
        (Outcome(behaviour=Behaviour.WRONG), "wrong", "wrong"),
        (LEAKS, "leaks", "leaks"),
    ],
)
def test_a_cell_has_the_whole_outcome_and_its_word(outcome: Outcome, text: str, word: str) -> None:
    (group,) = feature_map(evidence(row("direct", "pooling.a", outcome)))
    cell = group.rows[0].cells["direct"]
    assert (cell.text, cell.word, cell.mark) == (text, word, "")


def test_areas_keep_their_order_and_drivers_are_not_features() -> None:
    groups = feature_map(
        evidence(
            row("direct", "pooling.b", WORKS, area="statements"),
            row("direct", "pooling.a", WORKS),
            row("direct", "drivers.x", WORKS, area="drivers"),
            row("direct", "pooling.c", WORKS, area="statements"),
        )
    )
    assert [(group.name, [feature.feature for feature in group.rows]) for group in groups] == [
        ("statements", ["the feature pooling.b", "the feature pooling.c"]),
        ("session settings", ["the feature pooling.a"]),
    ]


def test_a_check_that_is_not_about_a_feature_is_not_in_the_map() -> None:
    other = row("direct", "pooling.a", None)
    assert feature_map(evidence(replace(other, planned=replace(other.planned, feature="")))) == ()


def test_an_anchor_has_only_characters_that_are_safe_in_links() -> None:
    assert anchor(row('session "1"', "pooling.a_b", WORKS)) == "session--1-.pooling.a-b"


def test_not_run_has_no_outcome_even_if_one_was_observed() -> None:
    (group,) = feature_map(evidence(row("direct", "pooling.a", WORKS, Status.NOT_RUN)))
    cell = group.rows[0].cells["direct"]
    assert (cell.text, cell.word) == ("Not run", "")


def test_errors_and_wrong_results_of_a_driver_are_counted() -> None:
    (driver,) = driver_table(MIXED)
    assert driver.cells["transaction"].text == "9 errors (26000, 42P05), 3 wrong of 1440"
    assert driver.cells["direct"].text == "Not run"
    assert (driver.driver, driver.settings, driver.versions) == ("the feature drivers.x", "s", "v")


@pytest.mark.parametrize("facts", [{}, {"errors": "{}", "wrong results": "0"}, {"errors": "[]"}])
def test_a_driver_that_recorded_nothing_has_neither_settings_nor_counts(facts: dict[str, str]) -> None:
    (driver,) = driver_table(evidence(row("direct", "drivers.x", WORKS, area="drivers", facts=facts)))
    assert (driver.settings, driver.versions, driver.cells["direct"].text) == ("", "", "works")


def test_a_driver_without_counts_shows_its_outcome() -> None:
    (driver,) = driver_table(evidence(row("direct", "drivers.x", WORKS, area="drivers", facts={"errors": "nine"})))
    assert driver.cells["direct"].text == "works"


def test_a_known_defect_is_a_known_issue(tmp_path: Path) -> None:
    report = build_report(MIXED, tmp_path)
    issues = {issue.check: issue for issue in report.issues}
    assert issues["pooling.c"].link == "https://example.org/1"
    assert issues["pooling.b"].link == ""
    assert issues["pooling.b"].severity is Severity.P0  # of the result, not of the plan
    assert report.counts["transaction"].known == 1


def test_every_cell_links_to_its_row(tmp_path: Path) -> None:
    render(build_report(MIXED, tmp_path), tmp_path)
    page, matrix = (tmp_path / "report.html").read_text(), (tmp_path / "matrix.md").read_text()
    for group in feature_map(MIXED):
        for feature in group.rows:
            for name, cell in feature.cells.items():
                assert f'<th scope="col" data-name="{name}"' in page
                assert f'<tr data-check="{feature.check}">' in page
                assert name in evidence_of(page).rows[feature.check]
                assert f'<a id="{cell.anchor}"></a>' in matrix
    assert "[leaks](matrix.md#transaction.pooling.a)" in (tmp_path / "feature-map.md").read_text()


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    bad = row('"><script>x</script>', "pooling.a", LEAKS)
    bad = replace(bad, planned=replace(bad.planned, feature="<img src=x> | [a](javascript:b)"))
    render(build_report(evidence(bad), tmp_path), tmp_path)
    for path in tmp_path.glob("*.*"):
        if path.suffix in {".md", ".html"}:
            text = re.sub("`[^`]*`", "", path.read_text())  # a code span is inert
            assert "<script>x" not in text
            assert "<img" not in text
            assert path.suffix == ".html" or not re.search(r"(?<!\\)\]\(javascript", text)
