"""Checks in quarantine: they run and are reported, and decide no exit code until their day has passed."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from harness.checks.execution import in_quarantine
from harness.cli import recap
from harness.cli.evidence import with_acceptance
from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.cli.selection import select_rows
from harness.cli.settings import read_settings
from harness.cli.terminal import Terminal
from harness.errors import ConfigError
from harness.events import CheckFinished, RunStarted
from harness.host.readiness_file import ReadinessArea
from harness.model import KnownIssue, Quarantine, Repetition, Result, Status
from harness.report.building import build_report
from harness.report.issue_groups import issue_groups
from harness.report.merging import merge
from harness.report.readiness import Stance, readiness
from harness.report.render import render
from harness.report.row_states import is_new_issue
from harness.report.tables import Declared
from harness.store import StoredRun
from tests.unit.made_up import planned, record, result, stood
from tests.unit.test_recap import Said, exit_code, invocation, run

if TYPE_CHECKING:
    from harness.report.evidence import Evidence, Row

CHECK = "capture.insert"
LINK = "https://example.org/issues/34"
APART = Quarantine(check=CHECK, link=LINK, owner="ada", expires="2026-06-30")
KNOWN = KnownIssue(check=CHECK, link="https://example.org/issues/1", owner="bob", expires="2026-06-30")
OK = result("direct", CHECK)
ISSUE = result("direct", CHECK, Status.ISSUE, "rows: expected 1, observed 0")
NOT_RUN = result("direct", CHECK, Status.NOT_RUN, "could not force a move")
FLAKY = Repetition(ok=17, issue=3)
ENTRY = f"""[[quarantine]]
check = "{CHECK}"
link = "{LINK}"
owner = "ada"
expires = "2026-06-30"
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def quarantined(found: Result) -> Result:
    return replace(found, quarantine=APART)


def evidence_of(*results: Result) -> Evidence:
    plan = tuple(planned(found.target, found.check) for found in results)
    written = replace(record(), plan=plan, topologies={"direct": stood("direct")})
    return merge([StoredRun(Path("r"), written, results, (), (), 0)], ())


def row_of(found: Result) -> Row:
    return evidence_of(found).rows[0]


# --- entries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [OK, ISSUE, NOT_RUN, result("direct", CHECK, Status.NA, "there is no pooler")])
@pytest.mark.parametrize(
    ("entry", "applies"),
    [
        (APART, True),
        (replace(APART, topologies=("session", "direct")), True),
        (replace(APART, topologies=("session",)), False),
        (replace(APART, check="capture.update"), False),
        (replace(APART, check="capture"), False),
    ],
)
def test_an_entry_marks_the_rows_of_its_check_whatever_their_status(
    found: Result, entry: Quarantine, applies: bool
) -> None:
    assert in_quarantine(found, [entry]) == replace(found, quarantine=entry if applies else None)


def test_an_entry_needs_all_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "harness.toml"
    for key in ("check", "link", "owner", "expires"):
        path.write_text("".join(line for line in ENTRY.splitlines(keepends=True) if not line.startswith(key)))
        with pytest.raises(ConfigError, match=f"quarantine.*{key}: missing key"):
            read_settings(today="2026-01-01")
    for before, after, message in (
        (LINK, "34", r"link: found '34'"),
        ("2026-06-30", "2026-02-30", "quarantine: invalid date '2026-02-30', expected YYYY-MM-DD"),
        (CHECK, "capture.inser", r"quarantine: unknown check 'capture\.inser'"),
        ('owner = "ada"', 'owner = ""', "owner"),
        ('owner = "ada"', 'owner = "ada"\nstatus = "OK"', "status"),
    ):
        path.write_text(ENTRY.replace(before, after))
        with pytest.raises(ConfigError, match=message):
            read_settings(today="2026-01-01")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("owner", "  "),
        ("owner", "ada\\n| OK | all good |"),
        ("owner", "ada\\u2028::error::"),
        ("link", "https://ada:secret@example.org/issues/34"),
    ],
)
def test_an_entry_that_cannot_be_printed_is_refused(tmp_path: Path, key: str, value: str) -> None:
    old = {"owner": "ada", "link": LINK}[key]
    Path("harness.toml").write_text(ENTRY.replace(f'{key} = "{old}"', f'{key} = "{value}"'))
    with pytest.raises(ConfigError, match=key):
        read_settings(today="2026-06-01")


def test_an_entry_for_an_unknown_topology_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("harness.toml").write_text(f'{ENTRY}topologies = ["transacton"]\n'.replace("2026-06-30", "2099-01-01"))
    assert main(["verify", "direct", "--dry-run"]) == ExitCode.USAGE
    assert "unknown topology or environment 'transacton'" in capsys.readouterr().err


def test_an_entry_without_its_link_is_an_error_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "harness.toml").write_text(ENTRY.replace(f'link = "{LINK}"\n', ""))
    assert main(["verify", "direct", "--dry-run"]) == ExitCode.USAGE
    assert "link: missing key" in capsys.readouterr().err


