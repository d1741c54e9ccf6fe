"""JUnit XML, for CI systems that show test results. N/A, Not run and Issues that do not count are skipped tests.

A feature with a documented outcome is a passed test, whatever the outcome is, because the check was exercised and its
expectation held; `skipped` is for rows that were not exercised, and for Issues that are accepted or in quarantine. Its
properties and its `system-out` say what happens to the feature.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from harness.model import Status
from harness.report.job_engine_cells import outcome_of_case
from harness.report.outcomes import WORDS, accepted_as, describe, is_shown, mark_of, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.report.evidence import Row
    from harness.report.outcomes import Count
    from harness.report.tables import Report

#: characters that XML 1.0 does not allow, not even escaped
_UNXML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """Return the report as XML: a test suite for each topology, a test case for each row that owes an answer."""
    root = ET.Element("testsuites", name="pooler-harness")
    by_topology: dict[str, list[Row]] = {name: [] for name in report.counts}
    for row in report.rows:
        if is_shown(*row.answer):
            by_topology[row.planned.target].append(row)
    for topology, counted in report.counts.items():
        rows = by_topology[topology]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=topology,
            tests=str(len(rows)),
            failures=str(counted.issue - counted.known - counted.quarantined),
            errors="0",
            skipped=str(counted.na + counted.not_run + counted.known + counted.quarantined),
            time=f"{sum(row.result.duration_ms for row in rows) / 1000:.3f}",
        )
        _properties(suite, _counted(counted))
        for row in rows:
            _case(suite, row)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _counted(counted: Count) -> dict[str, str]:
    """Return how many features, and how many drivers, of a topology have each outcome."""
    found: dict[str, str] = {}
    for kind, outcomes in (("features", counted.features), ("drivers", counted.drivers)):
        if outcomes.observed:
            found |= {f"{kind}.{word.behaviour}": str(getattr(outcomes, word.behaviour)) for word in WORDS}
            found[f"{kind}.known-defects"] = str(outcomes.known_defects)
            found[f"{kind}.undocumented"] = str(outcomes.undocumented)
    return found | {"limits": str(counted.limits), "out-of-scope": str(counted.out_of_scope)}


def _case(suite: ET.Element, row: Row) -> None:
    result = row.result
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"{row.planned.target}.{row.planned.section}",
        name=row.planned.check,
        time=f"{result.duration_ms / 1000:.3f}",
    )
    _properties(case, _facts(row))
    message = _clean(f"{result.status}: {result.reason}" if result.reason else result.status)
    if (accepted := accepted_as(result)) and (entry := result.known or result.quarantine):
        ET.SubElement(case, "skipped", message=_clean(f"{accepted} {message} ({entry.link})"))
    elif result.status is Status.ISSUE:
        failure = ET.SubElement(case, "failure", message=message, type=result.severity or row.planned.severity)
        failure.text = _clean(
            "\n".join(
                [
                    f"{expectation.name}: expected {expectation.expected}, observed {expectation.observed}"
                    for expectation in result.expectations
                    if expectation.broken
                ]
                + [f"reproduce: {result.reproduce}"]
            )
        )
    elif result.status is not Status.OK:
        ET.SubElement(case, "skipped", message=message)
    limit = f"documented limit: {result.limit.outcome} ({result.limit.source})" if result.limit else ""
    if said := describe(row.planned, result) or limit:
        ET.SubElement(case, "system-out").text = _clean(said)


def _facts(row: Row) -> dict[str, str]:
    """Return the properties of a test: its topology and status, and what happens to its feature."""
    result = row.result
    found = {"topology": row.planned.target, "status": str(result.status)}
    if text := text_of(result):
        source = result.feature.source if result.feature else ""
        found |= {"feature": row.planned.feature, "outcome": text, "mark": mark_of(result), "source": source}
    elif result.limit:
        found |= {"limit": result.limit.outcome, "source": result.limit.source}
    if observed := outcome_of_case(row):
        found["outcome"] = observed
    if result.repetition:
        found |= {"attempts": str(result.repetition), "flaky": str(result.flaky).lower()}
    if result.quarantine:
        found["quarantine"] = result.quarantine.link
    return {name: value for name, value in found.items() if value}


def _properties(parent: ET.Element, values: Mapping[str, str]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in values.items():
        ET.SubElement(properties, "property", name=name, value=_clean(value))


def _clean(value: str) -> str:
    return _UNXML.sub("\ufffd", value)
