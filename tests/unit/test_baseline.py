"""The baseline of an audit trail: what is new, gone or as before, and what fails a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.cli.baseline import failing
from harness.errors import ConfigError
from harness.model import Behaviour, Expectation, Status
from harness.report.badge import badge_of
from harness.report.baseline import Standing, baseline_of, compare_with, encoded_baseline, read_baseline
from harness.report.building import build_report
from harness.report.evidence import NOBODY_RAN_IT
from harness.report.render import render
from tests.tables import each_row
from tests.unit.made_up import CHECKS, NAMES, record, result
from tests.unit.test_changes import ACCEPTED, NEW, evidence, feature, issue

if TYPE_CHECKING:
    from pathlib import Path

    from harness.model import Result
    from harness.report.baseline import BaselineComparison

OK, NA, NOT_RUN = (result("transaction", CHECKS[0], status) for status in (Status.OK, Status.NA, Status.NOT_RUN))


def compared(before: Result, after: Result) -> BaselineComparison:
    return compare_with(baseline_of(evidence([before]), "mine"), evidence([after], record(NEW)), "a run")


@each_row(
    ("before", "after", "standing", "fails"),
    [
        (OK, issue(), Standing.NEW, True),
        (NA, issue(), Standing.NEW, True),
        # what was not verified then is no excuse
        (NOT_RUN, issue(), Standing.NEW, True),
        (issue(), issue(), Standing.SAME, False),
        (issue(broken="rows"), issue(broken="actors"), Standing.CHANGED, True),
        (issue(), OK, Standing.GONE, False),
        (issue(), NA, Standing.GONE, False),
        # a row that is Not run is neither gone nor new
        (issue(), NOT_RUN, None, False),
        (OK, OK, None, False),
        (OK, replace(issue(), known=ACCEPTED), None, False),
    ],
)
def test_a_row_compared_with_the_baseline(
    before: Result, after: Result, standing: Standing | None, *, fails: bool
) -> None:
    found = compared(before, after)
    assert [change.standing for change in found.changes] == ([standing] if standing else [])
    answers = [row.answer for row in evidence([after]).rows]
    assert failing(found, answers) == frozenset({("transaction", CHECKS[0])} if fails else ())


def test_an_issue_with_fewer_broken_expectations_is_as_in_the_baseline() -> None:
    both = tuple(Expectation(name=name, expected="1", observed="0", held=False) for name in ("rows", "actors"))
    found = compared(replace(issue(), expectations=both), issue(broken="rows"))
    assert [change.standing for change in found.changes] == [Standing.SAME]


def test_an_issue_of_another_kind_of_check_is_never_excused() -> None:
    broken = feature(Behaviour.FAILS, status=Status.ISSUE)
    found = compared(broken, broken)
    assert not found.changes
    assert failing(found, [row.answer for row in evidence([broken]).rows]) == frozenset(
        {("transaction", "pooling.listen")}
    )


def test_topologies_with_the_same_change_are_one_row() -> None:
    before = [result(name, CHECKS[0]) for name in NAMES]
    after = [issue(name) for name in NAMES]
    [change] = compare_with(baseline_of(evidence(before), "mine"), evidence(after, record(NEW)), "a run").changes
    assert change.topologies == NAMES


@given(st.lists(st.sampled_from([OK, NA, NOT_RUN, issue(), issue(broken="actors")]), min_size=1, max_size=1))
def test_a_baseline_read_from_its_file_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, found: list[Result]
) -> None:
    path = tmp_path_factory.mktemp("baseline") / "mine.baseline.json"
    written = baseline_of(evidence(found), "mine")
    path.write_text(encoded_baseline(written), encoding="utf-8")
    assert read_baseline(path, "mine") == written
    # nothing is new compared with itself
    assert {change.standing for change in compare_with(written, evidence(found), "a file").changes} <= {Standing.SAME}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a baseline"),
        ("[" * 100_000, "not a baseline"),
        ('{"schema_version": 2}', "not a baseline"),
        (encoded_baseline(baseline_of(evidence([OK]), "theirs")), "is about the audit target 'theirs'"),
    ],
)
def test_a_file_that_is_no_baseline_of_the_target(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.baseline.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_baseline(path, "mine")


def test_a_missing_baseline_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_baseline(tmp_path / "mine.baseline.json", "mine")


def test_a_pipe_is_no_baseline(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.baseline.json")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_baseline(tmp_path / "mine.baseline.json", "mine")


def test_each_check_of_the_file_has_a_line() -> None:
    text = encoded_baseline(baseline_of(evidence([OK, issue("direct")]), "mine"))
    assert sum('"status"' in line for line in text.splitlines()) == 2
    assert msgspec.json.decode(text)["rows"]["direct"][CHECKS[0]] == {"status": "Issue", "broken": ["rows"]}


def test_the_report_says_what_changed_since_the_baseline(tmp_path: Path) -> None:
    report = replace(build_report(evidence([issue()]), tmp_path), baseline=compared(OK, issue()))
    render(report, tmp_path)
    for name in ("report.md", "report.html", "issues.md"):
        assert "Since the last release" in (tmp_path / name).read_text(encoding="utf-8")
    render(replace(report, baseline=None), tmp_path)
    assert "Since the last release" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("found", "badge"),
    [
        ([OK], "audit trail: 1 check OK, 0 limits, 0 issues on transaction · 2026-01-01"),
        ([OK, issue("direct")], "audit trail: 0 checks OK, 0 limits, 1 issue on transaction, direct · 2026-01-01"),
        (
            [OK, result("direct", CHECKS[1], Status.NOT_RUN)],
            "audit trail: 1 check OK, 0 limits, 0 issues, 1 not run on transaction, direct · 2026-01-01",
        ),
        (
            [replace(issue(), known=ACCEPTED)],
            "audit trail: 0 checks OK, 0 limits, 1 issue (1 known) on transaction · 2026-01-01",
        ),
        (
            [replace(issue(), known=ACCEPTED), issue("direct")],
            "audit trail: 0 checks OK, 0 limits, 1 issue on transaction, direct · 2026-01-01",
        ),
        ([NOT_RUN], "audit trail: not verified"),
        ([feature(Behaviour.WORKS)], "audit trail: not verified"),
    ],
)
def test_the_badge_counts_a_check_once_with_its_worst_status(found: list[Result], badge: str) -> None:
    dated = [replace(row, started_at="2026-01-01T00:00:00.000Z") for row in found]
    assert badge_of(evidence(dated)) == badge


def test_the_badge_says_in_which_topology_only_some_checks_ran() -> None:
    others = [result("transaction", CHECKS[1]), result("direct", CHECKS[0]), result("direct", CHECKS[1], Status.NOT_RUN)]
    found = evidence([OK, *others])
    *asked, last = found.rows
    nobody = replace(last, run_id="", result=replace(last.result, reason=NOBODY_RAN_IT))
    assert " on transaction, direct (1 of 2) · " in badge_of(replace(found, rows=(*asked, nobody)))


def test_the_baseline_and_the_badge_have_the_day_of_their_rows() -> None:
    old = replace(OK, started_at="2026-01-01T00:00:00.000Z")
    other = replace(feature(Behaviour.WORKS), started_at="2026-02-02T00:00:00.000Z")
    assert baseline_of(evidence([old, other]), "mine").date == "2026-01-01"
    assert badge_of(evidence([old, other])).endswith("2026-01-01")
