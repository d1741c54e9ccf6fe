"""Merging runs, and the documents that are rendered from them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from harness.checks.collection import Catalogue
from harness.errors import ConfigError
from harness.lab.topologies import load_topologies
from harness.model import NOT_BEGUN, Attestation, EndedBy, Status, TopologyEvidence
from harness.report.building import build_report
from harness.report.evidence import worst
from harness.report.junit_report import junit
from harness.report.merging import merge
from harness.report.render import render
from harness.report.scope import outside
from harness.report.tables import Declared, Report
from harness.report.walkthrough import ITEMS, TITLES, walk
from harness.suites.catalogue import catalogue
from tests.unit.made_up import CHECKS, NAMES, PLAN, STORAGE, mixed, planned, record, result, store_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return build_report(merge([store_run(tmp_path, mixed())], PLAN), tmp_path)


@pytest.fixture
def written(report: Report, tmp_path: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in render(report, tmp_path)}


# --- merging --------------------------------------------------------------------------------------------


def test_the_newest_result_wins(tmp_path: Path) -> None:
    old = store_run(tmp_path, [result("direct", CHECKS[0], Status.ISSUE, "x")], record("20260101T000000Z-00000001"))
    new = store_run(tmp_path, [result("direct", CHECKS[0])], record("20260101T000000Z-00000002"))
    evidence = merge([old, new], PLAN)
    assert evidence.rows[0].status is Status.OK
    assert evidence.rows[0].run_id == new.record.run_id


def test_not_run_does_not_replace_a_result_of_a_topology(tmp_path: Path) -> None:
    old = store_run(tmp_path, [result("direct", CHECKS[0], Status.ISSUE, "x")], record("20260101T000000Z-00000001"))
    new = store_run(tmp_path, [], record("20260101T000000Z-00000002", state="interrupted"))
    assert merge([old, new], PLAN).rows[0].status is Status.ISSUE


def test_runs_of_other_code_are_left_out_and_named(tmp_path: Path) -> None:
    old = store_run(tmp_path, [result("direct", CHECKS[0])], record("20260101T000000Z-00000001", fingerprint="other"))
    new = store_run(tmp_path, [], record("20260101T000000Z-00000002"))
    evidence = merge([old, new], PLAN)
    assert evidence.rows[0].status is Status.NOT_RUN
    assert old.record.run_id in evidence.left_out[0]


def test_runs_on_other_servers_are_not_mixed_and_are_named(tmp_path: Path) -> None:
    """An OK on one server does not hide an Issue on another one: the older run is left out and named."""
    old = store_run(
        tmp_path,
        [result("direct", CHECKS[0], Status.ISSUE, "x"), result("direct", CHECKS[1])],
        record("20260101T000000Z-00000001"),
    )
    native = replace(record("20260101T000000Z-00000002"), engine="native")
    new = store_run(tmp_path, [result("direct", CHECKS[0])], native)
    evidence = merge([old, new], PLAN)
    assert [row.status for row in evidence.of("direct")] == [Status.OK, Status.NOT_RUN, Status.NOT_RUN]
    note = next(note for note in evidence.left_out if old.record.run_id in note and "for direct" in note)
    assert "other servers" in note
    assert "its Issue rows (1)" in note
    assert evidence.missing("docker") == list(NAMES)


def test_a_run_of_another_declaration_is_left_out(tmp_path: Path) -> None:
    run = store_run(tmp_path, mixed())
    changed = load_topologies()
    pooler = changed["transaction"].pooler
    assert pooler
    changed["transaction"] = replace(changed["transaction"], pooler=replace(pooler, default_pool_size=9))
    evidence = merge([run], PLAN, declared=changed)
    assert {row.status for row in evidence.of("transaction")} == {Status.NOT_RUN}
    assert evidence.of("direct")[0].status is Status.OK


def test_rows_that_no_run_exercised_are_not_run() -> None:
    evidence = merge([], PLAN)
    assert {row.status for row in evidence.rows} == {Status.NOT_RUN}
    assert evidence.missing() == list(NAMES)


def test_the_worst_status_wins_and_no_status_is_not_run() -> None:
    assert worst([]) is Status.NOT_RUN
    assert worst([Status.OK, Status.NA]) is Status.OK
    assert worst([Status.NA]) is Status.NA
    assert worst([Status.OK, Status.NOT_RUN]) is Status.NOT_RUN
    assert worst([Status.OK, Status.NOT_RUN, Status.ISSUE]) is Status.ISSUE


# --- the documents -----------------------------------------------------------------------------------------


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def table(markdown: str, first_column: str) -> list[dict[str, str]]:
    """Return a Markdown table's rows, found by the name of its first column."""
    lines = markdown.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    names = _cells(lines[start])
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(names, _cells(line), strict=True)))
    return rows