def test_after_its_last_day_an_entry_no_longer_applies_and_the_report_says_so(tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text(ENTRY)
    on_the_day, after = read_settings(today="2026-06-30"), read_settings(today="2026-07-01")
    assert (on_the_day.quarantine, on_the_day.expired_quarantine) == ((APART,), ())
    assert (after.quarantine, after.expired_quarantine) == ((), (APART,))
    # the run was marked when it was made; what counts is today
    evidence = evidence_of(quarantined(ISSUE))
    assert with_acceptance(evidence, on_the_day).rows[0].result.quarantine == APART
    expired = with_acceptance(evidence, after)
    assert expired.rows[0].result.gates
    assert next(iter(expired.series["direct"][0].results.values())).gates
    assert expired.left_out == (
        f"the quarantine of {CHECK} expired on 2026-06-30, so it decides the exit code again (owner ada, {LINK})",
    )


def test_checks_in_quarantine_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "harness.toml").write_text(ENTRY.replace("2026-06-30", "2099-06-30"))
    assert main(["list", "checks"]) == ExitCode.OK
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "quarantine" in line)
    assert line.endswith(f"(in quarantine until 2099-06-30: {LINK})")
    assert line.split()[0] == CHECK
    assert main(["list", "checks", "--json"]) == ExitCode.OK
    listed = {row["name"]: row["quarantine"] for row in json.loads(capsys.readouterr().out)}
    assert [entry["link"] for entry in listed.pop(CHECK)] == [LINK]
    assert not any(listed.values())


# --- the exit code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "code", "strict_code"),
    [
        ([quarantined(ISSUE)], 0, 0),
        ([quarantined(OK)], 0, 0),
        ([quarantined(replace(ISSUE, known=KNOWN))], 0, 0),
        ([quarantined(ISSUE), result("session", CHECK, Status.ISSUE, "x")], 1, 1),
        ([quarantined(NOT_RUN), result("session", CHECK)], 0, 0),
        # nothing was verified
        ([quarantined(NOT_RUN)], 3, 3),
        ([quarantined(NOT_RUN), result("session", CHECK, Status.NOT_RUN, "x"), result("x", CHECK)], 0, 4),
    ],
)
def test_a_row_in_quarantine_changes_no_exit_code(found: list[Result], code: int, strict_code: int) -> None:
    runs = [run(*found)]
    assert (exit_code(runs), exit_code(runs, strict=True)) == (code, strict_code)


def test_an_issue_in_quarantine_is_not_new() -> None:
    assert is_new_issue(None, row_of(ISSUE))
    assert not is_new_issue(None, row_of(quarantined(ISSUE)))


# --- what people see -------------------------------------------------------------------------------------


def test_the_end_of_a_run_names_the_entry_and_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(replace(quarantined(ISSUE), repetition=FLAKY), result("session", CHECK))
    recap.print_recap(done)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("direct       checks:   ok=0 issue=1 (1 quarantined) na=0 not_run=0 ")
    said = Said()
    recap.say_issues(invocation(said), [(planned("direct", CHECK), replace(quarantined(ISSUE), repetition=FLAKY))])
    assert said.lines[0].startswith(
        f"Quarantined Issue ({LINK}) P0 {CHECK} on direct: rows: expected 1, observed 0 (Issue in 3 of 20 attempts)"
    )


def test_progress_counts_attempts_and_names_them() -> None:
    stream = StringIO()
    terminal = Terminal(str, stream)
    written = replace(record(), plan=(replace(planned("direct", CHECK), attempts=20),))
    terminal(RunStarted(written, "r", ()))
    terminal(CheckFinished(quarantined(replace(ISSUE, attempt=2))))
    terminal.close()
    shown = stream.getvalue()
    assert "1 row, 20 attempts each" in shown
    assert f"Issue (quarantined) {CHECK} attempt 2 of 20  0.01s  rows: expected 1, observed 0" in shown


@pytest.fixture
def written(tmp_path: Path) -> dict[str, str]:
    rows = (
        replace(quarantined(ISSUE), repetition=FLAKY),
        replace(result("direct", "actor.many-clients"), repetition=Repetition(ok=20)),
        replace(result("direct", "capture.coverage", Status.ISSUE, "x"), repetition=FLAKY),
    )
    report = build_report(evidence_of(*rows), tmp_path, Declared(quarantine=(APART,), expired_quarantine=(APART,)))
    return {path.name: path.read_text() for path in render(report, tmp_path)}


def test_junit_skips_an_issue_in_quarantine_and_names_flaky_rows(written: dict[str, str]) -> None:
    (suite,) = ET.fromstring(written["junit.xml"])  # noqa: S314 -- written by this test
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "1")
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    skipped = cases[CHECK].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == f"quarantined Issue: rows: expected 1, observed 0 ({LINK})"
    properties = {
        name: {found.get("name"): found.get("value") for found in case.iter("property")} for name, case in cases.items()
    }
    assert properties[CHECK] | {"quarantine": LINK, "flaky": "true"} == properties[CHECK]
    assert properties["actor.many-clients"]["flaky"] == "false"
    assert properties["actor.many-clients"]["attempts"] == "Issue in 0 of 20 attempts"


