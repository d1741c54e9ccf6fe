"""Documented limits: whom each concerns, and how the page shows it. What misleads a trail never looks like what works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.model import Behaviour, Expectation, Limit, Section, Status
from harness.report.building import build_report
from harness.report.evidence import Evidence, Row
from harness.report.feature_differences import differences
from harness.report.feature_map import feature_map
from harness.report.limits import MUST_NOT, SECURITY_CHECK, LimitKind, limit_kind
from harness.report.outcomes import WORDS
from harness.report.page import heat_map, style
from harness.report.verdicts import verdicts
from harness.suites.pooling.advice import practices
from tests.tables import each_row
from tests.unit.made_up import planned, result

if TYPE_CHECKING:
    from pathlib import Path

PRACTICE = "actor.careless-session-set"
OUTCOME = "an actor set for the session is on the next write of any other client"


def limited(check: str, *, topology: str = "transaction", observed: str = "ada", status: Status = Status.OK) -> Row:
    held = status is not Status.ISSUE
    found = replace(
        result(topology, check, status, "" if held else "a reason"),
        limit=Limit(outcome=OUTCOME, source="https://example.org/") if held else None,
        expectations=(Expectation(name="attributed to", expected=observed, observed=observed, held=held),),
    )
    section = Section.POOLING if check == SECURITY_CHECK else Section.ACTOR
    plan = replace(planned(topology, check), section=section, area="application code")
    return Row(planned=plan, result=found, run_id="r")


def evidence(*rows: Row) -> Evidence:
    return Evidence(rows=rows, topologies={}, records={}, folders={})


@pytest.mark.parametrize(
    ("check", "kind", "tone", "text"),
    [
        (PRACTICE, LimitKind.PRACTICE, "mustnot", "must not"),
        (SECURITY_CHECK, LimitKind.SECURITY, "security", "fixes missing"),
        ("capture.occurred-at", LimitKind.TRAIL, "limit", "OK, limit"),
    ],
)
def test_each_kind_has_its_own_look(check: str, kind: LimitKind, tone: str, text: str, tmp_path: Path) -> None:
    row = limited(check)
    assert limit_kind(*row.answer) is kind
    [band] = heat_map([row])
    [[cell]] = band.lines.values()
    assert cell is not None
    assert (cell.tone, cell.text) == (tone, text)
    report = build_report(evidence(row), tmp_path)
    assert [limit.kind for limit in report.limits] == [kind]
    assert report.matrix[0].cells["transaction"].mark == kind.word


def test_an_ok_row_without_a_limit_and_an_issue_have_no_kind() -> None:
    plain = limited(PRACTICE)
    assert limit_kind(plain.planned, replace(plain.result, limit=None)) is None
    assert limit_kind(*limited(PRACTICE, status=Status.ISSUE).answer) is None


def test_a_practice_is_in_the_feature_map_with_what_to_do_instead() -> None:
    rows = (limited(PRACTICE), limited("actor.careless-startup-option", observed="'refused'"))
    [group] = feature_map(evidence(*rows))
    assert group.is_practices
    silent, refused = group.rows
    assert silent.instead == practices()[PRACTICE].instead
    assert (silent.cells["transaction"].word, silent.cells["transaction"].text) == (MUST_NOT, "must not")
    assert (refused.cells["transaction"].word, refused.cells["transaction"].text) == ("fails", "must not: refused")


@pytest.mark.parametrize("observed", ["ada", "'refused'"])
def test_a_practice_has_one_colour(observed: str) -> None:
    row = limited(PRACTICE, observed=observed)
    [group], [band] = feature_map(evidence(row)), heat_map([row])
    [[cell]] = band.lines.values()
    assert cell is not None
    shown = group.rows[0].cells["transaction"]
    assert (cell.tone, cell.text) == (shown.word, shown.text)


@each_row(
    "tone",
    [
        *(word.behaviour.value for word in WORDS if word.behaviour is not Behaviour.WORKS),
        *("limit", MUST_NOT, "security", "issue", "known", "notrun", "na"),
    ],
)
def test_the_timeline_shows_each_tone_but_those_of_what_works(tone: str) -> None:
    assert f".lanes a.{tone} rect" in style()


def test_an_issue_of_a_practice_is_shown_as_an_issue() -> None:
    rows = (limited(PRACTICE, topology="session"), limited(PRACTICE, status=Status.ISSUE))
    [group] = feature_map(evidence(*rows))
    assert group.rows[0].cells["transaction"].text == Status.ISSUE
    assert feature_map(evidence(rows[1])) == (), "no group without a practice that was shown"


def test_a_practice_that_differs_counts_as_silent() -> None:
    startup = "actor.careless-startup-option"
    rows = (limited(startup, topology="direct"), limited(startup, observed="'refused'"))
    [difference] = differences(feature_map(evidence(*rows)))
    assert difference.silent


def test_a_verdict_counts_practices_apart_from_limits_of_the_trail() -> None:
    rows = (limited(PRACTICE), limited("capture.occurred-at"), limited("redaction.earlier-rows"))
    [found] = verdicts(evidence(*rows), ["transaction"])
    assert (found.practices, found.trail_limits) == (1, 2)
    assert found.sentences[0] == (
        "the audit trail holds in all 3 checks (1 of them shows what an application must not do, "
        "2 a documented limit of the trail)"
    )
