"""The end of a run: a line for each topology, where the report is, the Issues, and the exit code."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.judges.acknowledged import LOST
from harness.cli import exit_codes, prove, recap
from harness.cli.wrapping import items_in_lines
from harness.job_engines.target_file import Case
from harness.model import (
    NOT_BEGUN,
    EndedBy,
    EnvironmentEvidence,
    Expectation,
    KnownIssue,
    PathLabel,
    Result,
    Section,
    Status,
)
from harness.report.issue_groups import issue_groups
from harness.report.merging import merge
from harness.report.verdicts import verdicts
from harness.store import StoredRun
from tests.tables import each_row
from tests.unit.job_engines import job_row
from tests.unit.made_up import PLAN, mixed, planned, record, result, stood

if TYPE_CHECKING:
    from harness.cli.invocation import Invocation
    from harness.report.issue_groups import Answer

ACCEPTED = KnownIssue(check="capture.insert", link="https://example.org/1", owner="ada", expires="2099-01-01")


class Said:
    """A terminal that keeps what it prints."""

    def __init__(self, screen: tuple[int, int] | None = None) -> None:
        self.lines: list[str] = []
        self.screen = screen

    def say(self, text: str) -> None:
        self.lines.append(text)


def invocation(terminal: Said | None = None, *, interrupted: bool = False) -> Invocation:
    return cast(
        "Invocation", SimpleNamespace(terminal=terminal or Said(), signals=SimpleNamespace(received=interrupted))
    )


def exit_code(runs: list[StoredRun], *, strict: bool = False, interrupted: bool = False) -> int:
    rows = [row for stored in runs for row in exit_codes.rows_of(stored)]
    return exit_codes.exit_code(invocation(interrupted=interrupted), rows, runs, strict=strict)


def run(*results: Result, **changes: Any) -> StoredRun:
    """Return a run that planned exactly these results."""
    plan = tuple(planned(answer.target, answer.check) for answer in results)
    written = replace(record(), **({"plan": plan, "topologies": {}} | changes))
    return StoredRun(folder=Path("r"), record=written, results=results, proofs=(), trail_proofs=(), torn=0)


OK = result("direct", "capture.insert")
ISSUE = result("direct", "capture.insert", Status.ISSUE, "rows: expected 1, observed 0")
KNOWN = replace(ISSUE, known=ACCEPTED)
NA = result("direct", "capture.coverage", Status.NA, "there is no pooler")
NOT_RUN = result("direct", "actor.many-clients", Status.NOT_RUN, "could not force a move")


# --- the lines -------------------------------------------------------------------------------------------


def timed(answer: Result, second: int, duration_ms: float) -> Result:
    return replace(answer, started_at=f"2026-01-01T00:00:{second:02}.000Z", duration_ms=duration_ms)


def test_there_is_a_line_for_each_topology(capsys: pytest.CaptureFixture[str]) -> None:
    """Checks run concurrently, so the time is not the sum of theirs."""
    longest = result("a-name-of-twenty-one", "capture.insert")
    recap.print_recap(run(timed(KNOWN, 1, 2500), timed(NA, 0, 1500), NOT_RUN, longest))
    assert capsys.readouterr().out.splitlines() == [
        "direct               checks:   ok=0 issue=1 (1 known) na=1 not_run=1  elapsed=3.5s",
        "a-name-of-twenty-one checks:   ok=1 issue=0 na=0 not_run=0  elapsed=0.0s",
    ]


@pytest.mark.parametrize(("is_terminal", "said"), [(False, "not_run=2 (1 interrupted)"), (True, "2 (1 interrupted)")])
def test_rows_that_an_interruption_left_are_counted(
    is_terminal: bool, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = result("direct", "capture.update", Status.NOT_RUN, NOT_BEGUN)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    recap.print_recap(run(OK, NOT_RUN, replace(left, ended_by=EndedBy.INTERRUPTION)))
    assert said in capsys.readouterr().out


def test_prove_counts_the_rows_that_an_interruption_left(capsys: pytest.CaptureFixture[str]) -> None:
    left = replace(result("direct", "capture.update", Status.NOT_RUN, NOT_BEGUN), ended_by=EndedBy.INTERRUPTION)
    selection: Any = SimpleNamespace(topologies=(SimpleNamespace(name="direct"),))
    prove._print_counts(selection, run(OK, left), of_reference=True)
    assert capsys.readouterr().out == "direct       proven=0 unproven=0 na=0 not_run=1 (1 interrupted)\n"


def test_evidence_has_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    stored = StoredRun(folder=Path("r"), record=record(), results=tuple(mixed()), proofs=(), trail_proofs=(), torn=0)
    recap.print_evidence_recap(merge([stored], PLAN))
    assert capsys.readouterr().out.splitlines() == [
        "direct       checks:   ok=2 (1 documented limit) issue=0 na=1 not_run=0  elapsed=0.0s",
        "session      checks:   ok=0 issue=2 (1 known) na=0 not_run=1  elapsed=0.0s",
        "transaction  checks:   ok=2 issue=0 na=0 not_run=1  elapsed=0.0s",
    ]


def test_what_passes_between_two_runs_is_not_time_of_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    first = run(timed(OK, 1, 2500), plan=(planned("direct", OK.check),))
    later = run(timed(NA, 50, 1500), plan=(planned("direct", NA.check),))
    later = replace(later, record=replace(later.record, run_id="20260101T000040Z-bbbbbbbb"))
    evidence = merge([first, later], PLAN[:3])
    recap.print_evidence_recap(evidence)
    [line] = capsys.readouterr().out.splitlines()
    assert line == "direct       checks:   ok=1 issue=0 na=1 not_run=1  elapsed=4.0s runs=2"
    [verdict] = verdicts(evidence, ["direct"])
    assert verdict.duration_ms == 4000.0


@pytest.mark.parametrize(("number", "said"), [(1, "out_of_scope=1 (jobs.a-works)"), (3, "out_of_scope=3")])
def test_rows_that_nobody_owes_are_counted_and_a_few_are_named(
    number: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = [replace(NOT_RUN, check=f"jobs.{name}-works") for name in "abc"[:number]]
    plan = (
        planned("direct", OK.check),
        *(replace(planned("direct", one.check), out_of_scope="Elixir is missing") for one in missing),
    )
    recap.print_recap(run(OK, *missing, plan=plan))
    [line] = capsys.readouterr().out.splitlines()
    assert line == f"direct       checks:   ok=1 issue=0 na=0 not_run=0 {said}  elapsed=0.0s"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    recap.print_recap(run(OK, *missing, plan=plan))
    heading, cells = capsys.readouterr().out.splitlines()
    assert "Not run out of scope" in heading
    assert cells.split() == ["direct", "1", "0", "0", "0", str(number), "0.0s"]


@pytest.mark.parametrize(("names", "width"), [((), 12), (("direct",), 12), (("x" * 12,), 12), (("x" * 13, "y"), 13)])
def test_names_are_padded_to_twelve_characters_or_to_the_longest(names: tuple[str, ...], width: int) -> None:
    assert recap.name_width(names) == width


def test_the_report_is_named_by_its_page() -> None:
    terminal = Said()
    paths = [Path("reports/report.md"), Path("reports/report.html"), Path("reports/junit.xml")]
    recap.say_where(invocation(terminal), Path("reports/runs/r"), paths)
    assert len(terminal.lines) == 2
    assert "reports/runs/r" in terminal.lines[0]
    assert "reports/report.html and 2 more files in reports/" in terminal.lines[1]


@pytest.mark.parametrize(
    ("older", "said"),
    [
        ((), "the run was interrupted: 2 of its rows are Not run"),
        (
            ("capture.insert",),
            "the run was interrupted: 2 of its rows are Not run; for 1 of them, the report has the answers of older runs",
        ),
    ],
)
def test_counts_of_older_runs_are_named_after_an_interruption(older: tuple[str, ...], said: str) -> None:
    names = ("capture.insert", "capture.update")
    left = [
        replace(result("direct", name, Status.NOT_RUN, NOT_BEGUN), ended_by=EndedBy.INTERRUPTION) for name in names
    ]
    terminal, interrupted = Said(), run(*left, run_id="20260102T000000Z-00000002")
    before = run(*(result("direct", name) for name in older), run_id="20260101T000000Z-00000001")
    recap.say_interrupted(invocation(terminal), merge([before, interrupted], []), [interrupted])
    assert terminal.lines == [said]
    recap.say_interrupted(invocation(terminal), merge([before], []), [before])
    assert len(terminal.lines) == 1


def test_without_a_run_only_the_report_is_named() -> None:
    terminal = Said()
    recap.say_where(invocation(terminal), None, [Path("reports/report.html")])
    assert len(terminal.lines) == 1


def answers(*results: Result) -> list[Answer]:
    return [(planned(found.target, found.check), found) for found in results]


CLAIM = "capture.insert on {}: rows: expected 1, observed 0"


def test_every_issue_is_printed_with_the_command_that_reproduces_it() -> None:
    terminal = Said()
    recap.say_issues(invocation(terminal), answers(ISSUE, NA, NOT_RUN, OK, KNOWN))
    rest = f"P0 {CLAIM.format('direct')}\n  reproduce: {ISSUE.reproduce}"
    assert terminal.lines == [f"Issue {rest}", f"Known Issue (https://example.org/1) {rest}"]


def on(*targets: str, known: bool = False) -> list[Result]:
    """Return the same Issue on several topologies."""
    found = KNOWN if known else ISSUE
    return [replace(found, target=target, reproduce=f"harness verify {target}") for target in targets]


def test_the_recap_has_the_groups_of_the_report_and_every_symptom() -> None:
    terminal = Said()
    other = replace(ISSUE, target="peered", reason="rows: expected 1, observed 2")
    found = answers(*on("direct", known=True), *on("transaction", "session"), other)
    recap.say_issues(invocation(terminal), found)
    where = CLAIM.format("transaction, session, peered")
    assert terminal.lines == [
        f"Issue P0 {where}; also rows: expected 1, observed 2 (peered)\n  reproduce: harness verify transaction",
        f"Known Issue (https://example.org/1) P0 {CLAIM.format('direct')}\n  reproduce: harness verify direct",
    ]
    assert [group.found in line for group, line in zip(issue_groups(found), terminal.lines, strict=True)] == [True] * 2


def test_known_issues_that_do_not_fit_into_one_screen_are_counted() -> None:
    """Issues that nobody accepted are always printed."""
    results = [
        replace(found, check=f"capture.{number}", known=replace(ACCEPTED, link=f"https://example.org/{number}"))
        if found.known
        else replace(found, check=f"capture.{number}")
        for number in range(20)
        for found in on("direct", "session", known=number % 2 == 0)
    ]
    terminal = Said(screen=(80, 24))
    recap.say_issues(invocation(terminal), answers(*results))
    assert [line.partition(" ")[0] for line in terminal.lines] == [*["Issue"] * 10, "and"]
    assert terminal.lines[-1] == "and 20 more known Issues, in issues.md"
    high = Said(screen=(80, 200))
    recap.say_issues(invocation(high), answers(*results))
    assert len(high.lines) == 20


NARROW = ["direct", "  OK 2, Issue 0,", "  N/A 1, Not run 0,", "  elapsed 0.0s", "session"]
MIDDLE = [
    "            OK Issue           N/A Not run",
    "direct       2     0             1       0",
    "session      0     2 (1 known)   0       1",
    "transaction  2     0             0       1",
]


def on_a_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *more: Result
) -> list[str]:
    """Return the recap on a terminal of this width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    recap.print_recap(run(*(row.result for row in merge([STORED], PLAN).rows), *more))
    return capsys.readouterr().out.splitlines()