def test_ctrf_has_its_own_fields_for_flaky_tests(written: dict[str, str]) -> None:
    results = json.loads(written["ctrf.json"])["results"]
    tests = {found["name"]: found for found in results["tests"]}
    assert {name: found["status"] for name, found in tests.items()} == {
        CHECK: "skipped",
        "actor.many-clients": "passed",
        "capture.coverage": "failed",
    }
    assert [name for name, found in tests.items() if found.get("flaky")] == [CHECK, "capture.coverage"]
    assert results["summary"]["flaky"] == 2
    assert {found["retries"] for found in tests.values()} == {19}
    assert tests[CHECK]["labels"]["quarantine"] == LINK


def test_every_document_says_which_verdicts_are_not_reliable(written: dict[str, str]) -> None:
    bound = "Issue in 3 of 20 attempts, failure rate below 34.4 %"
    assert f"flaky: {bound}" in written["matrix.md"]
    assert f"in quarantine until 2026-06-30 (owner ada, {LINK})" in written["matrix.md"]
    assert f"flaky: {bound}" in written["issues.md"]
    assert "Issue (flaky, quarantined)" in written["matrix.md"]
    assert f"[quarantined]({LINK})" in written["issues.md"]
    assert "## Verdicts that are not reliable" in written["report.md"]
    assert (
        "| direct | capture.coverage | Issue | yes | Issue in 3 of 20 attempts | below 34.4 % |" in written["report.md"]
    )
    assert "actor.many-clients | OK | no" not in written["report.md"]
    table = written["repetition.md"]
    assert "| yes, since it expired | 2026-06-30 | Issue in direct | ada |" in table
    assert "| no | 2026-06-30 | Issue in direct | ada |" in table
    assert "Repetition: which verdicts are reliable" in written["report.html"]
    assert "2 flaky of 3 repeated rows" in written["report.html"]
    data = json.loads(written["report.json"])
    found = data["rows"]["direct"][CHECK]
    assert (found["repetition"], found["quarantine"]["link"]) == ({"ok": 17, "issue": 3}, LINK)
    assert data["counts"]["direct"] | {"quarantined": 1, "flaky": 2} == data["counts"]["direct"]


def test_an_issue_in_quarantine_is_in_a_group_of_its_own() -> None:
    other = result("session", CHECK, Status.ISSUE, "rows: expected 1, observed 0")
    rows = [(planned(found.target, CHECK), found) for found in (quarantined(ISSUE), other)]
    assert [(group.accepted, group.topologies) for group in issue_groups(rows)] == [
        ("", ("session",)),
        ("quarantined", ("direct",)),
    ]


# --- readiness -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "stance", "reason"),
    [
        (OK, Stance.PROVEN, ""),
        (ISSUE, Stance.NOT_READY, "is Issue: rows"),
        (quarantined(OK), Stance.NOT_SHOWN, "is OK; in quarantine until 2026-06-30"),
        (quarantined(ISSUE), Stance.NOT_SHOWN, "in quarantine until 2026-06-30"),
        (replace(OK, repetition=FLAKY), Stance.NOT_SHOWN, "is OK; flaky: Issue in 3 of 20 attempts"),
        (replace(OK, repetition=Repetition(ok=20)), Stance.PROVEN, ""),
        (replace(ISSUE, repetition=FLAKY), Stance.NOT_READY, "flaky: Issue in 3 of 20 attempts"),
    ],
)
def test_a_verdict_that_is_not_reliable_shows_nothing(found: Result, stance: Stance, reason: str) -> None:
    (area,) = readiness(
        [ReadinessArea(area="writes", checks=(CHECK,), host_responsibility="its own tables")], evidence_of(found)
    )
    assert area.stance is stance
    assert bool(area.reasons) == bool(reason)
    assert reason in " ".join(area.reasons)


# --- the command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--environment", "x", "--repeat", "2"], "found --repeat and --environment, expected one of them"),
        (
            ["verify", "direct", "--check", CHECK, "--under", "no_trigger", "--repeat", "2"],
            "found --repeat and --under, expected one of them",
        ),
        (["verify", "direct", "--repeat", "0"], "--repeat"),
        (["verify", "direct", "--repeat", "x"], "--repeat"),
        (["verify", "direct", "--repeat", "10001"], "--repeat"),
        (["prove", "direct", "--repeat", "2"], "--repeat"),
    ],
)
def test_what_cannot_be_repeated_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_the_plan_says_how_often_rows_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "direct", "--check", CHECK, "--repeat", "3", "--dry-run"]) == ExitCode.OK
    assert capsys.readouterr().out == f"direct       {CHECK}  3 attempts\n"


def test_the_command_that_reproduces_a_repeated_row_repeats_it() -> None:
    settings = read_settings()
    (row,) = select_rows(settings, ["direct"], [], [CHECK], repeat=3).plan(settings)
    assert row.attempts == 3
    assert row.reproduce.endswith(f"verify direct --check {CHECK} --repeat 3")
