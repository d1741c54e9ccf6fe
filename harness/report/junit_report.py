"""JUnit XML, for CI systems that show test results. N/A, Not run and known Issues are skipped tests with a reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from harness.model import Status

if TYPE_CHECKING:
    from harness.report.evidence import Row
    from harness.report.tables import Report

#: characters that XML 1.0 does not allow, not even escaped
_UNXML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> str:
    """Return the report as XML: a test suite for each topology, a test case for each row."""
    root = ET.Element("testsuites", name="pooler-harness")
    by_topology: dict[str, list[Row]] = {name: [] for name in report.counts}
    for row in report.rows:
        by_topology[row.planned.target].append(row)
    for topology, counted in report.counts.items():
        rows = by_topology[topology]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=topology,
            tests=str(len(rows)),
            failures=str(counted.issue - counted.known),
            errors="0",
            skipped=str(counted.na + counted.not_run + counted.known),
            time=f"{sum(row.result.duration_ms for row in rows) / 1000:.3f}",
        )
        for row in rows:
            result = row.result
            case = ET.SubElement(
                suite,
                "testcase",
                classname=f"{topology}.{row.planned.section}",
                name=row.planned.check,
                time=f"{result.duration_ms / 1000:.3f}",
            )
            message = _clean(f"{result.status}: {result.reason}" if result.reason else result.status)
            if result.known:
                ET.SubElement(case, "skipped", message=_clean(f"known {message} ({result.known.link})"))
            elif result.status is Status.ISSUE:
                failure = ET.SubElement(case, "failure", message=message, type=result.severity or row.planned.severity)
                failure.text = _clean(
                    "\n".join(
                        [
                            f"{expectation.name}: expected {expectation.expected}, observed {expectation.observed}"
                            for expectation in result.expectations
                            if not expectation.held
                        ]
                        + [f"reproduce: {result.reproduce}"]
                    )
                )
            elif result.status is not Status.OK:
                ET.SubElement(case, "skipped", message=message)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _clean(value: str) -> str:
    return _UNXML.sub("\ufffd", value)
