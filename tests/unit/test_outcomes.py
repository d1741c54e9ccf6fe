"""What happens to a feature is printed in its own word everywhere: a feature that is lost has no OK next to it."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.execution import accept_known
from harness.cli import recap
from harness.cli.terminal import Terminal
from harness.events import CheckFinished
from harness.model import (
    Behaviour,
    FeatureOutcome,
    KnownIssue,
    Limit,
    Outcome,
    PlannedCheck,
    Result,
    Section,
    Severity,
    Status,
)
from harness.report.building import build_report
from harness.report.evidence import Evidence, Row
from harness.report.outcomes import WORDS, Count, OutcomeCount, count, describe, is_shown, mark_of, text_of
from harness.report.render import render
from harness.store import StoredRun
from tests.tables import each_row
from tests.unit.made_up import record
from tests.unit.test_report import table

if TYPE_CHECKING:
    from pathlib import Path

WORKS = Outcome(behaviour=Behaviour.WORKS)
LOST = Outcome(behaviour=Behaviour.LOST)
WRONG = Outcome(behaviour=Behaviour.WRONG)
FAILS = Outcome(behaviour=Behaviour.FAILS, sqlstate="26000", closed=True)
SOURCE = "https://www.pgbouncer.org/features.html"
CLAIM = "a client that listens gets the notifications"


def planned(check: str, target: str = "transaction", *, feature: bool = True, area: str = "locks") -> PlannedCheck:
    return PlannedCheck(
        target=target,
        check=check,
        claim=CLAIM,
        section=Section.POOLING,
        severity=Severity.P0,
        area=area,
        reproduce=f"nox -s topology-{target} -- --check {check}",
        feature=f"LISTEN ({check})" if feature else "",
    )


def row(
    check: str,
    observed: Outcome | None = None,
    expected: Outcome = WORKS,
    *,
    status: Status | None = None,
    defect: bool = False,
    target: str = "transaction",
    area: str = "locks",
    limit: str = "",
    known: KnownIssue | None = None,
) -> Row:
    """Return a row whose status follows from its outcome, as a check judges it."""
    feature = (
        FeatureOutcome(observed=observed, expected=(expected,), source=SOURCE, defect=defect) if observed else None
    )
    result = Result(
        target=target,
        check=check,
        status=status or (Status.OK if observed is None or observed == expected else Status.ISSUE),
        reason=f"outcome: expected {expected}, observed {observed}" if observed not in {None, expected} else "",
        feature=feature,
        limit=Limit(outcome=limit, source=SOURCE) if limit else None,
        reproduce=f"nox -s topology-{target} -- --check {check}",
    )
    return Row(
        planned=planned(check, target, feature=observed is not None or status is not None, area=area),
        result=accept_known(result, (known,) if known else ()),
        run_id="",
    )


ACCEPTED = KnownIssue(check="pooling.accepted", link="https://example.org/7", owner="ada", expires="2099-01-01")
ROWS = (
    row("pooling.set", WORKS),
    row("pooling.listen", LOST, LOST, limit="LISTEN: lost"),
    row("pooling.prepare", FAILS, FAILS, limit="PREPARE: fails"),
    row("pooling.unnamed", WRONG, defect=True),
    row("pooling.lock", LOST),
    row("pooling.accepted", LOST, known=ACCEPTED),
    row("pooling.lacking", status=Status.NA),
    row("pooling.unforced", status=Status.NOT_RUN),
    row("actor.careless", limit="the actor is missing"),
    row("drivers.one", FAILS, FAILS, area="drivers", limit="a driver fails"),
)


def evidence(*rows: Row) -> Evidence:
    return Evidence(rows=rows, topologies={}, records={}, folders={})


@pytest.fixture
def written(tmp_path: Path) -> dict[str, str]:
    report = build_report(evidence(*ROWS, row("pooling.set", WORKS, target="peered")), tmp_path)
    return {path.name: path.read_text() for path in render(report, tmp_path)}


# --- the count -------------------------------------------------------------------------------------------


def test_the_outcomes_of_a_topology_are_counted() -> None:
    assert count(found.answer for found in ROWS) == Count(
        ok=5,
        limits=4,
        issue=3,
        known=2,
        na=1,
        not_run=1,
        features=OutcomeCount(works=1, fails=1, lost=3, wrong=1, known_defects=1, undocumented=2, unobserved=2),
        drivers=OutcomeCount(fails=1),
    )


@pytest.mark.parametrize(
    ("counted", "text"),
    [
        (OutcomeCount(), "works=0"),
        (OutcomeCount(works=71, fails=5, lost=1), "works=71 fails=5 lost=1"),
        (
            OutcomeCount(works=32, fails=23, leaks=16, lost=9, wrong=3, known_defects=3),
            "works=32 fails=23 leaks=16 lost=9 wrong=3 (3 known defects)",
        ),
        (OutcomeCount(works=2, better=1), "works=2 (1 better than documented)"),
        (OutcomeCount(hangs=2, known_defects=1, undocumented=1), "works=0 hangs=2 (1 undocumented, 1 known defect)"),
    ],
)
def test_a_count_is_one_line(counted: OutcomeCount, text: str) -> None:
    assert str(counted) == text


outcomes = st.builds(Outcome, behaviour=st.sampled_from(Behaviour))
any_row = st.builds(
    lambda observed, expected, status, defect, scope: (
        replace(planned("pooling.x"), out_of_scope=scope),
        row("pooling.x", observed, expected, status=status, defect=defect).result,
    ),
    outcomes,
    outcomes,
    st.sampled_from(Status),
    st.booleans(),
    st.sampled_from(("", "not safe in a shared environment")),
)


@given(st.lists(any_row))
def test_every_row_and_every_feature_is_counted_once(rows: list[tuple[PlannedCheck, Result]]) -> None:
    counted = count(rows)
    assert counted.ok + counted.issue + counted.na + counted.not_run + counted.out_of_scope == len(rows)
    assert counted.features.observed + counted.features.unobserved == len(rows)
    assert counted.features.observed == counted.ok + counted.issue
    assert counted.features.known_defects + counted.features.undocumented == counted.issue


def test_every_behaviour_has_a_word() -> None:
    assert {word.behaviour for word in WORDS} == set(Behaviour)


@each_row(
    ("found", "mark"),
    list(zip(ROWS, ("", "documented", "documented", "known defect", "Issue", "known Issue", "", ""), strict=False)),
)
def test_an_outcome_is_marked_as_documented_or_as_what_it_is(found: Row, mark: str) -> None:
    assert mark_of(found.result) == mark


def test_the_recap_counts_what_happens_to_features(capsys: pytest.CaptureFixture[str]) -> None:
    stored = StoredRun(
        folder=None,  # type: ignore[arg-type]
        record=replace(record(), plan=tuple(found.planned for found in ROWS)),
        results=tuple(found.result for found in ROWS),
        proofs=(),
        trail_proofs=(),
        torn=0,
    )
    recap.print_recap(stored)
    of_run = capsys.readouterr().out
    assert of_run.splitlines() == [
        "transaction  checks:   ok=5 (4 documented limits) issue=3 (2 known) na=1 not_run=1  elapsed=0.0s",
        "transaction  features: works=1 fails=1 lost=3 wrong=1 (2 undocumented, 1 known defect)",
        "transaction  drivers:  works=0 fails=1",
    ]
    recap.print_evidence_recap(evidence(*ROWS))
    assert capsys.readouterr().out == of_run


def test_progress_has_the_word_of_a_feature_in_place_of_ok() -> None:
    stream = StringIO()
    terminal = Terminal(str, stream, verbose=True)
    for found in ROWS:
        terminal(CheckFinished(found.result))
    assert [line.removeprefix("transaction  ") for line in stream.getvalue().splitlines()] == [
        "works    pooling.set  0.00s",
        "lost     pooling.listen  0.00s  lost, documented",
        "fails    pooling.prepare  0.00s  fails (26000, closed), documented",
        "Issue (known) pooling.unnamed  0.00s  outcome: expected works, observed wrong",
        "Issue    pooling.lock  0.00s  outcome: expected works, observed lost",
        "Issue (known) pooling.accepted  0.00s  outcome: expected works, observed lost",
        "N/A      pooling.lacking  0.00s",
        "Not run  pooling.unforced  0.00s",
        "OK       actor.careless  0.00s  documented limit: the actor is missing",
        "fails    drivers.one  0.00s  fails (26000, closed), documented",
    ]


# --- the documents ---------------------------------------------------------------------------------------


def test_the_matrix_has_the_word_of_a_feature_in_place_of_ok(written: dict[str, str]) -> None:
    cells = {found["Check"]: found["transaction"] for found in table(written["matrix.md"], "Check")}
    assert cells == {
        "pooling.set": "works, not proven yet",
        "pooling.listen": "lost, documented, not proven yet",
        "pooling.prepare": "fails (26000, closed), documented, not proven yet",
        "pooling.unnamed": "wrong, known defect, not proven yet",
        "pooling.lock": "lost, Issue, not proven yet",
        "pooling.accepted": "lost, known Issue, not proven yet",
        "pooling.lacking": "N/A",
        "pooling.unforced": "Not run, not proven yet",
        "actor.careless": "OK (limit), not proven yet",
        "drivers.one": "fails (26000, closed), documented, not proven yet",
    }


def test_no_line_with_a_claim_has_ok_for_a_feature_that_does_not_work(written: dict[str, str]) -> None:
    broken = [found.planned.check for found in ROWS if text_of(found.result) not in {"", "works"}]
    assert len(broken) == 6
    for name in ("matrix.md", "report.md", "report.html", "feature-map.md", "issues.md"):
        for line in written[name].splitlines():
            if CLAIM in line and any(check in line for check in broken):
                assert "OK" not in line


def test_the_summary_counts_the_outcomes_of_each_topology(written: dict[str, str]) -> None:
    first, *_ = (found for found in (table(written["report.md"].split("fails | hangs")[0] + "", "Topology"),))
    assert first[0]["of which documented limits"] == "4"
    lines = [
        line for line in written["report.md"].splitlines() if line.startswith(("| transaction | features", "| peered"))
    ]
    assert "| transaction | features | 1 | 1 | 0 | 0 | 3 | 1 | 1 | 2 | 0 | 2 |" in lines
    assert "| peered | features | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in lines
    for word in WORDS:
        assert f"*{word.behaviour}*: {word.meaning}." in written["report.md"]
        assert f'<span class="s t-{word.behaviour}">{word.behaviour}</span>: {word.meaning}.' in written["report.html"]
        assert f".t-{word.behaviour}" in written["report.html"].partition("</style>")[0]


def test_the_evidence_of_a_row_has_its_outcome_and_its_limit(written: dict[str, str]) -> None:
    rows = {
        found["Check"].rpartition(">")[2]: found
        for found in table(written["matrix.md"].split("### transaction\n")[1], "Check")
    }
    assert (rows["pooling.listen"]["Status"], rows["pooling.listen"]["What happens"]) == ("OK", "lost, documented")
    assert rows["actor.careless"]["What happens"] == "limit: the actor is missing"
    assert rows["pooling.lacking"]["What happens"] == ""


def test_an_issue_says_what_was_expected_and_observed_and_does_not_negate_the_claim(written: dict[str, str]) -> None:
    symptoms = {found["ID"]: found["Symptom"] for found in table(written["issues.md"], "P")}
    assert symptoms == {
        "PL.pooling.unnamed.transaction": "LISTEN (pooling.unnamed): expected works, observed wrong (a known defect)",
        "PL.pooling.lock.transaction": "LISTEN (pooling.lock): expected works, observed lost",
        "PL.pooling.accepted.transaction": "LISTEN (pooling.accepted): expected works, observed lost",
    }


def test_junit_has_the_outcome_in_properties_and_output(written: dict[str, str]) -> None:
    root = ET.fromstring(written["junit.xml"])  # noqa: S314 -- written a moment ago
    (suite,) = (suite for suite in root if suite.get("name") == "transaction")
    counted = {found.get("name"): found.get("value") for found in suite.findall("./properties/property")}
    assert (counted["features.lost"], counted["features.known-defects"], counted["drivers.fails"]) == ("3", "1", "1")
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    listen = cases["pooling.listen"]
    assert {found.get("name"): found.get("value") for found in listen.iter("property")} == {
        "topology": "transaction",
        "status": "OK",
        "feature": "LISTEN (pooling.listen)",
        "outcome": "lost",
        "mark": "documented",
        "source": SOURCE,
    }
    assert listen.findtext("system-out") == f"LISTEN (pooling.listen): lost in transaction, as documented ({SOURCE})"
    assert [child.tag for child in listen] == ["properties", "system-out"]  # passed
    assert [child.tag for child in cases["pooling.lock"]] == ["properties", "failure", "system-out"]
    assert cases["actor.careless"].findtext("system-out") == f"documented limit: the actor is missing ({SOURCE})"


def test_the_json_report_counts_outcomes(written: dict[str, str]) -> None:
    report = json.loads(written["report.json"])
    assert report["counts"]["transaction"]["features"]["lost"] == 3
    listen = report["rows"]["transaction"]["pooling.listen"]
    assert (listen["status"], listen["feature"]["observed"], listen["feature"]["mark"]) == ("OK", "lost", "documented")


def test_a_sentence_names_feature_topology_and_source() -> None:
    assert [describe(*found.answer) for found in ROWS[:6]] == [
        "LISTEN (pooling.set): works in transaction",
        f"LISTEN (pooling.listen): lost in transaction, as documented ({SOURCE})",
        f"LISTEN (pooling.prepare): fails (26000, closed) in transaction, as documented ({SOURCE})",
        f"LISTEN (pooling.unnamed): wrong in transaction, expected works: a known defect ({SOURCE})",
        "LISTEN (pooling.lock): lost in transaction, expected works: not documented",
        "LISTEN (pooling.accepted): lost in transaction, expected works: an accepted Issue",
    ]
    assert {describe(*found.answer) for found in ROWS[6:9]} == {""}


def test_a_feature_that_works_where_a_limit_is_documented_is_better_than_documented() -> None:
    found = row("pooling.x", WORKS, LOST, status=Status.OK)
    assert found.result.feature
    better = replace(found.result, feature=replace(found.result.feature, better=True))
    assert mark_of(better) == "better than documented"
    assert describe(found.planned, better) == (
        f"LISTEN (pooling.x): works in transaction, better than documented: lost ({SOURCE})"
    )
    assert count([(found.planned, better)]).features == OutcomeCount(works=1, better=1)


def test_a_feature_that_did_not_work_in_an_older_version_is_better_than_there() -> None:
    found = row("pooling.x", WORKS, WORKS, status=Status.OK)
    assert found.result.feature
    better = replace(found.result, feature=replace(found.result.feature, better_than=f"1.25.1: lost ({SOURCE})"))
    assert mark_of(better) == "better than in 1.25.1"
    assert describe(found.planned, better) == (
        f"LISTEN (pooling.x): works in transaction, better than in 1.25.1: lost ({SOURCE})"
    )
    assert count([(found.planned, better)]).features == OutcomeCount(works=1)


# --- what nobody owes ------------------------------------------------------------------------------------


def test_what_nobody_owes_is_a_dash_and_not_a_gap(tmp_path: Path, written: dict[str, str]) -> None:
    cells = {found["Check"]: found["peered"] for found in table(written["matrix.md"], "Check")}
    assert cells.pop("pooling.set") == "works, not proven yet"
    assert set(cells.values()) == {"—"}
    unsafe = row("pooling.x", status=Status.NOT_RUN, target="staging")
    unsafe = replace(unsafe, planned=replace(unsafe.planned, out_of_scope="not safe in a shared environment"))
    assert not is_shown(*unsafe.answer)
    report = build_report(evidence(row("pooling.y", WORKS, target="staging"), unsafe), tmp_path)
    assert report.status is Status.OK
    assert (report.counts["staging"].not_run, report.counts["staging"].out_of_scope) == (0, 1)
    texts = {path.name: path.read_text() for path in render(report, tmp_path)}
    assert "1 more rows are out of scope" in texts["matrix.md"]
    assert "Not run" not in texts["matrix.md"].partition("Checks by topology\n\nA check")[2].partition("## Breaks")[0]
    assert 'name="pooling.x"' not in texts["junit.xml"]
    assert 'tests="1"' in texts["junit.xml"]
