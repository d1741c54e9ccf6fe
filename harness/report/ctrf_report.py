"""CTRF, the Common Test Report Format (https://ctrf.io): the test cases of `junit.xml` as JSON.

Its statuses separate what JUnit calls skipped: N/A is `skipped`, because the row does not apply, and Not run is
`pending`, because it still owes an answer. An Issue that is known or in quarantine is `skipped`, as in JUnit.
`rawStatus` has the harness's word. `flaky` says that attempts were OK and others an Issue. CTRF defines it for tests
that passed in the end; here the status stays that of the row, because one failed attempt is a failure.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Status
from harness.report.job_engine_cells import outcome_of_case
from harness.report.outcomes import accepted_as, describe, is_shown, mark_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.report.evidence import Row
    from harness.report.tables import Report

_SPEC = "1.0.0"
_STATUSES = {Status.OK: "passed", Status.ISSUE: "failed", Status.NA: "skipped", Status.NOT_RUN: "pending"}
_ACCEPTED = "skipped"


class CtrfTool(Struct, frozen=True, kw_only=True, rename="camel"):
    """The program that ran the tests."""

    name: str
    version: str


class CtrfSummary(Struct, frozen=True, kw_only=True, rename="camel"):
    """The number of tests of each status; times are milliseconds since 1970."""

    tests: int
    passed: int
    failed: int
    pending: int
    skipped: int
    other: int
    #: tests of any status that are flaky
    flaky: int
    suites: int
    start: int
    stop: int


class CtrfTest(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """One row that owes an answer, or has one."""

    name: str
    status: str
    #: milliseconds
    duration: int
    suite: tuple[str, ...]
    raw_status: str
    message: str = ""
    #: each broken expectation
    trace: str = ""
    start: int = 0
    stop: int = 0
    #: attempts after the first one
    retries: int = 0
    flaky: bool = False
    labels: dict[str, str] = {}
    #: the command that reproduces the row
    extra: dict[str, str] = {}


class CtrfResults(Struct, frozen=True, kw_only=True, rename="camel"):
    """All tests."""

    tool: CtrfTool
    summary: CtrfSummary
    tests: tuple[CtrfTest, ...]


class Ctrf(Struct, frozen=True, kw_only=True, rename="camel"):
    """The document."""

    report_format: str = "CTRF"
    spec_version: str = _SPEC
    #: the end of the evidence, so that the same evidence gives the same document
    timestamp: str = ""
    generated_by: str = "pooler-harness"
    results: CtrfResults


def ctrf(report: Report) -> Ctrf:
    """Return the rows of a report as tests: a suite for each topology, and within it for each section."""
    rows = [row for row in report.rows if is_shown(*row.answer)]
    tests = tuple(_test(row) for row in rows)
    statuses = [test.status for test in tests]
    return Ctrf(
        timestamp=report.evidence_to,
        results=CtrfResults(
            tool=CtrfTool(name="pooler-harness", version=report.tool_version),
            summary=CtrfSummary(
                tests=len(tests),
                passed=statuses.count("passed"),
                failed=statuses.count("failed"),
                pending=statuses.count("pending"),
                skipped=statuses.count("skipped"),
                other=0,
                flaky=sum(test.flaky for test in tests),
                suites=len(report.counts),
                start=_milliseconds(report.evidence_from),
                stop=_milliseconds(report.evidence_to),
            ),
            tests=tests,
        ),
    )


def _test(row: Row) -> CtrfTest:
    result = row.result
    accepted, entry = accepted_as(result), result.known or result.quarantine
    why = f"{accepted} ({entry.link}): " if accepted and entry else ""
    start = _milliseconds(result.started_at)
    duration = round(result.duration_ms)
    return CtrfTest(
        name=row.planned.check,
        status=_ACCEPTED if accepted else _STATUSES[result.status],
        duration=duration,
        suite=(row.planned.target, str(row.planned.section)),
        raw_status=str(result.status),
        message=f"{why}{result.reason}" if result.reason else describe(row.planned, result),
        trace="\n".join(_broken(row)),
        start=start,
        stop=start + duration if start else 0,
        retries=max(result.repetition.judged + result.repetition.na - 1, 0) if result.repetition else 0,
        flaky=result.flaky,
        labels={name: value for name, value in _labels(row).items() if value},
        extra={"reproduce": result.reproduce} if result.reproduce else {},
    )


def _broken(row: Row) -> Iterator[str]:
    for expectation in row.result.expectations:
        if expectation.broken:
            yield f"{expectation.name}: expected {expectation.expected}, observed {expectation.observed}"


def _labels(row: Row) -> dict[str, str]:
    """Return what a reader may filter by; "" for what the row does not have."""
    result = row.result
    return {
        "topology": row.planned.target,
        "severity": str(result.severity or row.planned.severity),
        "feature": row.planned.feature,
        "outcome": text_of(result) or outcome_of_case(row),
        "mark": mark_of(result),
        "limit": result.limit.outcome if result.limit else "",
        "attempts": str(result.repetition) if result.repetition else "",
        "quarantine": result.quarantine.link if result.quarantine else "",
    }


def _milliseconds(time: str) -> int:
    """Return milliseconds since 1970; 0 for a time that is missing or invalid."""
    try:
        return round(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError:
        return 0