STORED = StoredRun(folder=Path("r"), record=record(), results=tuple(mixed()), proofs=(), trail_proofs=(), torn=0)


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (20, NARROW),
        (41, ["direct", "  OK 2, Issue 0, N/A 1, Not run 0,"]),
        (42, MIDDLE),
        (80, [f"{MIDDLE[0]} elapsed"]),
    ],
)
def test_on_a_terminal_the_counts_are_a_table_of_its_width(
    columns: int, lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = on_a_terminal(columns, capsys, monkeypatch)
    assert all(len(line) <= columns for line in found)
    assert found[: len(lines)] == lines


def test_without_a_row_nothing_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal in (True, False):
        monkeypatch.setattr("sys.stdout.isatty", lambda is_terminal=is_terminal: is_terminal)
        recap.print_recap(run())
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", range(1, 120, 7))
def test_no_width_drops_anything_about_a_status(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a topology is whole, too: a shortened one may be that of another topology."""
    long = result("transaction-with-a-long-name", "capture.insert", Status.NOT_RUN, "why")
    text = " ".join(" ".join(on_a_terminal(columns, capsys, monkeypatch, long)).split())
    assert "transaction-with-a-long-name" in text
    for heading in ("OK", "Issue", "N/A", "Not run", "(1 known)"):
        assert heading in text


@given(st.lists(st.text("ab ", min_size=1).map(str.strip).filter(bool)), st.integers(1, 60))
def test_a_list_keeps_its_words_at_any_width(items: list[str], width: int) -> None:
    lines = list(items_in_lines(items, width))
    assert " ".join(lines).split() == ", ".join(items).split()
    assert [line for line in lines if len(line) > width and " " in line.strip()] == []


# --- the exit code ---------------------------------------------------------------------------------------


@each_row(
    ("runs", "code", "strict_code"),
    [
        ([run(OK)], 0, 0),
        ([run(OK, NA)], 0, 0),
        ([run(NA)], 0, 0),
        ([run(KNOWN)], 0, 0),
        ([run(OK, NOT_RUN)], 0, 4),
        ([run(OK), run(NOT_RUN)], 0, 4),
        ([run(ISSUE)], 1, 1),
        ([run(OK, NOT_RUN), run(ISSUE)], 1, 1),
        ([run(NOT_RUN)], 3, 3),
        ([run()], 3, 3),
        ([], 3, 3),
        ([run(OK, state="interrupted")], 130, 130),
        ([run(ISSUE, state="interrupted")], 130, 130),
    ],
)
def test_the_exit_code_follows_from_the_results(runs: list[StoredRun], code: int, strict_code: int) -> None:
    assert exit_code(runs) == code
    assert exit_code(runs, strict=True) == strict_code


def test_a_row_that_nobody_owes_is_no_gap() -> None:
    """An environment plans all checks, and most of them break things."""
    unsafe = replace(planned("direct", NOT_RUN.check), out_of_scope="not safe there")
    beside = run(OK, NOT_RUN, plan=(planned("direct", OK.check), unsafe))
    assert exit_code([beside], strict=True) == 0
    assert exit_code([run(NOT_RUN, plan=(unsafe,))], strict=True) == 3
    assert exit_code([run(OK, NOT_RUN)], strict=True) == 4


@pytest.mark.parametrize(
    ("ended_by", "code"), [(EndedBy.INFRASTRUCTURE, 3), (EndedBy.TIME_LIMIT, 0), (EndedBy.INTERRUPTION, 0), (None, 0)]
)
def test_a_failure_of_a_server_leaves_rows_unverified(ended_by: EndedBy | None, code: int) -> None:
    assert exit_code([run(OK, replace(NOT_RUN, ended_by=ended_by))]) == code
    assert exit_code([run(replace(ISSUE, ended_by=ended_by))]) == 1


def test_a_signal_is_an_interruption() -> None:
    assert exit_code([run(ISSUE)], interrupted=True) == 130


def test_a_topology_that_could_not_be_started_leaves_its_rows_unverified() -> None:
    started = {"direct": stood("direct")}
    assert exit_code([run(OK, topologies=started)]) == 0
    failed = {"direct": replace(stood("direct"), stood=False, reason="no image")}
    assert exit_code([run(OK, topologies=failed)]) == 3
    assert exit_code([run(ISSUE, topologies=failed)]) == 1


def path(status: Status, aspect: str = "") -> Result:
    """Return the result of an audited path, or of one of its aspects."""
    check = "capture.insert" + (f"-{aspect}" if aspect else "")
    return replace(result("staging", check, status, "why"), target="staging")


def host_run(*results: Result, reached: bool = True) -> StoredRun:
    plan = tuple(
        replace(
            planned("staging", answer.check),
            path=PathLabel(name="new-post", title="POST /posts", kind="HTTP", aspect=answer.check.partition("-")[2]),
        )
        for answer in results
    )
    return run(*results, plan=plan, environments={"staging": EnvironmentEvidence(name="staging", reached=reached)})


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (host_run(path(Status.OK)), 0),
        (host_run(path(Status.OK), reached=False), 3),
        (host_run(path(Status.NOT_RUN), path(Status.NA, "repeated")), 3),
        # an aspect alone does not show that the host ran the path
        (host_run(path(Status.NOT_RUN), path(Status.OK, "repeated")), 3),
        (host_run(path(Status.NA), path(Status.NOT_RUN, "repeated")), 0),
        (host_run(path(Status.OK), path(Status.NOT_RUN, "repeated")), 0),
    ],
)
def test_an_environment_must_be_reached_and_one_of_its_paths_exercised(found: StoredRun, code: int) -> None:
    assert exit_code([found, run(OK)]) == code


# --- writes under faults and loads -----------------------------------------------------------------------


def under_load(check: str, section: Section, facts: dict[str, str], lost: str = "none") -> StoredRun:
    """Return a run of one check with two attempts, which recorded the same."""
    expectation = Expectation(name=LOST, expected="none", observed=lost, held=lost == "none")
    plan = (replace(planned("transaction", check), section=section, attempts=2),)
    attempts = [
        replace(result("transaction", check), facts=facts, expectations=(expectation,), attempt=number)
        for number in (1, 2)
    ]
    return replace(run(*attempts), record=replace(record(), plan=plan))


UNITS = {"units of work": "205 acknowledged, 54 failed, 3 unknown (1 of them happened)"}
SOAKED = {"transactions": "1497", "failed": "12", "unknown": "0, 0 of them there"}


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        (
            under_load("resilience.server-killed", Section.RESILIENCE, UNITS),
            "transaction  faults:   acknowledged=410 lost_in_table=0 lost_in_trail=0 failed=108 unknown=6 (2 there)",
        ),
        (
            under_load("resilience.server-killed", Section.RESILIENCE, UNITS, lost="4: client 1, 2; …"),
            "transaction  faults:   acknowledged=410 lost_in_table=8 lost_in_trail=0 failed=108 unknown=6 (2 there)",
        ),
        (
            under_load("soak.pgbench", Section.SOAK, SOAKED),
            "transaction  loads:    acknowledged=2994 lost_in_table=0 lost_in_trail=0 failed=24 unknown=0 (0 there)",
        ),
    ],
)
def test_the_writes_of_all_attempts_are_counted(
    stored: StoredRun, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recap.print_recap(stored)
    assert capsys.readouterr().out.splitlines()[1:] == [line]


def test_on_a_terminal_the_writes_are_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    recap.print_recap(under_load("resilience.server-killed", Section.RESILIENCE, UNITS))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert "6 unknown, 2 of them there" in " ".join(map(str.strip, lines))


def limited(case: Case, outcome: str, topology: str, title: str = "Oban 0.7.0") -> Answer:
    return job_row(case, outcome=outcome, limit="LISTEN stays", topology=topology, title=title).answer


def test_the_documented_limits_of_job_engines_are_named_by_engine_and_variant() -> None:
    terminal = Said()
    found = [
        limited(Case.LEAVES_NOTHING, "channels left: 3", "transaction"),
        limited(Case.LEAVES_NOTHING, "channels left: 3", "session"),
        limited(Case.FAULTS, "stuck 4 h", "transaction"),
        job_row(Case.IDLE).answer,
        *answers(OK),
        *(limited(Case.IDLE, "idle 27 s", "transaction", f"Queue {number}") for number in range(7)),
    ]
    recap.say_limits(invocation(terminal), found)
    assert terminal.lines[0] == (
        "Documented limit of Oban 0.7.0, default: channels left: 3 (leaves-nothing on session, transaction); "
        "stuck 4 h (faults on transaction)"
    )
    assert terminal.lines[-1] == "and documented limits of 2 more, in job-engines.md"
    assert len(terminal.lines) == 7


def test_a_run_without_job_engines_names_no_limits() -> None:
    terminal = Said()
    recap.say_limits(invocation(terminal), answers(ISSUE, OK))
    assert terminal.lines == []
