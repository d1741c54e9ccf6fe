"""The judge of a pipeline as a service: what it reads from lines, metrics and probes, and what it makes of observations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.judges import ingest_service as judged
from harness.checks.judges.ingest_reading import FixedTimes, LogLines, counter_of, read_lines, times_in
from harness.checks.judges.ingest_service import (
    Address,
    AuditedWrite,
    BrokenDependency,
    Probe,
    Refusal,
    ServiceSeen,
    Trace,
    judge_service,
)
from harness.checks.registry import Control
from harness.ingest.cases import IngestCase
from harness.ingest.loading import REFERENCE, find
from harness.ingest.pipeline_file import Logs
from harness.suites.ingest.rows import ingest_checks
from tests.tables import each_row
from tests.unit.ingested import expectations_of

LINE = {"ts": "2026-01-02T03:04:05.678Z", "level": "info", "ctx": {}}


def line(**changes: Any) -> str:
    return json.dumps({name: value for name, value in (LINE | changes).items() if value is not None})


# --- reading ---------------------------------------------------------------------------------------------------------


@each_row(
    ("text", "kind"),
    [
        (line(), ""),
        (line(ts="2026-01-02 03:04:05+01:00"), ""),
        (line(ts="2026-01-02T03:04:05,678+0100"), ""),
        (line(level="WARN"), ""),
        (line(level=30), ""),  # pino
        ("starting up", "not_json"),
        ('"text"', "not_json"),
        ("[" * 100_000, "not_json"),
        ("NaN", "not_json"),
        (line(ts=None), "without_keys"),
        (line(ctx=None), "without_keys"),
        (line(ts="2026-01-02T03:04:05"), "times"),
        (line(ts="yesterday"), "times"),
        (line(ts="2026-13-45T03:04:05Z"), "times"),
        (line(ts=1767323045), "times"),
        (line(level="loud"), "levels"),
        (line(level=True), "levels"),
        (line(level=7), "levels"),
        (line(ctx="text"), "contexts"),
    ],
)
def test_log_lines(text: str, kind: str) -> None:
    found = read_lines("api", [text], Logs())
    counts = {name: getattr(found, name) for name in ("not_json", "without_keys", "times", "levels", "contexts")}
    assert {name for name, number in counts.items() if number} == ({kind} if kind else set())
    assert found.first_wrong == (text[:160] if kind else "")


def test_empty_lines_and_lines_that_the_harness_cut_do_not_count() -> None:
    assert read_lines("api", ["", "  ", line()[:20] + "…"], Logs()) == LogLines(program="api")


def test_the_declared_keys_count() -> None:
    logs = Logs(time="time", level="severity", context="about")
    assert read_lines("api", [line()], logs).without_keys == 1
    assert (
        read_lines("api", ['{"time": "2026-01-02T03:04:05Z", "severity": "info", "about": {}}'], logs).first_wrong == ""
    )


@given(st.text())
def test_any_line_can_be_read(text: str) -> None:
    assert read_lines("api", [text], Logs()).lines in {0, 1}


#: 2026-01-02T03:04:05Z
MOMENT = 1767323045.0


@each_row(
    ("text", "shown"),
    [
        ('{"lastIndexedAt": "2026-01-02T03:04:05.5+00:00"}', True),
        ('{"last": "2026-01-02T04:04:05+01:00"}', True),
        ('{"last": "2026-01-02T03:04:05"}', True),
        ("last_indexed 1767323045", True),
        ("last_indexed 1767323045.25", True),
        ('{"last": 1767323045123}', True),
        ('{"last": "2026-01-02T03:03:05Z"}', False),
        ('{"last": null}', False),
        ('{"id": "17673230451234"}', False),
        ('{"last": "2026-99-99T03:04:05Z"}', False),
        ("", False),
    ],
)
def test_a_time_in_the_answer_of_a_probe(text: str, shown: bool) -> None:
    assert bool(times_in(text, MOMENT - 1, MOMENT + 1)) is shown


@given(st.text())
def test_any_answer_can_be_searched_for_a_time(text: str) -> None:
    assert not times_in(text, 2e18, 3e18)


def test_the_current_time_is_no_time_of_an_indexing() -> None:
    def shown(*answers: tuple[float, str]) -> list[bool]:
        times = FixedTimes()
        return [times.show(times_in(text, MOMENT - 1, MOMENT + 9), at_s, at_s) for at_s, text in answers]

    def at(second: int, *, indexed: str = "") -> str:
        return json.dumps({"status": "ok", "time": f"2026-01-02T03:04:{5 + second:02}Z", "indexed": indexed})

    # cut to whole seconds, it is the same for almost a second
    assert shown((0.0, at(0)), (0.99, at(0)), (1.0, at(1)), (1.99, at(1)), (2.0, at(2))) == [False] * 5
    indexed = "2026-01-02T03:04:04.5Z"
    assert shown(*((float(second), at(second, indexed=indexed)) for second in range(3))) == [False, False, True]
    # an answer that came late
    late = FixedTimes()
    assert not late.show(frozenset({MOMENT}), 0.0, 2.0)
    assert not late.show(frozenset({MOMENT}), 2.5, 4.0)
    assert late.show(frozenset({MOMENT}), 4.1, 4.2)
    # the time of an earlier indexing
    assert shown(*((float(second), at(second, indexed="2026-01-02T03:00:00Z")) for second in range(3))) == [False] * 3


METRICS = """# HELP indexed_total Uploads.
# TYPE indexed_total counter
indexed_total{kind="text"} 2
indexed_total{kind="other", note="a } b"} 3.0 1767323045
indexed_total_more 9
plain_total 4e0
broken_total x
"""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("indexed_total", 5.0),
        ('indexed_total{kind="text"}', 2.0),
        ("plain_total", 4.0),
        ("broken_total", None),
        ("missing_total", None),
        ("indexed", None),
    ],
)
def test_counters(name: str, value: float | None) -> None:
    assert counter_of(METRICS, name) == value


@given(st.text(), st.text(min_size=1))
def test_any_exposition_can_be_read(text: str, name: str) -> None:
    counter_of(text, name)


# --- judging ---------------------------------------------------------------------------------------------------------

UP = Probe(route="ready", phase="up", status=200)
DOWN = Probe(route="ready", phase="down", status=503)
BACK = Probe(route="ready", phase="back", status=200)
ADDRESS = Address(
    usable="yes",
    side="public",
    valid_s=900.0,
    promised_s=900.0,
    refusals=(Refusal(attempt="a forged signature", status=403),),
)
WRITTEN = AuditedWrite(number=1, operation="insert", actor={"type": "user", "id": "ada"}, correlation="c")
#: what a pipeline without a fault leaves
GOOD: dict[IngestCase, ServiceSeen] = {
    IngestCase.READINESS: ServiceSeen(
        probes=(Probe(route="health", phase="up", status=200), Probe(route="health", phase="down"), UP, DOWN, BACK),
        shows_indexing=(True, True),
    ),
    IngestCase.LOGS: ServiceSeen(logs=(LogLines(program="api", lines=3),)),
    IngestCase.CORRELATION: ServiceSeen(traces=(Trace(number=1, api=True, worker=True, row=True),)),
    IngestCase.METRICS: ServiceSeen(counter=(1.0, 4.0), indexed=3),
    IngestCase.FAILURES: ServiceSeen(
        broken=(
            BrokenDependency(dependency="PostgreSQL is down", status=503),
            BrokenDependency(dependency="the object store is down", status=201, accepted=True, kept=True),
        ),
        migrate_exit=1,
    ),
    IngestCase.ADDRESS: ServiceSeen(address=ADDRESS),
    IngestCase.AUDITED: ServiceSeen(
        audited=(1,),
        actor={"type": "user", "id": "ada"},
        correlations={1: "c"},
        changes=(WRITTEN, replace(WRITTEN, operation="update", actor={"type": "job"})),
    ),
}


def broken(case: IngestCase, seen: ServiceSeen) -> set[str]:
    return {found.name for found in judge_service(case, seen) if found.broken}


@pytest.mark.parametrize("case", GOOD)
def test_a_pipeline_without_a_fault_has_no_finding(case: IngestCase) -> None:
    expectations = judge_service(case, GOOD[case])
    assert expectations
    assert not broken(case, GOOD[case])


@each_row("case", IngestCase)
def test_nothing_observed_is_no_finding(case: IngestCase) -> None:
    assert judge_service(case, None) == ()
    assert not broken(case, ServiceSeen())


@each_row(
    ("case", "changes", "names"),
    [
        (IngestCase.READINESS, {"probes": (replace(DOWN, status=200),)}, {judged.NOT_READY}),
        (IngestCase.READINESS, {"probes": (replace(DOWN, status=0),)}, set()),
        (IngestCase.READINESS, {"probes": (replace(BACK, status=0),)}, {judged.READY_AGAIN}),
        (IngestCase.READINESS, {"probes": (replace(UP, status=500),)}, {judged.READY}),
        (IngestCase.READINESS, {"probes": (Probe(route="health", phase="up", status=500),)}, {judged.HEALTHY}),
        (IngestCase.READINESS, {"probes": (Probe(route="health", phase="down", status=200),)}, set()),
        (IngestCase.READINESS, {"shows_indexing": (True, False)}, {judged.LAST_INDEXED}),
        (
            IngestCase.LOGS,
            {"logs": (LogLines(program="A", lines=9, not_json=1, times=2),)},
            {judged.NOT_JSON, judged.TIMES},
        ),
        (IngestCase.CORRELATION, {"traces": (Trace(number=1, api=True),)}, {judged.IN_WORKER}),
        (
            IngestCase.CORRELATION,
            {"traces": (Trace(number=1, worker=True, row=False),)},
            {judged.IN_API, judged.IN_ROW},
        ),
        (IngestCase.METRICS, {"counter": (1.0, 5.0)}, {judged.COUNTED}),
        (IngestCase.METRICS, {"counter": (None, 3.0)}, set()),
        (IngestCase.METRICS, {"counter": (1.0, None)}, {judged.COUNTED}),
        (
            IngestCase.FAILURES,
            {"broken": (BrokenDependency(dependency="x", status=200, accepted=True),)},
            {judged.KEPT},
        ),
        (IngestCase.FAILURES, {"broken": (BrokenDependency(dependency="x", indexed=True),)}, {judged.INDEXED_WITHOUT}),
        (IngestCase.FAILURES, {"migrate_exit": 0}, {judged.MIGRATE_FAILS}),
        (IngestCase.FAILURES, {"migrate_exit": None}, set()),
        (IngestCase.ADDRESS, {"address": replace(ADDRESS, usable="unreachable")}, {judged.USABLE}),
        (IngestCase.ADDRESS, {"address": replace(ADDRESS, side="internal")}, {judged.PUBLIC}),
        (IngestCase.ADDRESS, {"address": replace(ADDRESS, side="")}, set()),
        (IngestCase.ADDRESS, {"address": replace(ADDRESS, holds_secret=True)}, {judged.SECRET}),
        (IngestCase.ADDRESS, {"address": replace(ADDRESS, valid_s=3600.0)}, {judged.VALID}),
        (IngestCase.ADDRESS, {"address": replace(ADDRESS, valid_s=None)}, set()),
        *(
            (
                IngestCase.ADDRESS,
                {"address": replace(ADDRESS, refusals=(Refusal(attempt="x", status=status, changed=changed),))},
                names,
            )
            for status, changed, names in (
                (200, False, {judged.refused("x")}),
                (500, True, {judged.refused("x")}),
                (400, False, set()),
            )
        ),
        (IngestCase.AUDITED, {"changes": ()}, {judged.CHANGES}),
        (IngestCase.AUDITED, {"actor": {}, "changes": (replace(WRITTEN, actor={"type": "job"}),)}, set()),
        (IngestCase.AUDITED, {"changes": (replace(WRITTEN, actor=None),)}, {judged.ACTOR, judged.ATTRIBUTED}),
        (IngestCase.AUDITED, {"changes": (replace(WRITTEN, correlation=None),)}, {judged.CORRELATION}),
        (IngestCase.AUDITED, {"correlations": {}, "changes": (replace(WRITTEN, correlation=None),)}, set()),
    ],
)
def test_one_change_of_what_was_seen(case: IngestCase, changes: dict[str, Any], names: set[str]) -> None:
    assert broken(case, replace(GOOD[case], **changes)) == names


def test_each_expectation_is_broken_by_a_control() -> None:
    checks = {f"ingest.{case}" for case in GOOD}
    controls = [one for one in ingest_checks(find(REFERENCE)) if isinstance(one, Control) and one.check in checks]
    assert {control.check for control in controls} == checks
    assert {control.at for control in controls} >= expectations_of(judged)
