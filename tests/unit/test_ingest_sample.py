"""The published sample of an ingest pipeline has the rows of today's checks, and today's command fills it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness import places
from harness.model import IngestLabel, Section, Severity
from harness.report import columns
from harness.report.building import build_report
from harness.report.merging import merge
from harness.report.render import fragments
from harness.report.splice import splice
from harness.suites.ingest.rows import CASES
from tests.unit.made_up import planned, record, result, store_run

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = places.SHIPPED / "docs" / "sample" / "ingest.md"
TEXT = SAMPLE.read_text(encoding="utf-8")
_ROWS = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if re.match(r"\| [^|]+ \| `ingest\.", line)]


def test_it_has_each_check_of_the_suite_on_both_topologies() -> None:
    found = {(row[1].strip("`"), row[3]) for row in _ROWS}
    assert found == {(f"ingest.{row.case}", name) for row in CASES for name in ("direct", "transaction")}
    assert len(_ROWS) == len(found)
    claims = {f"ingest.{row.case}": row.claim for row in CASES}
    assert {row[1].strip("`"): row[2] for row in _ROWS} == claims


def test_it_has_the_columns_of_today() -> None:
    assert f"| {' | '.join(column.heading for column in columns.INGEST)} |" in TEXT


def test_each_issue_of_the_sample_is_a_known_fault_of_the_pipeline() -> None:
    document = (places.SHIPPED / "docs" / "ingest.md").read_text(encoding="utf-8")
    faults = document.partition("## A pipeline with faults")[2].partition("\n## ")[0]
    issues = {row[1] for row in _ROWS if row[4] == "Issue" and row[3] == "direct"}
    assert issues == set(re.findall(r"^\| (`ingest\.[a-z-]+`) \|", faults, re.MULTILINE))


def test_todays_command_fills_it(tmp_path: Path) -> None:
    label = IngestLabel(pipeline="original", title="original", case="retries")
    row = replace(planned("direct", "ingest.retries"), section=Section.INGEST, severity=Severity.P1, ingest=label)
    row = replace(row, declared_as="original 1")
    run = store_run(tmp_path, [result("direct", "ingest.retries")], replace(record(), plan=(row,)))
    filled = splice(TEXT.encode(), fragments(build_report(merge([run], []), tmp_path))).decode()
    assert "| original | `ingest.retries` |" in filled
    assert filled.count("| `ingest.") == 1
    assert (
        filled.partition("<!-- pooler-harness: ingest -->")[0] == TEXT.partition("<!-- pooler-harness: ingest -->")[0]
    )
