"""The table of job engines: which words a cell has, when it says that an engine works, and what the findings say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.job_engines.target_file import Case
from harness.model import Expectation, KnownIssue, Quarantine, Repetition, Section, Severity, Status
from harness.report.building import build_report
from harness.report.ctrf_report import ctrf
from harness.report.evidence import NOBODY_RAN_IT, Evidence, Row
from harness.report.job_engine_cells import TONES, JobEngineCell, job_engine_cell
from harness.report.job_engine_rows import engines_in_words, job_engines
from harness.report.job_findings import job_findings
from harness.report.junit_report import junit
from harness.report.limits import LimitKind, limit_kind
from harness.report.page import heat_map
from harness.report.render import fragments, render
from harness.report.sections import sections
from harness.report.verdicts import verdicts
from tests.tables import each_row
from tests.unit.job_engines import DOCUMENTED, ENGINES, TOPOLOGIES, job_row, job_rows_of_many
from tests.unit.made_up import record

if TYPE_CHECKING:
    from pathlib import Path

    from harness.report.tables import Report

KNOWN = KnownIssue(check="jobs.x", link="https://example.org/1", owner="ada", expires="2099-01-01")
APART = Quarantine(check="jobs.x", link="https://example.org/2", owner="ada", expires="2099-01-01")
FLAKY = Repetition(ok=2, issue=1)
WORKS, NOT_RUN = job_row(), job_row(Case.IDLE, Status.NOT_RUN, reason="the machine was too slow")


def report_of(*rows: Row, folder: Path) -> Report:
    evidence = Evidence(rows=rows, topologies={}, records={}, folders={}, shown=(record(),))
    return build_report(evidence, folder)


def words(*rows: Row) -> list[str]:
    """Return the words of the cell of some rows, each with its mark."""
    return [f"{word.text} ({word.mark})" if word.mark else word.text for word in job_engine_cell(rows).words]


def changed(row: Row, **fields: object) -> Row:
    return replace(row, result=replace(row.result, **fields))


@each_row(
    ("rows", "expected", "works"),
    [
        ([WORKS], ["works"], True),
        ([WORKS, job_row(Case.FAULTS, outcome="twice 3")], ["works", "twice 3"], True),
        # N/A: the engine does not claim it
        ([WORKS, job_row(Case.FORK, Status.NA)], ["works"], True),
        ([WORKS, NOT_RUN], ["works"], False),
        # no word says that an engine works if the case `works` was not exercised
        ([job_row(Case.IDLE), job_row(Case.FAULTS)], ["2 cases OK"], False),
        ([job_row(status=Status.NOT_RUN), job_row(Case.IDLE)], ["1 case OK"], False),
        ([job_row(status=Status.NA), job_row(Case.IDLE)], ["1 case OK"], False),
        ([job_row(Case.FAULTS, outcome="twice 3")], ["twice 3", "1 case OK"], False),
        ([WORKS, job_row(Case.IDLE, Status.ISSUE, "idle 27 s")], ["idle 27 s (Issue)"], False),
        # an Issue is never shown as its outcome `works`
        ([WORKS, job_row(Case.IDLE, Status.ISSUE, "works")], ["idle (Issue)"], False),
        ([job_row(status=Status.ISSUE)], ["works (Issue)"], False),
        ([WORKS, job_row(Case.IDLE, outcome="idle 27 s", limit="it polls")], ["idle 27 s (documented limit)"], False),
        ([job_row(limit="it polls")], ["works (documented limit)"], False),
        (
            [WORKS, changed(job_row(Case.FAULTS, Status.ISSUE, "lost 2"), known=KNOWN)],
            ["lost 2 (known Issue)"],
            False,
        ),
        (
            [WORKS, changed(job_row(Case.FAULTS, Status.ISSUE, "lost 2"), quarantine=APART)],
            ["lost 2 (Issue in quarantine)"],
            False,
        ),
        (
            [WORKS, changed(job_row(Case.FAULTS, Status.ISSUE, "lost 2"), quarantine=APART, repetition=FLAKY)],
            ["lost 2 (Issue in quarantine, flaky)"],
            False,
        ),
        ([changed(WORKS, quarantine=APART)], ["works: OK (in quarantine)"], False),
        ([changed(WORKS, quarantine=APART, repetition=FLAKY)], ["works: OK (in quarantine, flaky)"], False),
        ([changed(WORKS, repetition=FLAKY)], ["works: OK (flaky)"], False),
        (
            [
                changed(
                    WORKS, expectations=(Expectation(name="a", expected="1", observed="1", held=True, counts=False),)
                )
            ],
            ["works: not judged to its end"],
            False,
        ),
    ],
)
def test_the_words_of_a_cell(rows: list[Row], expected: list[str], works: bool) -> None:
    assert words(*rows) == expected
    assert job_engine_cell(rows).works is works


def test_the_worst_word_comes_first_and_a_cell_has_three() -> None:
    cell = job_engine_cell(
        [
            job_row(Case.IDLE, outcome="idle 9 s", limit="it polls"),
            job_row(Case.CRON, Status.ISSUE, "ran 2 of 3"),
            job_row(Case.RETRIES, Status.ISSUE, "stuck 1"),
            job_row(Case.FAULTS, Status.ISSUE, "exits 2 (57P01), lost 2"),
            changed(job_row(Case.CANCEL, Status.ISSUE, "ran after all"), severity=Severity.P0),
            job_row(Case.CLAIMS, outcome="twice 3"),
        ]
    )
    assert [word.text for word in cell.words] == ["ran after all", "exits 2 (57P01), lost 2", "stuck 1"]
    assert (cell.status, cell.more) == (Status.ISSUE, 3)


def test_cases_that_say_the_same_share_a_word_and_its_link_leads_to_the_first() -> None:
    cases = (Case.WORKS, Case.IDLE, Case.FAULTS)
    [word] = job_engine_cell([job_row(case, Status.ISSUE, "crash loop (42P05)") for case in cases]).words
    assert (word.cases, word.check) == (tuple(case.value for case in cases), "jobs.pg-boss-default-works")


@pytest.mark.parametrize("status", [Status.NOT_RUN, Status.NA])
def test_a_cell_without_any_answer_says_why(status: Status) -> None:
    rows = [job_row(case, status, reason="Node is missing") for case in (Case.WORKS, Case.IDLE)]
    rows.append(job_row(Case.CRON, status, reason="another reason"))
    cell = job_engine_cell(rows)
    assert (cell.status, cell.words, cell.note) == (status, (), "Node is missing; 1 more in the evidence")
    assert not cell.works


def test_cases_that_are_not_run_are_named_next_to_the_words() -> None:
    cell = job_engine_cell([WORKS, NOT_RUN])
    assert (cell.status, cell.not_run, cell.words[0].tone) == (Status.NOT_RUN, ("idle",), "notrun")


@given(
    st.lists(
        st.builds(
            job_row,
            st.sampled_from(Case),
            st.sampled_from(Status),
            st.sampled_from(("", "works", "twice 3", "lost 2", "stuck 4 h")),
            limit=st.sampled_from(("", "it polls")),
        ),
        min_size=1,
        unique_by=lambda row: row.planned.check,
    )
)
def test_no_cell_is_greener_than_its_rows(rows: list[Row]) -> None:
    cell = job_engine_cell(rows)
    statuses = {row.status for row in rows}
    limited = any(row.result.limit and row.status is Status.OK for row in rows)
    tried = any(row.status is Status.OK and row.planned.check.endswith("-works") for row in rows)
    assert cell.works is (statuses <= {Status.OK, Status.NA} and tried and not limited)
    does = [row.status is Status.OK and not row.result.limit for row in rows if row.planned.check.endswith("-works")]
    assert cell.does_jobs is any(does)
    assert ("works" in {word.tone for word in cell.words}) is cell.works
    assert (cell.status is Status.ISSUE) is (Status.ISSUE in statuses)
    assert cell.words or cell.note or not any(row.result.reason for row in rows)


# --- the table -------------------------------------------------------------------------------------------


def test_a_row_is_an_engine_with_its_settings_and_a_column_a_topology(tmp_path: Path) -> None:
    found = report_of(*job_rows_of_many(), folder=tmp_path).job_engines
    assert found is not None
    assert set(found.topologies) == set(TOPOLOGIES)
    assert [(row.title, row.variant) for row in found.rows] == [
        (title, variant) for title in sorted(ENGINES, key=str.casefold) for variant in ("default", "recommended")
    ]
    assert (found.rows[0].settings, found.rows[0].versions) == ("poll 1 s, lease 10 s", found.rows[0].title)
    backwards = job_engines(reversed(list(job_rows_of_many())), found.topologies)
    assert backwards is not None
    assert (backwards.topologies, backwards.rows) == (found.topologies, found.rows)
    assert backwards.findings == found.findings


def test_rows_that_nobody_asked_for_and_rows_of_other_suites_are_no_part_of_it(tmp_path: Path) -> None:
    unasked = replace(changed(job_row(status=Status.NOT_RUN), reason=NOBODY_RAN_IT), run_id="")
    report = report_of(unasked, folder=tmp_path)
    assert report.job_engines is None
    assert "Not run: no check of a job engine was planned." in fragments(report)["job-engines"]
    assert not any("job engines" in verdict.text for verdict in report.verdicts)
    render(report, tmp_path)
    assert not (tmp_path / "job-engines.md").exists()


def test_variants_of_one_engine_are_neighbours_and_topologies_have_the_order_of_the_report() -> None:
    tried = [("a 1", "default", "b"), ("c 1", "default", "a"), ("a 1", "recommended", "a")]
    rows = [job_row(title=title, variant=variant, topology=name) for title, variant, name in tried]
    found = job_engines(rows, ["a", "unused", "b"])
    assert found is not None
    assert found.topologies == ("a", "b")
    assert [(row.engine, row.variant) for row in found.rows] == [
        ("a", "default"),
        ("a", "recommended"),
        ("c", "default"),
    ]


def test_findings_of_one_kind_share_a_line() -> None:
    said = "use a direct connection"
    slow = [
        job_row(Case.IDLE, Status.ISSUE, f"idle {seconds} s", topology=name, instead=said, reason=f"after {seconds} s")
        for name, seconds in (("transaction", 27), ("statement", 25))
    ]
    limited = job_row(Case.WORKS, outcome="cannot install (08P01)", limit="DDL is refused", topology="statement")
    twice, advised = job_row(Case.FAULTS, outcome="twice 3"), job_row(Case.CRON, outcome="2 windows late", instead="x")
    found = job_engines([limited, *slow, twice, advised])
    assert found is not None
    assert [(one.kind, one.topologies, one.observed, one.instead, one.sources) for one in found.findings] == [
        (
            "Issue",
            ("transaction", "statement"),
            "idle 27 s in transaction; idle 25 s in statement: in transaction: after 27 s",
            said,
            (DOCUMENTED,),
        ),
        ("documented limit", ("statement",), "cannot install (08P01): DDL is refused", "", (DOCUMENTED,)),
        ("as promised", ("transaction",), "2 windows late", "x", (DOCUMENTED,)),
    ]


def test_the_text_of_a_finding_is_that_of_the_row_that_it_links_to() -> None:
    """Two cases of one topology have the same outcome for different reasons: one is not shown as that of both."""
    reasons = {Case.WORKS: "42P05 at the start", Case.IDLE: "26000 after a while"}
    rows = [job_row(case, Status.ISSUE, "crash loop", reason=reason) for case, reason in reasons.items()]
    found = job_engines(rows)
    assert found is not None
    [finding] = found.findings
    assert finding.check == rows[0].planned.check
    assert finding.observed == "crash loop: in transaction, case works: 42P05 at the start"
    [finding] = job_findings([replace(row, result=replace(row.result, reason="42P05")) for row in rows])
    assert finding.observed == "crash loop: 42P05"


def absent(title: str = "Squidie 0.3.7", reason: str = "Elixir is missing") -> Row:
    """Return a row that nobody owes, because its job engine does not run on this machine."""
    row = job_row(title=title, status=Status.NOT_RUN, reason=reason)
    return replace(row, planned=replace(row.planned, out_of_scope=reason))


def test_an_engine_that_does_not_run_here_is_named_below_the_table(tmp_path: Path) -> None:
    said = "Squidie 0.3.7 did not run in transaction: Elixir is missing."
    for rows in ((WORKS, absent()), (absent(),)):
        report = report_of(*rows, folder=tmp_path)
        render(report, tmp_path)
        assert said in (tmp_path / "job-engines.md").read_text()
        page = (tmp_path / "report.html").read_text()
        assert said in re.sub("</?strong>", "", page)
        assert report.counts["transaction"].not_run == 0
    assert job_engines([WORKS]) is not None
    assert job_engines([]) is None


def test_a_report_about_job_engines_alone_begins_with_them(tmp_path: Path) -> None:
    alone, mixed = tmp_path / "alone", tmp_path / "mixed"
    other = replace(WORKS, planned=replace(WORKS.planned, check="pooling.x", section=Section.POOLING, job=None))
    for folder, rows in ((alone, (WORKS,)), (mixed, (WORKS, other))):
        folder.mkdir()
        render(report_of(*rows, folder=folder), folder)
    order = {
        folder.name: re.findall(r'<section id="([\w-]+)"', (folder / "report.html").read_text())
        for folder in (alone, mixed)
    }
    assert next(name for name in order["alone"] if name not in {"verdicts", "differences"}) == "job-engines"
    assert set(order["mixed"]) - set(order["alone"]) == {"checklist", "paths", "trials"}
    assert order["mixed"].index("checks") < order["mixed"].index("features") < order["mixed"].index("job-engines")
    for folder in (alone, mixed):  # the navigation has the order of the page
        links = re.findall(r'<li><a href="#([\w-]+)">', (folder / "report.html").read_text())
        assert links == [name for name in order[folder.name] if name in links]
    assert "## Job engines behind a pooler" in (alone / "report.md").read_text()
    assert "## Job engines behind a pooler" not in (mixed / "report.md").read_text()


def test_each_colour_of_a_word_is_in_the_legend_and_in_the_style(tmp_path: Path) -> None:
    [section] = [one for one in sections(report_of(WORKS, folder=tmp_path)) if one.anchor == "job-engines"]
    assert {css for css, _, _ in section.legend} == {f"j-{tone}" for tone in TONES}
    render(report_of(WORKS, NOT_RUN, folder=tmp_path), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert all(f".{css} {{" in page and f'<span class="tag {css}">' in page for css, _, _ in section.legend)


# --- where else it is shown ------------------------------------------------------------------------------


def test_the_sentence_about_a_topology_counts_engines_with_their_settings() -> None:
    evidence = Evidence(rows=tuple(job_rows_of_many()), topologies={}, records={}, folders={})
    found = {verdict.name: verdict for verdict in verdicts(evidence, TOPOLOGIES)}
    assert {name: verdict.sentences for name, verdict in found.items()} == {
        "direct": ("job engines: all 12 do their jobs",),
        "session": ("job engines: 10 of 12 do their jobs; 2 are not verified as a whole",),
        "transaction": ("job engines: all 12 do their jobs; 1 has an Issue, 2 are not verified as a whole",),
        "transaction-unprepared": ("job engines: 11 of 12 do their jobs; 1 has an Issue",),
        "statement": ("job engines: 6 of 12 do their jobs; 6 have a documented limit (6 with cases that are Not run)",),
    }
    assert {name: verdict.tone for name, verdict in found.items()} == {
        "direct": "holds",
        "session": "open",
        "transaction": "issue",
        "transaction-unprepared": "issue",
        "statement": "open",
    }


def test_a_verdict_on_some_cases_says_how_many_were_not_asked_for() -> None:
    unasked = replace(changed(NOT_RUN, reason=NOBODY_RAN_IT), run_id="")
    other = replace(unasked, planned=job_row(Case.IDLE, title="absurd 0.5.1").planned)
    evidence = Evidence(rows=(WORKS, unasked, other), topologies={}, records={}, folders={})
    [verdict] = verdicts(evidence, ["transaction"])
    assert verdict.sentences == ("job engines: 1 of 1 does its jobs; 1 more of their cases was not asked for",)


def test_a_documented_limit_of_a_job_engine_is_not_a_topology_that_holds() -> None:
    row = job_row(Case.IDLE, outcome="idle 27 s", limit="it polls")
    assert limit_kind(*row.answer) is LimitKind.JOBS
    evidence = Evidence(rows=(WORKS, row), topologies={}, records={}, folders={})
    [verdict] = verdicts(evidence, ["transaction"])
    assert (verdict.tone, verdict.trail_limits) == ("breaks", 0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [WORKS, job_row(Case.LEAVES_NOTHING, Status.ISSUE, "channels left: 2")],
            "1 of 1 does its jobs; 1 has an Issue",
        ),
        (
            [WORKS, job_row(Case.IDLE, outcome="idle 27 s", limit="it polls")],
            "1 of 1 does its jobs; 1 has a documented limit",
        ),
        ([WORKS, NOT_RUN], "1 of 1 does its jobs; 1 is not verified as a whole"),
        # none of these says that jobs are done
        ([job_row(status=Status.ISSUE)], "0 of 1 do their jobs; 1 has an Issue"),
        ([job_row(outcome="cannot install (08P01)", limit="DDL")], "0 of 1 do their jobs; 1 has a documented limit"),
        ([job_row(Case.IDLE)], "0 of 1 do their jobs; 1 is not verified as a whole"),
        ([changed(WORKS, quarantine=APART)], "0 of 1 do their jobs; 1 is not verified as a whole"),
    ],
)
def test_an_engine_does_its_jobs_whatever_its_other_cases_found(rows: list[Row], expected: str) -> None:
    assert engines_in_words([job_engine_cell(rows)]) == expected


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["channels left: 2"], "channels left on shared server connections: expected 0, observed 2"),
        (
            ["channels left on shared server connections: 2"],
            "channels left on shared server connections: expected 0, observed 2",
        ),
        (["channels left: 2", "channels left: 3"], "channels left: 2 in t0; channels left: 3 in t1"),
        (
            ["crash loop (42P05)"],
            "crash loop (42P05): channels left on shared server connections: expected 0, observed 2",
        ),
    ],
)
def test_a_finding_says_what_was_observed_once(outcomes: list[str], expected: str) -> None:
    reason = "channels left on shared server connections: expected 0, observed 2"
    found = job_engines(
        job_row(Case.LEAVES_NOTHING, Status.ISSUE, outcome, topology=f"t{number}", reason=reason, instead="x")
        for number, outcome in enumerate(outcomes)
    )
    assert found is not None
    assert [finding.observed for finding in found.findings] == [expected]


def test_an_engine_that_does_not_apply_is_not_counted() -> None:
    absent = JobEngineCell(status=Status.NA, words=(), note="attached servers")
    assert engines_in_words([absent]) == ""
    assert engines_in_words([absent, job_engine_cell([WORKS])]) == "1 of 1 does its jobs"


def test_each_engine_with_its_settings_is_a_band_of_the_heat_map() -> None:
    bands = heat_map(job_rows_of_many())
    assert [len(band.checks) for band in bands] == [len(Case)] * 12
    assert bands[-2].title == "Job engine: pg-boss 12.38.0, default"
    texts = {cell.text for cell in bands[-2].lines["transaction"] if cell}
    assert texts == {"OK", "N/A", "Issue: idle 27 s", "OK: twice 3"}


def test_the_page_and_the_document_link_each_word_to_its_evidence(tmp_path: Path) -> None:
    report = report_of(*job_rows_of_many(), folder=tmp_path)
    [section] = [one for one in sections(report) if one.anchor == "job-engines"]
    assert section.is_shown
    render(report, tmp_path)
    page, document, matrix = ((tmp_path / name).read_text() for name in ("report.html", "job-engines.md", "matrix.md"))
    assert '<a class="tag j-issue" href="#row=transaction/jobs.pg-boss-default-idle" title="case idle">' in page
    assert "[idle 27 s](matrix.md#transaction.jobs.pg-boss-default-idle) (Issue)" in document
    assert '<a id="transaction.jobs.pg-boss-default-idle"></a>' in matrix
    assert "Not run: its packages need Python 3.12 or later" in document
    assert "[works](matrix.md#direct.jobs.absurd-default-works), 12 cases |" in document
    assert "](matrix.md" not in fragments(report)["job-engines"]


def test_many_topologies_are_counted_together(tmp_path: Path) -> None:
    rows = [job_row(topology=f"transaction-{number}") for number in range(40)]
    [section] = [one for one in sections(report_of(*rows, folder=tmp_path)) if one.anchor == "job-engines"]
    assert section.result == "in 40 topologies: all 40 do their jobs"


def test_topologies_keep_their_order_although_only_rows_on_demand_were_asked_for(tmp_path: Path) -> None:
    unasked = replace(changed(job_row(topology="direct", status=Status.NOT_RUN), reason=NOBODY_RAN_IT), run_id="")
    rows = (unasked, job_row(topology="transaction"), job_row(Case.IDLE, topology="direct"))
    report = report_of(*rows, folder=tmp_path)
    assert list(report.counts) == ["direct", "transaction"]
    assert report.job_engines is not None
    assert report.job_engines.topologies == ("direct", "transaction")
    assert list(heat_map(report.rows, report.counts)[0].lines) == ["direct", "transaction"]


def test_a_test_that_passed_says_what_its_case_observed(tmp_path: Path) -> None:
    report = report_of(WORKS, job_row(Case.FAULTS, outcome="twice 3"), NOT_RUN, folder=tmp_path)
    assert [test.labels.get("outcome") for test in ctrf(report).results.tests] == [None, "twice 3", None]
    document = "".join(junit(report))
    assert document.count('<property name="outcome" value="twice 3" />') == 1
    assert document.count('name="outcome"') == 1
