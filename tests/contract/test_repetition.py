"""`--repeat N` through the command line: every verdict is kept, also when the run is killed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest

from harness.model import Repetition, Status
from harness.store import Integrity, StoredRun, Verdict, kept_runs, read_run
from harness.suites import commands as commands_suite
from harness.waiting import NotYet, poll
from tests.contract.command_line import command, environment, harness_here
from tests.contract.services import path_with_psql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

#: fails in its second attempt only; its folder is the subject, so the number of attempts is outside of it
FLAKY = """
echo again >> ../attempts
psql --no-psqlrc "$DATABASE_URL" --command '\\echo database :DBNAME'
test "$(wc --lines < ../attempts)" -ne 2
"""


@pytest.fixture
def engine_name(any_engine: Engine) -> str:
    return any_engine.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def killed(engine_name: str, folder: Path) -> Iterator[StoredRun]:
    """A run that was killed after its first round; what is left of it is removed."""
    arguments = ("verify", "direct", "--check", "capture.insert", "--repeat", "10000", "--engine", engine_name)
    process = subprocess.Popen(
        command(*arguments), cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def second_round() -> None:
        runs, _ = kept_runs(folder / "reports")
        if not runs or len(runs[-1].results) < 2:
            raise NotYet("no second attempt yet")

    try:
        poll(second_round, what="the second attempt", deadline_s=60)
    finally:
        process.kill()
        process.wait()
    yield read_run(folder / "reports" / "runs" / "latest")
    assert harness_here(folder, "reap").returncode == 0


def test_every_verdict_is_kept(engine_name: str, folder: Path) -> None:
    checks = ("--check", "capture.insert", "--check", "capture.update")
    done = harness_here(folder, "verify", "direct", *checks, "--repeat", "3", "--engine", engine_name)
    assert done.returncode == 0, done.stderr
    run = read_run(folder / "reports" / "runs" / "latest")
    assert run.integrity == Integrity(verdict=Verdict.WHOLE)
    assert [result.attempt for result in run.results] == [1, 1, 2, 2, 3, 3]  # spread over the run
    assert {result.status for result in run.results} == {Status.OK}
    assert [result.repetition for result in run.answers()] == [Repetition(ok=3)] * 2
    assert "attempts: 6 of 2 rows, 0 flaky; a row without an Issue has a failure rate below 63.2 %" in done.stderr


def test_a_command_that_fails_once_is_flaky_and_its_failed_attempt_is_shown(any_engine: Engine, folder: Path) -> None:
    (folder / "flaky.sh").write_text(FLAKY)
    options = ("--name", "flaky", "--repeat", "3", "--engine", any_engine.name)
    done = harness_here(folder, "exec", "direct", *options, "--", "sh", "flaky.sh", PATH=path_with_psql(any_engine))
    assert done.returncode == 1, done.stderr
    assert "1 flaky (command.flaky on direct)" in done.stderr
    databases = [line for line in done.stdout.splitlines() if line.startswith("database ")]
    assert len(set(databases)) == len(databases) == 3
    run = read_run(folder / "reports" / "runs" / "latest")
    (found,) = run.answers()
    assert (found.status, found.attempt, found.repetition) == (Status.ISSUE, 2, Repetition(ok=2, issue=1))
    logs = run.folder / "logs" / "direct"
    names = ("command-flaky.log", "command-flaky.attempt-2.log", "command-flaky.attempt-3.log")
    assert [database in (logs / name).read_text() for name, database in zip(names, databases, strict=True)] == [
        True
    ] * 3
    assert "logs/direct/command-flaky.attempt-2.log" in (folder / "reports" / "parity.md").read_text()
    report = msgspec.json.decode((folder / "reports" / "report.json").read_bytes())
    assert report["rows"]["direct"]["command.flaky"]["repetition"] == {"ok": 2, "issue": 1}


def test_a_killed_run_keeps_the_attempts_that_ended(killed: StoredRun) -> None:
    assert killed.integrity == Integrity(verdict=Verdict.UNFINISHED)
    (found,) = killed.answers()
    ended = len(killed.results)
    assert [result.attempt for result in killed.results] == list(range(1, ended + 1))
    assert found.repetition == Repetition(ok=ended, not_run=10_000 - ended)
    assert found.status is Status.NOT_RUN
    assert found.reason.startswith(f"of 10000 attempts {10_000 - ended} Not run, {ended} OK: ")


def test_an_issue_in_quarantine_does_not_fail_the_run(
    engine_name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_suite, "_LOG_S", 0.0)  # the command does not log in
    (folder / "harness.toml").write_text(
        """
[[commands]]
name = "suite"
title = "it passes"
command = ["false"]

[[quarantine]]
check = "command.suite"
link = "https://example.org/issues/1"
owner = "ada"
expires = "2099-01-01"
"""
    )
    arguments = ("verify", "direct", "--check", "command.suite", "--strict", "--engine", engine_name)
    done = harness_here(folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert "issue=1 (1 quarantined)" in done.stdout
    assert "Quarantined Issue (https://example.org/issues/1) P0 command.suite on direct" in done.stderr
    path = folder / "harness.toml"
    path.write_text(path.read_text().replace("2099", "2020"))
    done = harness_here(folder, *arguments)
    assert done.returncode == 1, done.stdout
    assert "the quarantine of command.suite expired on 2020-01-01, so it decides the exit code again" in done.stderr
