"""`diff` and `report --since`: which evidence a name leads to, what is printed, and the exit code."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.model import Status
from harness.provenance import fingerprint
from tests.unit.made_up import CHECKS, NAMES, record, result, store_run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.store import StoredRun

OLD, NEW = "20260101T000000Z-aaaaaaa1", "20260102T000000Z-bbbbbbb2"


def run(reports: Path, run_id: str, *issues: str, day: int = 1) -> StoredRun:
    """Store a run in which a check is an Issue in some topologies, and OK in the others."""
    begin, end = (f"2026-01-0{day}T00:00:0{second}.000Z" for second in (0, 9))
    written = replace(record(run_id), started_at=begin, ended_at=end)
    plan = tuple(row for row in written.plan if row.check == CHECKS[0])
    rows = [
        result(name, CHECKS[0], Status.ISSUE, "rows: expected 1, observed 0")
        if name in issues
        else result(name, CHECKS[0])
        for name in NAMES
    ]
    return store_run(reports, rows, replace(written, plan=plan))


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a reports folder with an older run, which has one Issue, and a newer one, which has two."""
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "reports", OLD, "session")
    run(tmp_path / "reports", NEW, "session", "transaction", day=2)
    return tmp_path / "reports"


NAMED = (
    (OLD, NEW),
    ("aaaa", "bbbb"),
    ("aaaa", "latest"),
    (f"reports/runs/{OLD}", f"reports/runs/{NEW}/run.json"),
)


@pytest.mark.parametrize("names", NAMED)
def test_a_new_issue_is_named_and_exit_1(
    names: tuple[str, str], reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *names]) == ExitCode.ISSUE
    out = capsys.readouterr().out
    assert "3 rows were compared: 1 new Issue" in out
    assert re.search(rf"P0 {CHECKS[0]}: OK → Issue; rows: expected 1, observed 0; .*\[transaction\]", out)


def test_the_newer_run_is_the_latest_by_default(reports: Path) -> None:
    assert main(["diff", "aaaa"]) == ExitCode.ISSUE


@pytest.mark.parametrize(
    "names", [("latest", "latest"), ("bbbb", "latest"), ("reports", "reports"), (f"reports/runs/{OLD}", OLD)]
)
def test_a_run_is_not_compared_with_itself(
    names: tuple[str, str], reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *names]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert f"{names[0]} and {names[1]} are the same evidence: run " in said.err
    assert said.out == ""


