"""Smoke, resilience and soak in the report, and the tables about faults and load."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from harness.checks.judges.acknowledged import (
    LOST,
    UNRECORDED,
    FinalState,
    OperationChange,
    OperationRow,
    WriteChange,
    WriteRow,
)
from harness.checks.load import LoadSettings
from harness.model import (
    EvidenceClass,
    Expectation,
    PathLabel,
    PlannedCheck,
    Quarantine,
    Repetition,
    Result,
    RunAttempts,
    Section,
    Severity,
    Status,
)
from harness.model.history import Opening
from harness.report.building import build_report
from harness.report.evidence import Evidence, Row, TopologyRun
from harness.report.job_rows import JOBS, is_about_jobs, job_rows, jobs_in_words
from harness.report.load_rows import ABSENT, fault_rows, faults_in_words, load_rows, loads_in_words, writes
from harness.report.render import fragments, render
from harness.report.trials import ALL, REQUIRED, Trial, trial_rows
from harness.store import Journal
from harness.suites.catalogue import catalogue
from harness.suites.resilience.rounds import record_facts

if TYPE_CHECKING:
    from pathlib import Path

    from harness.checks.context import CheckContext

FACTS = {
    "faults injected": "3 of 3",
    "units of work": "491 acknowledged, 31 failed, 4 unknown (2 of them happened)",
    "acknowledged again after the healing": "0.02 s the first writer, 0.15 s in the median, 0.52 s the last one",
}
SOAKED = {
    "seconds": "30.1",
    "transactions": "3003",
    "transactions per second": "99.8",
    "plain transactions per second": "100.1",
    "latency ms p50": "4.4",
    "latency ms p95": "18.2",
    "latency ms p99": "41",
    "schedule lag ms p95": "2.8",
    "trail bytes per write": "612",
    "unknown": "1, 1 of them there",
}


def row(
    check: str,
    section: Section,
    status: Status = Status.OK,
    target: str = "transaction",
    *,
    facts: dict[str, str] | None = None,
    lost: str = "none",
    unrecorded: str = "none",
    area: str = "PostgreSQL",
) -> Row:
    planned = PlannedCheck(
        target=target,
        check=check,
        claim=f"{check.partition('.')[2].replace('-', ' ')}: every acknowledged write is there",
        section=section,
        severity=Severity.P0,
        area=area,
        reproduce=f"nox -s topology-{target} -- --check {check}",
    )
    expectations = tuple(
        Expectation(name=name, expected="none", observed=observed, held=observed == "none")
        for name, observed in ((LOST, lost), (UNRECORDED, unrecorded))
        if status in {Status.OK, Status.ISSUE}
    )
    result = Result(
        target=target,
        check=check,
        status=status,
        reason="" if status is Status.OK else "for a reason",
        facts=facts or {},
        expectations=expectations,
        reproduce=planned.reproduce,
    )
    return Row(planned=planned, result=result, run_id="r")


def evidence(*rows: Row) -> Evidence:
    return Evidence(rows=rows, topologies={}, records={}, folders={})


def answers(*rows: Row, target: str = "transaction") -> list[tuple[Status, str]]:
    [found] = trial_rows(evidence(*rows), [target])
    return [(getattr(found, trial).status, getattr(found, trial).reason) for trial in Trial]


MAIN = tuple(row(check, Section.RESILIENCE) for check in REQUIRED[Trial.RESILIENCE])
LOADS = tuple(row(check, Section.SOAK) for check in REQUIRED[Trial.SOAK])


def test_what_an_answer_needs_is_what_the_main_job_runs() -> None:
    checks = catalogue().checks
    of = {section: [check for check in checks if check.section is section] for section in Section}
    main = [check.id for check in of[Section.RESILIENCE] if not check.on_demand]
    assert list(REQUIRED[Trial.RESILIENCE]) == main
    assert set(REQUIRED[Trial.SOAK]) == {check.id for check in of[Section.SOAK]}
    assert {Trial.RESILIENCE: len(of[Section.RESILIENCE]), Trial.SOAK: len(of[Section.SOAK])} == ALL


@pytest.mark.parametrize(
    ("rows", "status", "said"),
    [
        (MAIN, Status.OK, "12 of the main job: 12 OK"),
        (
            MAIN[:2],
            Status.NOT_RUN,
            f"12 of the main job: 2 OK, 10 Not run; {MAIN[2].planned.check}: no run of this code",
        ),
        (
            (row("resilience.disk-full", Section.RESILIENCE),),
            Status.NOT_RUN,
            "12 of the main job: 12 Not run; 1 on demand: 1",
        ),
        # a row on demand that did not run takes nothing away, and one that is an Issue does
        (
            (*MAIN, row("resilience.disk-full", Section.RESILIENCE, Status.NOT_RUN)),
            Status.OK,
            "12 of the main job: 12 OK",
        ),
        (
            (*MAIN, row("resilience.disk-full", Section.RESILIENCE, Status.ISSUE)),
            Status.ISSUE,
            "12 of the main job: 12 OK; 1 on demand: 1 Issue; resilience.disk-full: for a reason",
        ),
        (
            (*MAIN, *(row(f"resilience.{number}", Section.RESILIENCE, Status.NA) for number in range(17))),
            Status.OK,
            "all 29: 12 OK, 17 N/A",
        ),
    ],
)
def test_what_an_ok_needs_does_not_depend_on_what_ran(rows: tuple[Row, ...], status: Status, said: str) -> None:
    _, (found, reason), _ = answers(*rows)
    assert found is status
    assert reason.startswith(said)


def test_each_question_has_its_own_answer() -> None:
    assert answers(
        row("capture.insert", Section.CAPTURE),
        row("capture.coverage", Section.CAPTURE, Status.ISSUE),
        *MAIN[1:],
        row(MAIN[0].planned.check, Section.RESILIENCE, Status.NA),
        row("soak.mix", Section.SOAK, Status.ISSUE),
    ) == [
        (Status.OK, "1 OK"),
        (Status.OK, "12 of the main job: 11 OK, 1 N/A; resilience.connections-terminated: for a reason"),
        (Status.ISSUE, "2 loads: 1 Issue, 1 Not run; soak.mix: for a reason"),
    ]


def test_a_question_that_no_run_has_exercised_is_not_run() -> None:
    assert answers(row("actor.residue", Section.ACTOR)) == [
        (Status.NOT_RUN, "no run has exercised it"),
        (Status.NOT_RUN, "no run has exercised it: harness verify transaction --suite resilience"),
        (Status.NOT_RUN, "no run has exercised it: harness verify transaction --suite soak"),
    ]


def test_one_row_that_is_not_run_leaves_its_question_open() -> None:
    found = answers(
        *MAIN[1:],
        row(MAIN[0].planned.check, Section.RESILIENCE, Status.NOT_RUN),
    )
    assert found[1] == (
        Status.NOT_RUN,
        "12 of the main job: 11 OK, 1 Not run; resilience.connections-terminated: for a reason",
    )


def test_an_answer_names_the_verdicts_that_are_not_reliable() -> None:
    flaky, apart = row("capture.insert", Section.CAPTURE), row("soak.mix", Section.SOAK)
    entry = Quarantine(check="soak.mix", link="https://example.org/1", owner="ada", expires="2099-01-01")
    found = answers(
        replace(flaky, result=replace(flaky.result, repetition=Repetition(ok=19, issue=1))),
        replace(apart, result=replace(apart.result, quarantine=entry)),
        LOADS[0],
    )
    assert found[0] == (
        Status.OK,
        "1 OK; capture.insert is flaky: Issue in 1 of 20 attempts, failure rate below 21.7 %",
    )
    quarantined = "all 2: 2 OK; soak.mix is in quarantine until 2099-01-01 (owner ada, https://example.org/1)"
    assert found[2] == (Status.OK, quarantined)


def test_an_environment_is_asked_for_its_basic_path_only() -> None:
    def of_host(found: Row, path: str = "") -> Row:
        label = PathLabel(name="posts", title="POST /posts", kind="HTTP", aspect=path)
        is_path = found.planned.section is Section.PATHS
        return replace(
            found,
            planned=replace(
                found.planned, evidence_class=EvidenceClass.HOST, path=label if is_path else None, target="staging"
            ),
        )

    found = answers(
        of_host(row("environment.canary-attributed", Section.ENVIRONMENT)),
        of_host(row("path.posts", Section.PATHS)),
        of_host(row("path.posts-repeated", Section.PATHS, Status.ISSUE), "repeated"),
        target="staging",
    )
    assert found[0] == (Status.OK, "2 OK")
    assert {status for status, _ in found[1:]} == {Status.NOT_RUN}
    assert found[1][1] == "faults and load are injected only where the harness started the servers"


def test_a_fault_has_its_writes_by_outcome() -> None:
    [found] = fault_rows([row("resilience.server-killed", Section.RESILIENCE, facts=FACTS)])
    assert found.fault == "server killed"
    assert (found.injected, found.acknowledged, found.lost, found.failed) == ("3 of 3", "491", "0", "31")
    assert (found.unknown, found.recovered, found.longest) == ("4, 2 of them there", "0.15", "0.52")


def test_the_facts_of_a_check_are_the_ones_that_are_shown(tmp_path: Path) -> None:
    """Two writes of one writer, of which the second got no answer and happened; then a third one after a fault."""
    journal = Journal(
        tmp_path / "h.jsonl", Opening(topology="t", check="c", judge="acknowledged-writes", started_at=""), str
    )
    for seq in (1, 2):
        journal.invoke(1, seq, "insert", key=str(seq), value=f"v{seq}", actor="user:a")
    journal.answer(1, 1, "ok")
    for step in ("inject", "injected", "heal", "healed"):
        journal.fault(1, "server-killed", step)
    journal.invoke(1, 3, "insert", key="3", value="v3", actor="user:a")
    journal.answer(1, 3, "ok")
    state = FinalState(
        writes=tuple(WriteRow(str(seq), 1, f"v{seq}") for seq in (1, 2, 3)),
        operations=tuple(OperationRow(1, seq) for seq in (1, 2, 3)),
        write_changes=tuple(WriteChange("insert", str(seq), f"v{seq}", "user:a", seq) for seq in (1, 2, 3)),
        operation_changes=tuple(OperationChange("insert", 1, seq, "user:a", seq) for seq in (1, 2, 3)),
        panics=(),
    )
    facts: dict[str, str] = {}
    ctx = SimpleNamespace(load=LoadSettings(), fact=lambda name, value: facts.update({name: str(value)}))
    record_facts(cast("CheckContext", ctx), journal, state)
    journal.close()
    [found] = fault_rows([row("resilience.server-killed", Section.RESILIENCE, facts=facts)])
    assert (found.injected, found.acknowledged, found.failed) == ("1 of 1", "2", "0")
    assert found.unknown == "1, 1 of them there"
    assert float(found.recovered) <= float(found.longest)


@pytest.mark.parametrize(
    ("lost", "unrecorded", "shown"),
    [
        ("none", "none", "0"),
        ("2: client 1, 5; client 2, 9", "none", "2 in the table"),
        ("2: client 1, 5", "14: client 1, 5; …", "2 in the table, 14 in the trail"),
        ("a text of a later version", "none", "some in the table"),
    ],
)
def test_what_is_lost_is_said_with_its_place(lost: str, unrecorded: str, shown: str) -> None:
    status = Status.OK if shown == "0" else Status.ISSUE
    [found] = fault_rows([row("resilience.x", Section.RESILIENCE, status, lost=lost, unrecorded=unrecorded)])
    assert found.lost == shown


def test_what_no_check_recorded_is_a_dash() -> None:
    [found] = fault_rows([row("resilience.x", Section.RESILIENCE, Status.NOT_RUN)])
    assert {found.injected, found.acknowledged, found.lost, found.unknown, found.recovered} == {ABSENT}
    assert found.note == "for a reason"
    [load] = load_rows([row("soak.mix", Section.SOAK, Status.NOT_RUN)])
    assert {load.seconds, load.rate, load.latency, load.lag, load.lost, load.unknown} == {ABSENT}


def test_the_rows_of_one_fault_are_together_and_counted_in_words() -> None:
    rows = fault_rows(
        row(f"resilience.{fault}", Section.RESILIENCE, status, target, facts=FACTS, lost=lost)
        for target, fault, status, lost in (
            ("direct", "a", Status.OK, "none"),
            ("direct", "b", Status.OK, "none"),
            ("session", "a", Status.ISSUE, "1: client 1, 2"),
            ("session", "b", Status.NA, "none"),
        )
    )
    assert [(found.check, found.target) for found in rows] == [
        ("resilience.a", "direct"),
        ("resilience.a", "session"),
        ("resilience.b", "direct"),
        ("resilience.b", "session"),
    ]
    assert faults_in_words(rows) == (
        "2 faults in 2 topologies: 2 OK, 1 Issue, 1 N/A; 1473 acknowledged writes, some of them missing under 1 fault; "
        "12 unknown ones are neither lost nor failed"
    )
    assert faults_in_words(()) == ""


def test_a_fault_that_loses_writes_in_two_topologies_is_one_fault() -> None:
    rows = [
        row("resilience.a", Section.RESILIENCE, Status.ISSUE, target, facts=FACTS, lost="1: client 1, 2")
        for target in ("direct", "session")
    ]
    assert "982 acknowledged writes, some of them missing under 1 fault;" in faults_in_words(fault_rows(rows))


def discounted(found: Row, *names: str) -> Row:
    """Return a row whose named expectations do not count: the harness had already ended the check."""
    expectations = tuple(replace(one, counts=one.name not in names) for one in found.result.expectations)
    return replace(found, result=replace(found.result, expectations=expectations))


@pytest.mark.parametrize("names", [(LOST, UNRECORDED), (UNRECORDED,), (LOST,)])
def test_writes_are_counted_only_if_all_that_is_compared_with_them_counts(names: tuple[str, ...]) -> None:
    """Nothing was found missing, and nothing follows from it."""
    fault = discounted(row("resilience.a", Section.RESILIENCE, facts=FACTS), *names)
    load = discounted(row("soak.mix", Section.SOAK, facts=SOAKED), *names)
    assert [found.lost for found in fault_rows([fault])] == [ABSENT]
    assert [found.lost for found in load_rows([load])] == [ABSENT]
    assert writes([fault, load]) == ()
    assert faults_in_words(fault_rows([fault])) == "1 fault in 1 topology: 1 OK"
    assert loads_in_words(load_rows([load])) == "1 load in 1 topology: 1 OK"
    judged = row("resilience.b", Section.RESILIENCE, facts=FACTS)
    assert faults_in_words(fault_rows([fault, judged])).startswith(
        "2 faults in 1 topology: 2 OK; 491 acknowledged writes, none of them missing; 4 unknown"
    )
    assert [found.acknowledged for found in writes([fault, judged])] == [491]


def test_a_loss_is_shown_whatever_was_not_compared() -> None:
    found = row("resilience.a", Section.RESILIENCE, Status.ISSUE, facts=FACTS, lost="2: client 1, 5")
    found = discounted(found, UNRECORDED)
    assert [fault.lost for fault in fault_rows([found])] == ["2 in the table"]
    assert [(count.lost_in_table, count.lost_in_trail) for count in writes([found])] == [(2, 0)]


def test_jobs_are_not_counted_as_faults() -> None:
    rows = [
        row("resilience.server-killed", Section.RESILIENCE, facts=FACTS),
        row("resilience.jobs-queued", Section.RESILIENCE, area=JOBS),
        row("resilience.jobs-paused", Section.RESILIENCE, Status.NOT_RUN, area=JOBS),
        row("resilience.jobs-paused", Section.RESILIENCE, target="direct", area=JOBS),
    ]
    assert [fault.check for fault in fault_rows(rows)] == ["resilience.server-killed"]
    assert faults_in_words(fault_rows(rows)).startswith("1 fault in 1 topology: 1 OK;")
    found = job_rows(rows)
    assert [(job.case, job.target, job.note) for job in found] == [
        ("jobs queued: every acknowledged write is there", "transaction", ""),
        ("jobs paused: every acknowledged write is there", "transaction", "for a reason"),
        ("jobs paused: every acknowledged write is there", "direct", ""),
    ]
    assert jobs_in_words(found) == "2 cases of jobs whose runner ends, in 2 topologies: 2 OK, 1 Not run"
    assert jobs_in_words(()) == ""


def test_the_checks_about_jobs_are_known_by_their_area() -> None:
    plans = [
        replace(row(found.id, found.section).planned, area=found.area, section=found.section)
        for found in catalogue().checks
    ]
    about_jobs = {plan.check for plan in plans if is_about_jobs(plan)}
    assert about_jobs == {plan.check for plan in plans if plan.check.startswith("resilience.jobs-")}
    assert len(about_jobs) == 5


def test_a_load_is_shown_beside_the_same_load_without_the_trail(tmp_path: Path) -> None:
    rows = (row("soak.pgbench", Section.SOAK, facts=SOAKED), row("resilience.x", Section.RESILIENCE, facts=FACTS))
    report = build_report(evidence(*rows), tmp_path)
    [load] = report.loads
    assert (load.load, load.unknown, load.latency) == ("pgbench", "1, 1 of them there", "4.4 / 18.2 / 41")
    assert loads_in_words(report.loads) == "1 load in 1 topology: 1 OK; 3003 transactions were judged"
    rendered = fragments(report)["resilience"]
    assert (
        "| pgbench | transaction | OK | 30.1 | 3003 | 0 | 1, 1 of them there | 99.8, 100.1 without the trail "
        "| 4.4 / 18.2 / 41 | 2.8 | 612 |  |"
    ) in rendered
    assert "| 491 | 0 | 31 | 4, 2 of them there | 0.15 s, 0.52 s at the longest |  |" in rendered


def test_the_document_is_written_only_if_a_fault_or_a_load_was_planned(tmp_path: Path) -> None:
    with_load = build_report(evidence(row("soak.mix", Section.SOAK)), tmp_path)
    assert tmp_path / "resilience.md" in render(with_load, tmp_path)
    without = build_report(evidence(row("capture.insert", Section.CAPTURE)), tmp_path)
    assert tmp_path / "resilience.md" not in render(without, tmp_path)
    assert not (tmp_path / "resilience.md").exists()


def test_the_document_names_the_servers_of_faults_and_loads(tmp_path: Path) -> None:
    servers = "own, data on disk, fsync on, synchronous_commit on, PostgreSQL 17.2"
    rows = [
        row("resilience.server-killed", Section.RESILIENCE, facts={**FACTS, "servers": servers}),
        row("soak.mix", Section.SOAK, facts={**SOAKED, "servers": servers}),
        row("resilience.server-killed", Section.RESILIENCE, target="direct", facts={**FACTS, "servers": servers}),
    ]
    render(build_report(evidence(*rows), tmp_path), tmp_path)
    said = (tmp_path / "resilience.md").read_text()
    assert f"Servers of these checks, read back from each: {servers} (in transaction, direct).\n" in said.replace(
        "\\", ""
    )


def test_each_document_says_the_results_of_faults_and_loads_once(tmp_path: Path) -> None:
    rows = (row("resilience.x", Section.RESILIENCE, facts=FACTS), row("soak.mix", Section.SOAK, facts=SOAKED))
    jobs = row("resilience.jobs-queued", Section.RESILIENCE, area=JOBS)
    report = build_report(evidence(*rows, jobs), tmp_path)
    render(report, tmp_path)
    sentences = (faults_in_words(report.faults), jobs_in_words(report.jobs), loads_in_words(report.loads))
    for name in ("report.md", "resilience.md"):
        text = (tmp_path / name).read_text()
        assert [text.count(sentence) for sentence in sentences] == [1, 1, 1]
    fragment = fragments(report)["trials"]
    assert [fragment.count(sentence) for sentence in sentences] == [1, 1, 1]


def injected(text: str) -> Row:
    return row("resilience.server-killed", Section.RESILIENCE, facts={**FACTS, "faults injected": text})


@pytest.mark.parametrize(
    ("earlier", "attempts", "said"),
    [
        ((), 1, "1 of 1"),
        (("3 of 3", "2 of 5"), 1, "1 of 1; 6 in 3 runs"),
        # a run that could not inject any says nothing
        (("3 of 3", ""), 1, "1 of 1; 4 in 2 runs"),
        ((), 3, "1 of 1, attempt 1 of 3"),
        (("2 of 2",), 3, "1 of 1, attempt 1 of 3; at least 3 in 2 runs"),
    ],
)
def test_a_weaker_run_does_not_hide_the_faults_of_stronger_ones(
    earlier: tuple[str, ...], attempts: int, said: str
) -> None:
    newest = injected("1 of 1")
    runs = (RunAttempts(run_id="r", counts=Repetition(ok=attempts)),) if attempts > 1 else ()
    results = [*(injected(text).result for text in earlier), newest.result]
    series = {
        "transaction": tuple(
            TopologyRun(run_id=str(number), results={one.check: one}) for number, one in enumerate(results)
        )
    }
    [found] = fault_rows([replace(newest, runs=runs)], series)
    assert found.injected == said