def test_markers_and_columns_of_the_topology_table(written: dict[str, str]) -> None:
    text = written["stg-01-topology.md"]
    assert "\nSTG-HOST-TOPOLOGY-TEMPLATE\n" in text
    rows = table(text, "Environment")
    assert list(rows[0]) == [
        "Environment",
        "Class (CI or host)",
        "Chain (app to pooler to postgres)",
        "Pooler product",
        "Pool mode",
        "Ecto pools",
        "prepare policy",
        "Sandbox note",
        "Matches prod",
        "Evidence link",
    ]
    assert [row["Environment"] for row in rows] == list(NAMES)
    assert {row["Class (CI or host)"] for row in rows} == {"CI"}


@pytest.mark.parametrize("document", ["stg-01-topology.md", "report.md", "report.html", "report.json"])
def test_the_storage_of_each_topology_is_printed(written: dict[str, str], document: str) -> None:
    assert written[document].count(STORAGE) == len(NAMES)


def test_a_topology_is_at_best_partial_and_has_a_paragraph(report: Report, written: dict[str, str]) -> None:
    assert {row.matches_prod for row in report.topologies} == {"partial"}
    for name in NAMES:
        assert f"**{name}: matches prod partial.** CI-class evidence" in written["report.md"]


def test_a_topology_that_was_not_started_does_not_match(tmp_path: Path) -> None:
    down = replace(
        record(), topologies={name: TopologyEvidence(declared=load_topologies()[name], stood=False) for name in NAMES}
    )
    failed = build_report(merge([store_run(tmp_path, [], down)], PLAN), tmp_path)
    assert {row.matches_prod for row in failed.topologies} == {"no"}
    assert failed.status is Status.NOT_RUN
    render(failed, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "no check has a result" in text
    assert "evidence from no run" not in text


def test_a_report_without_evidence_says_so_once_and_has_no_rows(tmp_path: Path) -> None:
    empty = build_report(merge([], PLAN), tmp_path)
    assert empty.status is Status.NOT_RUN
    assert (empty.counts, empty.topologies, empty.matrix, empty.rows) == ({}, (), (), ())
    render(empty, tmp_path)
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert text.count("No evidence yet: no run of this code counts here") == 1
        for contradiction in ("Generated from evidence", "All rows are CI-class", "no run to no run"):
            assert contradiction not in text


def test_tables_have_the_rows_that_a_run_was_asked_for_and_one_sentence_names_the_others(tmp_path: Path) -> None:
    asked = replace(record(), plan=PLAN[:2], topologies={"direct": record().topologies["direct"]})
    evidence = merge([store_run(tmp_path, [result("direct", CHECKS[0])], asked)], PLAN)
    report = build_report(evidence, tmp_path)
    assert list(report.counts) == ["direct"]
    assert (report.counts["direct"].ok, report.counts["direct"].not_run) == (1, 1)
    assert [row.environment for row in report.topologies] == ["direct"]
    assert [row.check for row in report.matrix] == list(CHECKS[:2])
    assert outside(evidence, on_demand=["pgpool", "direct"]) == (
        "the tables leave out what no run of this code was asked for: 1 row of direct; all rows of session, transaction; "
        "pgpool, on demand only (harness verify NAME). harness report --complete runs what is missing"
    )
    # one topology answers nothing about the others
    assert {item.status for item in report.walkthrough if item.checks} == {Status.NOT_RUN}
    assert report.status is Status.NOT_RUN


def test_nothing_is_left_out_if_every_row_was_asked_for(tmp_path: Path) -> None:
    assert outside(merge([store_run(tmp_path, mixed())], PLAN)) == ""


def test_an_environment_that_no_run_was_asked_for_is_owed_its_rows_in_stg_01(tmp_path: Path) -> None:
    evidence = merge([store_run(tmp_path, mixed())], (*PLAN, planned("staging", CHECKS[0])))
    report = build_report(evidence, tmp_path, Declared(environments={"staging": ""}))
    assert [row.environment for row in report.topologies] == [*NAMES, "staging"]
    assert "staging" not in report.counts
    assert outside(evidence, environments=["staging"]) == (
        "the tables leave out what no run of this code was asked for: environment staging (harness verify --environment "
        "staging)"
    )


def test_every_pooler_has_a_mode(report: Report) -> None:
    for row in report.topologies:
        assert (row.pooler_product == "none") == (row.pool_mode == "none: no pooler")


def test_every_row_has_one_of_four_statuses_and_its_evidence_or_reason(report: Report, written: dict[str, str]) -> None:
    rows = [row for name in NAMES for row in table(written["matrix.md"].split(f"### {name}\n")[1], "Check")]
    assert {row["Status"] for row in rows} == {"OK", "Issue", "N/A", "Not run"}
    for row in rows:
        if row["Status"] in {"OK", "Issue"}:
            assert "`nox -s topology-" in row["Evidence"]
        else:
            assert row["Evidence"]
    for item in report.walkthrough:
        assert item.command if item.status is Status.OK else item.reason


def test_the_walkthrough_has_nineteen_items_in_seven_sections(report: Report) -> None:
    assert [
        sum(item.section == section for item in ITEMS) for section in dict.fromkeys(item.section for item in ITEMS)
    ] == [4, 3, 3, 4, 2, 2, 1]
    human = [item for item in report.walkthrough if not item.checks]
    assert [item.number for item in human] == ["3.1", "4.4"]
    assert {item.status for item in human} == {Status.NA}
    assert all("no operator has signed" in item.reason for item in human)


def test_checks_answer_every_item_that_is_not_human_work() -> None:
    numbers = {item.number for item in ITEMS if not item.human}
    # the feature map, audited paths, environments and commands have their own tables
    assert {check.item for check in catalogue().checks if check.section in TITLES} == numbers
    assert {check.item for check in catalogue().checks if check.section not in TITLES} == {""}


def test_items_are_numbered_by_section() -> None:
    sections = list(TITLES)
    for item in ITEMS:
        section, _, position = item.number.partition(".")
        assert sections[int(section) - 1] == item.section
        same = [other.number for other in ITEMS if other.section == item.section]
        assert same[int(position) - 1] == item.number


def test_an_attestation_answers_an_item_of_human_work(tmp_path: Path) -> None:
    signed = Attestation(
        item="backups-agree-with-retention",
        by="ada",
        on="2026-01-01",
        statement="restored on staging and purged",
        link="docs/backups.md",
    )
    report = build_report(merge([store_run(tmp_path, mixed())], PLAN), tmp_path, Declared(attestations=(signed,)))
    item = next(item for item in report.walkthrough if item.number == "4.4")
    assert item.status is Status.OK
    render(report, tmp_path)
    text = (tmp_path / "checklist.md").read_text()
    assert "ada on 2026-01-01: restored on staging and purged" in text
    assert "docs/backups.md" in text


def test_an_item_with_a_missing_check_is_not_ok(tmp_path: Path) -> None:
    plan = PLAN
    all_ok = [result(row.target, row.check) for row in plan]
    run = store_run(tmp_path, all_ok)
    # this plan lacks some checks of the first item
    report = build_report(merge([run], plan), tmp_path)
    assert report.walkthrough[0].status is Status.NOT_RUN


def test_items_that_are_not_run_are_counted_by_what_they_lack(tmp_path: Path) -> None:
    """A run of one topology leaves every item open, and an interrupted one looks the same without this."""
    asked = replace(record(), plan=PLAN[:2])
    left = replace(result("direct", CHECKS[1], Status.NOT_RUN, NOT_BEGUN), ended_by=EndedBy.INTERRUPTION)
    done = [result("direct", name) for name in CHECKS[:2]]
    whole = build_report(merge([store_run(tmp_path / "whole", done, asked)], PLAN), tmp_path)
    cut = build_report(merge([store_run(tmp_path / "cut", [done[0], left], asked)], PLAN), tmp_path)
    assert whole.why_items_not_run == "; 17 need rows that no run was asked for"
    assert cut.why_items_not_run == "; 17 need rows that no run was asked for, 1 needs rows of an interrupted run"
    [item] = [item for item in cut.walkthrough if item.interrupted]
    assert item.reason.startswith(f"{CHECKS[1]} in direct: {NOT_BEGUN}; ")
    render(cut, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert f"2 N/A, 17 Not run{cut.why_items_not_run}." in text
    assert "1 row of direct is Not run, because the run was interrupted, so it shows" in text


def test_issues_are_ordered_and_name_their_commands(report: Report, written: dict[str, str]) -> None:
    rows = table(written["issues.md"], "P")
    assert [row["ID"] for row in rows] == ["AP-1.insert.session", "AP-2.many-clients.session"]
    assert rows[0]["Owner"] == "ada"
    assert "https://example.org/1" in rows[0]["Link"]
    assert "nox -s topology-session" in rows[1]["Link"]
    assert (
        rows[1]["Symptom"]
        == "actor: expected a \\| b, observed &lt;c&gt;; the check is: the claim of actor.many-clients"
    )
    assert report.limits[0].source == "https://example.org/doc"


def test_junit_counts_and_skips_with_reasons(written: dict[str, str]) -> None:
    root = ET.fromstring(written["junit.xml"])  # noqa: S314 -- written a moment ago
    session = next(suite for suite in root if suite.get("name") == "session")
    assert (session.get("tests"), session.get("failures"), session.get("skipped")) == ("3", "1", "2")
    assert all(skip.get("message") for skip in root.iter("skipped"))


@pytest.mark.parametrize("reason", ["plain", "<a href=\"x\">&amp;'", "two\nlines\tand\ra tab", "\x00\ufffe \U0001f600"])
def test_junit_is_the_xml_that_a_parser_reads_and_writes(tmp_path: Path, reason: str) -> None:
    rows = [result("direct", CHECKS[0], Status.ISSUE, reason), result("direct", CHECKS[1], Status.NA, reason)]
    written = "".join(junit(build_report(merge([store_run(tmp_path, rows)], PLAN), tmp_path)))
    root = ET.fromstring(written)  # noqa: S314 -- written a moment ago
    ET.indent(root)
    assert written == f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'
    shown = reason.replace("\x00", "\ufffd").replace("\ufffe", "\ufffd")
    assert [found.get("message") for found in root.iter("skipped")][:1] == [f"N/A: {shown}"]


def test_junit_without_a_row_is_an_empty_element(tmp_path: Path) -> None:
    written = "".join(junit(build_report(merge([], ()), tmp_path)))
    assert written.splitlines()[1:] == ['<testsuites name="pooler-harness" />']


def test_text_from_outside_is_escaped_and_redacted(tmp_path: Path) -> None:
    evil = "</td><script>alert(1)</script> | `x` postgresql://u:hunter22@h/d"
    run = store_run(tmp_path, [result("direct", CHECKS[0], Status.ISSUE, evil)])
    render(build_report(merge([run], PLAN), tmp_path), tmp_path)
    for name in ("report.html", "report.md", "issues.md", "report.json", "junit.xml"):
        text = (tmp_path / name).read_text()
        assert "hunter22" not in text
        if name != "report.json":
            assert "<script>alert" not in text
            assert text.count("<script") == (2 if name == "report.html" else 0)  # the evidence, and what shows it


def test_rendering_twice_gives_the_same_bytes(report: Report, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in render(report, tmp_path)}
    assert {path.name: path.read_bytes() for path in render(report, tmp_path)} == first


def test_no_document_contains_a_secret_of_foreign_evidence(tmp_path: Path) -> None:
    """Another tool, or an older version, may have stored a row without redacting it."""
    stored = replace(
        result("direct", CHECKS[0], Status.ISSUE, "refused"), facts={"at": "postgres://app:hunter22@db/app"}
    )
    evidence = merge([store_run(tmp_path, [stored], redact=str)], PLAN)
    assert "hunter22" in str(evidence.rows)
    written = {path.name: path.read_text() for path in render(build_report(evidence, tmp_path), tmp_path)}
    assert [name for name, content in written.items() if "hunter22" in content] == []
    assert "postgres://[redacted]@db/app" in written["report.json"]


def test_rows_of_a_topology_keep_their_order_after_a_replacement(tmp_path: Path) -> None:
    evidence = merge([store_run(tmp_path, mixed())], PLAN)
    assert [row.planned.target for row in evidence.of("session")] == ["session"] * len(CHECKS)
    fewer = replace(evidence, rows=evidence.of("direct"))
    assert fewer.names() == ["direct"]
    assert fewer.of("session") == ()


def test_a_check_of_an_unknown_item_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = catalogue().checks
    wrong = Catalogue((replace(first, item="9.9"), *others), (), catalogue().fixtures)
    monkeypatch.setattr("harness.report.walkthrough.catalogue", lambda: wrong)
    with pytest.raises(ConfigError, match=r"unknown item '9\.9'"):
        walk([])