def test_the_previous_run_has_a_row_in_common(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tuple(row for row in record().plan if row.check == CHECKS[1])
    between = replace(record("20260102T120000Z-ddddddd4"), plan=plan)
    store_run(reports, [result(name, CHECKS[1]) for name in NAMES], between)
    run(reports, "20260103T000000Z-eeeeeee5", *NAMES, day=3)
    assert main(["diff", "previous"]) == ExitCode.ISSUE
    assert capsys.readouterr().out.startswith(f"previous: run {NEW}, ")


def test_a_run_under_a_control_is_not_the_previous_one(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [result(name, CHECKS[0], Status.ISSUE, "it was broken") for name in NAMES]
    store_run(reports, rows, replace(record("20260102T120000Z-ddddddd4"), under="insert-trigger-disabled"))
    run(reports, "20260103T000000Z-eeeeeee5", *NAMES, day=3)
    assert main(["diff", "previous"]) == ExitCode.ISSUE
    assert capsys.readouterr().out.startswith(f"previous: run {NEW}, ")


def test_without_a_row_in_common_the_previous_run_is_the_one_before(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = "20260103T000000Z-ddddddd4"
    plan = tuple(row for row in record().plan if row.check == CHECKS[1])
    store_run(reports, [result(name, CHECKS[1]) for name in NAMES], replace(record(newest), plan=plan))
    assert main(["diff", "previous"]) == ExitCode.NOTHING_VERIFIED
    assert capsys.readouterr().out.startswith(f"previous: run {NEW}, ")


def test_each_side_is_one_line(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["diff", OLD, "latest"])
    rest = "commit cccccccccccc; direct, session, transaction; postgres 17.5, pgbouncer 1.24.1"
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"{OLD}: 2026-01-01 00:00 UTC; {rest}",
        f"latest: run {NEW}, 2026-01-02 00:00 UTC; {rest}",
    ]


def test_an_issue_that_is_gone_or_was_there_is_exit_0(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", NEW, OLD]) == ExitCode.OK
    assert "1 no longer an Issue" in capsys.readouterr().out


def test_an_issue_that_is_accepted_today_is_not_new(reports: Path) -> None:
    (reports.parent / "harness.toml").write_text(
        f'[[known_issues]]\ncheck = "{CHECKS[0]}"\nlink = "https://example.org/1"\nowner = "ada"\nexpires = "2099-01-01"\n'
    )
    assert main(["diff", OLD, NEW]) == ExitCode.OK


def test_the_reports_folder_of_another_machine(reports: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run(other, "20260103T000000Z-ccccccc3", *NAMES, day=3)
    assert main(["diff", "latest", "other"]) == ExitCode.ISSUE
    assert main(["diff", "other", "latest"]) == ExitCode.OK
    (other / "report.json").write_text("{}")
    assert main(["diff", "latest", "other/report.json"]) == ExitCode.ISSUE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0000000", "'0000000' is not"),
        ("Z-", f"'Z-' is a part of 2 runs: {NEW}, {OLD}"),
        ("latst", "did you mean latest?"),
        ("20260101T000000Z-aaaaaaa9", f"did you mean {OLD}"),
        ("", "found an empty name of a run"),
        ("harness.txt", "found the file harness.txt, expected latest, previous, the id of a run"),
        ("x" * 5000, "expected latest, previous, the id of a run"),
        ("a\0b", "expected latest, previous, the id of a run"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, expected: str, reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (reports.parent / "harness.txt").touch()
    expected = f"no run or folder {name!r}" if name == "0000000" else expected
    assert main(["diff", name, "latest"]) == ExitCode.USAGE
    assert expected in capsys.readouterr().err


def test_a_report_without_its_runs_is_not_enough(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "report.json").write_text("{}")
    assert main(["diff", "elsewhere/report.json", "latest"]) == ExitCode.NOTHING_VERIFIED
    assert "the folder of its runs" in capsys.readouterr().err


def test_nothing_follows_from_an_edited_run(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = reports / "runs" / NEW / "results.jsonl"
    rows.write_text(rows.read_text().replace('"duration_ms":12.5', '"duration_ms":12.6'))
    assert main(["diff", NEW, OLD]) == ExitCode.NOTHING_VERIFIED
    out = capsys.readouterr().out
    assert f"edited: run {NEW} was edited" in out
    assert "a run was edited, so nothing follows" in out
    assert main(["diff", OLD, NEW]) == ExitCode.NOTHING_VERIFIED
    assert "new Issue" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["/usr", "empty", "deep"])
def test_a_folder_without_runs_is_not_searched(name: str, reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (reports.parent / "empty").mkdir()
    run(reports.parent / "deep" / "a" / "b" / "c", "20260103T000000Z-ccccccc3", day=3)
    assert main(["diff", name, "latest"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "neither a run folder nor a folder of runs" in err
    assert "a run folder has the file run.json" in err


@pytest.mark.parametrize("place", ["runs", "one/runs", "one/reports/runs", "one"])
def test_the_places_of_runs_in_a_folder(place: str, reports: Path) -> None:
    """The last one is what `gh run download --pattern` makes of the artifacts of several jobs."""
    found = run(reports.parent / "made", "20260103T000000Z-ccccccc3", *NAMES, day=3)
    (reports.parent / "machines" / place).mkdir(parents=True)
    found.folder.rename(reports.parent / "machines" / place / found.folder.name)
    assert main(["diff", "aaaa", "machines"]) == ExitCode.ISSUE


def test_runs_without_a_row_in_common(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = record("20260103T000000Z-ccccccc3")
    plan = tuple(row for row in written.plan if row.check == CHECKS[1])
    store_run(reports, [result("direct", CHECKS[1])], replace(written, plan=plan))
    assert main(["diff", OLD, "ccccccc3"]) == ExitCode.NOTHING_VERIFIED
    assert "no row in common" in capsys.readouterr().out


def test_a_run_in_which_nothing_ran_is_not_a_success(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = "2026-01-03T00:00:00.000Z"
    written = replace(record("20260103T000000Z-ccccccc3", state="running"), started_at=begin)
    store_run(reports, [], written)
    assert main(["diff", OLD, "ccccccc3"]) == ExitCode.NOTHING_VERIFIED
    assert "no row ran in both, so nothing follows (3 were planned in both)" in capsys.readouterr().out


def test_json_and_markdown(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", OLD, NEW, "--json"]) == ExitCode.ISSUE
    found = json.loads(capsys.readouterr().out)
    assert [change["targets"] for change in found["changes"]] == [["transaction"]]
    assert main(["diff", OLD, NEW, "--markdown"]) == ExitCode.ISSUE
    assert "| new Issue | P0 | capture.insert |" in capsys.readouterr().out
    assert main(["diff", OLD, NEW, "--markdown", "--json"]) == ExitCode.USAGE


# --- report --since --------------------------------------------------------------------------------------


def report_run(reports: Path, run_id: str, *issues: str, reason: str = "rows: expected 1, observed 0") -> None:
    """Store a run of this code and audit target."""
    from harness.audit.target_loading import reference_target

    written = replace(record(run_id, fingerprint=fingerprint()), audit_target=reference_target().identity)
    rows = [
        result(name, CHECKS[0], Status.ISSUE, reason) if name in issues else result(name, CHECKS[0]) for name in NAMES
    ]
    store_run(reports, rows, written)


def test_a_report_fails_for_new_issues_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "old", OLD, "session")
    run(tmp_path / "clean", OLD)
    monkeypatch.setattr("harness.cli.evidence._contradictions_with_code", lambda *_: ())
    report_run(tmp_path / "reports", NEW, "session")
    assert main(["report"]) == ExitCode.ISSUE
    assert not (tmp_path / "reports" / "changes.md").exists()
    assert main(["report", "--since", "old"]) == ExitCode.OK
    assert main(["report", "--since", "clean"]) == ExitCode.ISSUE
    assert "1 new Issue" in (tmp_path / "reports" / "report.md").read_text()
    changes = json.loads((tmp_path / "reports" / "report.json").read_text())["changes"]
    assert [change["targets"] for change in changes["changes"]] == [["session"]]


def test_an_edited_run_excuses_no_issue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    old = run(tmp_path / "old", OLD, "session")
    monkeypatch.setattr("harness.cli.evidence._contradictions_with_code", lambda *_: ())
    report_run(tmp_path / "reports", NEW, "session")
    assert main(["report", "--since", str(old.folder)]) == ExitCode.OK
    rows = old.folder / "results.jsonl"
    rows.write_text(rows.read_text().replace("12.5", "12.6"))
    assert main(["report", "--since", str(old.folder)]) == ExitCode.ISSUE


def test_an_annotation_is_an_error_only_for_what_fails_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setattr("harness.cli.evidence._contradictions_with_code", lambda *_: ())
    run(tmp_path / "old", OLD, "session")
    run(tmp_path / "clean", OLD)
    report_run(tmp_path / "reports", NEW, "session")
    for since, fails in (([], True), (["--since", "old"], False), (["--since", "clean"], True)):
        capsys.readouterr()
        assert main(["report", *since]) == (ExitCode.ISSUE if fails else ExitCode.OK)
        assert ("::error " in capsys.readouterr().err) is fails


def test_an_edited_run_is_no_base_for_a_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`diff` and `report --since` exit with the same code, also where no Issue is left."""
    monkeypatch.chdir(tmp_path)
    old = run(tmp_path / "old", OLD, "session")
    monkeypatch.setattr("harness.cli.evidence._contradictions_with_code", lambda *_: ())
    report_run(tmp_path / "reports", NEW)
    assert main(["report", "--since", str(old.folder)]) == ExitCode.OK
    rows = old.folder / "results.jsonl"
    rows.write_text(rows.read_text().replace("12.5", "12.6"))
    capsys.readouterr()
    assert main(["report", "--since", str(old.folder)]) == ExitCode.NOTHING_VERIFIED
    assert "no longer an Issue" not in capsys.readouterr().out
    assert main(["diff", str(old.folder)]) == ExitCode.NOTHING_VERIFIED


@pytest.mark.parametrize("command", [["report", "--since", "old"], ["diff", "old"]])
def test_no_line_of_a_comparison_begins_with_a_command_of_a_ci_log(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.cli.evidence._contradictions_with_code", lambda *_: ())
    run(tmp_path / "old", OLD)
    report_run(tmp_path / "reports", NEW, "session", reason="rows: expected 1, observed\n::error file=a::forged")
    assert main(command) == ExitCode.ISSUE
    out, err = capsys.readouterr()
    assert "rows: expected 1, observed ::error file=a::forged" in out
    assert "\n\nnew Issue\n  P0 " in out
    assert not [line for line in (out + err).splitlines() if line.lstrip().startswith("::")]


def test_a_report_without_a_newer_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.cli.evidence._contradictions_with_code", lambda *_: ())
    report_run(tmp_path / "reports", NEW, "session")
    assert main(["report", "--since", "latest"]) == ExitCode.NOTHING_VERIFIED
    assert "both have the same rows of the same run, so nothing was compared" in capsys.readouterr().out


def test_since_is_not_combined_with_what_prints_no_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--since", "x", "--verify"]) == ExitCode.USAGE
    assert main(["report", "--since", "x", "--into", "a.md", "--check"]) == ExitCode.USAGE
    assert main(["report", "--since", "nothing"]) == ExitCode.USAGE
