"""JUnit XML, for CI systems that show test results. N/A, Not run and Issues that do not count are skipped tests.

A feature with a documented outcome is a passed test, whatever the outcome is, because the check was exercised and its
expectation held; `skipped` is for rows that were not exercised, and for Issues that are accepted or in quarantine. Its
properties and its `system-out` say what happens to the feature.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.model import Status
from harness.report.job_engine_cells import outcome_of_case
from harness.report.outcomes import WORDS, accepted_as, describe, is_shown, mark_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from harness.report.evidence import Row
    from harness.report.outcomes import Count
    from harness.report.tables import Report

#: characters that XML 1.0 does not allow, not even escaped, and those that are escaped in text and in attributes
_NOT_IN_TEXT = re.compile("[^\t\n\r\u0020-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOT_IN_ATTRIBUTE = re.compile("[^\u0020!#-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME = {"name": "pooler-harness"}
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#09;"}


def junit(report: Report) -> Iterator[str]:
    """Yield the report as XML: a test suite for each topology, a test case for each row that owes an answer.

    It is text, and not a tree of elements: 100 topologies have 165,000 of them.
    """
    by_topology: dict[str, list[Row]] = {name: [] for name in report.counts}
    for row in report.rows:
        if is_shown(*row.answer):
            by_topology[row.planned.target].append(row)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    if not by_topology:
        yield _leaf("testsuites", _NAME, "")
        return
    yield f"{_start('testsuites', _NAME)}>\n"
    for topology, counted in report.counts.items():
        yield _suite(topology, counted, by_topology[topology])
    yield "</testsuites>\n"


def _suite(topology: str, counted: Count, rows: Sequence[Row]) -> str:
    attributes = {
        "name": topology,
        "tests": str(len(rows)),
        "failures": str(counted.issue - counted.known - counted.quarantined),
        "errors": "0",
        "skipped": str(counted.na + counted.not_run + counted.known + counted.quarantined),
        "time": f"{sum(row.result.duration_ms for row in rows) / 1000:.3f}",
    }
    return _element("testsuite", attributes, [_properties(_counted(counted), "    "), *map(_case, rows)], "  ")


def _counted(counted: Count) -> dict[str, str]:
    """Return how many features, and how many drivers, of a topology have each outcome."""
    found: dict[str, str] = {}
    for kind, outcomes in (("features", counted.features), ("drivers", counted.drivers)):
        if outcomes.observed:
            found |= {f"{kind}.{word.behaviour}": str(getattr(outcomes, word.behaviour)) for word in WORDS}
            found[f"{kind}.known-defects"] = str(outcomes.known_defects)
            found[f"{kind}.undocumented"] = str(outcomes.undocumented)
    return found | {"limits": str(counted.limits), "out-of-scope": str(counted.out_of_scope)}


def _case(row: Row) -> str:
    result = row.result
    attributes = {
        "classname": f"{row.planned.target}.{row.planned.section}",
        "name": row.planned.check,
        "time": f"{result.duration_ms / 1000:.3f}",
    }
    return _element("testcase", attributes, [_properties(_facts(row), "      "), *_said(row)], "    ")


def _said(row: Row) -> Iterator[str]:
    """Yield what is not OK about a test case, and what happens to its feature."""
    result, inside = row.result, "      "
    message = f"{result.status}: {result.reason}" if result.reason else result.status
    if (accepted := accepted_as(result)) and (entry := result.known or result.quarantine):
        yield _leaf("skipped", {"message": f"{accepted} {message} ({entry.link})"}, inside)
    elif result.status is Status.ISSUE:
        broken = [
            f"{expectation.name}: expected {expectation.expected}, observed {expectation.observed}"
            for expectation in result.expectations
            if expectation.broken
        ]
        attributes = {"message": message, "type": result.severity or row.planned.severity}
        yield _leaf("failure", attributes, inside, "\n".join([*broken, f"reproduce: {result.reproduce}"]))
    elif result.status is not Status.OK:
        yield _leaf("skipped", {"message": message}, inside)
    limit = f"documented limit: {result.limit.outcome} ({result.limit.source})" if result.limit else ""
    if said := describe(row.planned, result) or limit:
        yield _leaf("system-out", {}, inside, said)


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


def _properties(values: Mapping[str, str], indent: str) -> str:
    start = f'{indent}  <property name="'
    properties = [f'{start}{name}" value="{_attribute(value)}" />\n' for name, value in values.items()]
    return _element("properties", {}, properties, indent)


def _element(name: str, attributes: Mapping[str, str], children: Iterable[str], indent: str) -> str:
    """Return an element with at least one child."""
    return f"{indent}{_start(name, attributes)}>\n{''.join(children)}{indent}</{name}>\n"


def _leaf(name: str, attributes: Mapping[str, str], indent: str, text: str = "") -> str:
    start = f"{indent}{_start(name, attributes)}"
    return f"{start}>{_NOT_IN_TEXT.sub(_escaped, text)}</{name}>\n" if text else f"{start} />\n"


def _start(name: str, attributes: Mapping[str, str]) -> str:
    return f"<{name}" + "".join([f' {key}="{_attribute(value)}"' for key, value in attributes.items()])


def _attribute(value: str) -> str:
    return _NOT_IN_ATTRIBUTE.sub(_escaped, value)


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[0], "\ufffd")
