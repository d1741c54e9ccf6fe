"""Whole runs through the command line: exit codes, interruption, crashes, leftovers, secrets."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from itertools import count
from threading import Thread
from typing import TYPE_CHECKING

import msgspec
import pytest

from harness import places
from harness.lab.topologies import load_topologies
from harness.model import NOT_BEGUN, EndedBy, Status
from harness.store import Integrity, StoredRun, Verdict, history_files, kept_runs, read_history, read_run
from harness.suites.catalogue import catalogue
from harness.waiting import NotYet, poll
from tests.conftest import ENGINES, require_engine
from tests.contract.command_line import command, ended, environment, harness, harness_here
from tests.contract.services import leftovers, path_with_psql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

#: a topology in which every capture check fails, because triggers do not fire
BROKEN = """
summary = "triggers are switched off"
[postgres]
version = "17"
[postgres.settings]
session_replication_role = "replica"
"""


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    require_engine(request.param)
    name: str = request.param
    return name


@pytest.fixture
def any_name(any_engine: Engine) -> str:
    return any_engine.name


@pytest.fixture
def running(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test starts; they are killed at its end, also after a failure."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(
    running: list[subprocess.Popen[str]], folder: Path, *arguments: str, **extra: str
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.append(process)
    return process


def wait_for_run(folder: Path) -> StoredRun:
    """Wait until a run has started; its servers start next."""

    def probe() -> StoredRun:
        runs, _ = kept_runs(folder / "reports")
        if not runs:
            raise NotYet("no run yet")
        return runs[-1]

    return poll(probe, what="the run to start", deadline_s=60, interval_s=0.002)


def wait_for_results(folder: Path, reports: Path | None = None) -> StoredRun:
    """Wait until a run has stored its first results."""

    def probe() -> StoredRun:
        runs, _ = kept_runs(reports or folder / "reports")
        if not runs or not runs[-1].results:
            raise NotYet("no result yet")
        return runs[-1]

    return poll(probe, what="the first results", deadline_s=60)


def wait_for_file(path: Path) -> None:
    def probe() -> None:
        if not path.exists():
            raise NotYet("no such file yet")

    poll(probe, what=str(path), deadline_s=60)


def test_a_run_without_issues_exits_0_and_leaves_only_its_evidence(engine_name: str, tmp_path: Path) -> None:
    done = harness_here(
        tmp_path,
        "verify",
        "transaction",
        "--check",
        "capture.insert",
        "--check",
        "actor.moved-connection",
        "--engine",
        engine_name,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"transaction  checks:   ok=2 issue=0 na=0 not_run=0  elapsed=\d+\.\ds\n", done.stdout)
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    assert run.record.state == "finished"
    assert run.integrity == Integrity(verdict=Verdict.WHOLE)
    assert run.record.engine == engine_name
    moved = next(result for result in run.results if result.check == "actor.moved-connection")
    assert moved.probes
    assert moved.probes[0].first_pid != moved.probes[0].second_pid
    for service in ("postgres", "pooler"):
        assert (run.folder / "logs" / "transaction" / f"{service}.log").read_text()
    assert leftovers(engine_name, run.record.run_id) == []


def test_an_issue_exits_1_and_prints_how_to_reproduce_it(any_name: str, tmp_path: Path) -> None:
    folder = tmp_path / "topologies"
    folder.mkdir()
    (folder / "off.toml").write_text(BROKEN)
    arguments = ("verify", "--check", "capture.insert", "--engine", any_name, "--topologies-folder", str(folder))
    done = harness_here(tmp_path, *arguments)
    assert done.returncode == 1
    assert "issue=1" in done.stdout
    assert f"reproduce: python -m harness verify off --check capture.insert --topologies-folder {folder}" in done.stderr
    assert "AP-1.insert.off" in (tmp_path / "reports" / "issues.md").read_text()

    (tmp_path / "harness.toml").write_text(
        '[[known_issues]]\ncheck = "capture.insert"\nlink = "https://example.org/1"\nowner = "ada"\nexpires = "2999-01-01"\n'
    )
    done = harness_here(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "issue=1 (1 known)" in done.stdout


def test_a_control_turns_its_check_and_the_run_is_not_evidence(any_name: str, tmp_path: Path) -> None:
    arguments = ("verify", "direct", "--check", "capture.insert", "--engine", any_name)
    done = harness_here(tmp_path, *arguments, "--under", "insert-trigger-disabled")
    assert done.returncode == 0, done.stderr
    assert "the control turned the check to Issue at 'rows captured'" in done.stdout
    assert re.search(r"broken +rows captured +expected 1, observed 0 +\(named by the control\)", done.stdout)
    run = read_run(tmp_path / "reports" / "under" / "runs" / "latest")
    assert run.record.under == "insert-trigger-disabled"
    assert run.answers()[0].reproduce.startswith(
        "python -m harness verify direct --check capture.insert --under insert-trigger-disabled"
    )
    assert kept_runs(tmp_path / "reports") == ((), ())
    assert not (tmp_path / "reports" / "report.md").exists()


def test_a_topology_that_cannot_start_exits_3_and_its_rows_are_not_run(any_name: str, tmp_path: Path) -> None:
    folder = tmp_path / "topologies"
    folder.mkdir()
    shutil.copy(places.TOPOLOGIES / "direct.toml", folder)
    (folder / "dies.toml").write_text(BROKEN.replace("session_replication_role", "no_such_setting"))
    done = harness_here(
        tmp_path, "verify", "--check", "capture.insert", "--engine", any_name, "--topologies-folder", str(folder)
    )
    assert done.returncode == 3
    assert "no_such_setting" in done.stderr
    assert "Traceback" not in done.stderr
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    answers = {result.target: result for result in run.answers()}
    assert answers["direct"].status is Status.OK
    assert answers["dies"].status is Status.NOT_RUN
    assert "did not start" in answers["dies"].reason


#: more checks than end before a signal arrives
MANY = ("--suite", "capture", "--suite", "actor")


def assert_interrupted(folder: Path, engine_name: str) -> None:
    """The run of an interrupted process is valid, and nothing of it is left."""
    run = read_run(folder / "reports" / "runs" / "latest")
    assert run.record.state == "interrupted"
    assert run.integrity == Integrity(verdict=Verdict.WHOLE)
    assert len(run.results) == len(run.record.plan)  # every planned row has its result on disk
    statuses = {result.status for result in run.results}
    assert Status.NOT_RUN in statuses
    assert Status.ISSUE not in statuses
    assert leftovers(engine_name, run.record.run_id) == []


def test_a_signal_tears_down_and_leaves_a_valid_run(
    tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    require_engine("docker")
    process = start(running, tmp_path, "verify", "transaction", *MANY, "--engine", "docker")
    wait_for_results(tmp_path)
    process.send_signal(signal.SIGINT)
    err = ended(process).stderr
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert_interrupted(tmp_path, "docker")


def test_a_signal_ends_the_live_display_and_the_terminal_is_as_before(tmp_path: Path) -> None:
    """One handler serves all signals; this is the one on native servers."""
    require_engine("native")
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command("verify", "transaction", *MANY, "--engine", "native"),
        cwd=tmp_path,
        env=environment(TERM="xterm", COLUMNS="80", LINES="24"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    pieces: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # Linux reports the end of a pseudo-terminal as an error
            while piece := os.read(ours, 65536):
                pieces.append(piece)

    reader = Thread(target=read)
    reader.start()
    try:
        wait_for_results(tmp_path)
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    finally:
        process.kill()
        reader.join(60)
        os.close(ours)
    text = b"".join(pieces).decode()
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert "elapsed, " in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") > 0  # the cursor is hidden during the display only
    assert " elapsed, " not in text[text.rfind("\x1b[?25h") :]
    assert_interrupted(tmp_path, "native")


def test_a_signal_while_servers_start_leaves_nothing(
    engine_name: str, tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    process = start(running, tmp_path, "verify", "transaction", *MANY, "--engine", engine_name)
    run = wait_for_run(tmp_path)
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert process.returncode == 130, done.stderr
    assert leftovers(engine_name, run.record.run_id) == []
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    assert {(result.reason, result.ended_by) for result in run.results} == {(NOT_BEGUN, EndedBy.INTERRUPTION)}
    assert f"not_run={len(run.record.plan)} ({len(run.record.plan)} interrupted)" in done.stdout


#: a command whose servers must still be up after the other run is reaped
USES_ITS_SERVER_LATER = """
touch begun
until test -e reaped; do sleep 0.1; done
psql --no-psqlrc "$DATABASE_URL" --command 'SELECT 1'
"""


def test_a_killed_run_is_reaped_and_its_rows_are_not_run(
    any_engine: Engine, tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    """The contract of engines says what each of them reaps."""
    engine_name = any_engine.name
    process = start(running, tmp_path, "verify", "transaction", *MANY, "--engine", engine_name)
    (tmp_path / "other").mkdir()
    other = start(
        running,
        tmp_path / "other",
        *("exec", "direct", "--engine", engine_name, "--", "sh", "-c", USES_ITS_SERVER_LATER),
        PATH=path_with_psql(any_engine),
    )
    wait_for_file(tmp_path / "other" / "begun")
    wait_for_results(tmp_path)
    process.kill()
    process.communicate()
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    assert run.record.state == "running"
    assert run.integrity == Integrity(verdict=Verdict.UNFINISHED)
    assert len(run.answers()) == len(run.record.plan)
    assert "killed" in next(result.reason for result in run.answers() if result.status is Status.NOT_RUN)
    done = harness_here(tmp_path, "reap", "--engine", engine_name)
    assert done.returncode == 0, done.stderr
    assert leftovers(engine_name, run.record.run_id) == []
    # reap does not touch the other run, which is alive
    (tmp_path / "other" / "reaped").touch()
    err = ended(other).stderr
    assert other.returncode == 0, err


@pytest.mark.parametrize(("engine_name", "number"), [("docker", signal.SIGINT), ("native", signal.SIGKILL)])
def test_a_run_that_ends_while_its_servers_are_frozen_leaves_nothing(
    engine_name: str, tmp_path: Path, running: list[subprocess.Popen[str]], number: signal.Signals
) -> None:
    require_engine(engine_name)
    check = ("--check", "resilience.server-frozen", "--rounds", "100")
    process = start(running, tmp_path, "verify", "direct", "--engine", engine_name, *check)

    def is_frozen(run: StoredRun) -> bool:
        """Return whether the newest fault is injected, and its healing has not begun."""
        histories = history_files(run.folder)
        faults = read_history(histories[0]).faults if histories else ()
        return bool(faults) and faults[-1].injected_s is not None and faults[-1].heal_s is None

    def stopped_while_frozen() -> StoredRun:
        """Stop the harness, so that it cannot heal the fault before the signal arrives."""
        runs, _ = kept_runs(tmp_path / "reports")
        if not runs or not is_frozen(runs[-1]):
            raise NotYet("the servers run")
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        if is_frozen(runs[-1]):
            return runs[-1]
        process.send_signal(signal.SIGCONT)
        raise NotYet("the fault was healed before the harness stopped")

    run = poll(stopped_while_frozen, what="frozen servers", deadline_s=60)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    ended(process)
    if number is signal.SIGKILL:
        assert is_frozen(run)
        assert harness_here(tmp_path, "reap", "--engine", engine_name).returncode == 0
    assert leftovers(engine_name, run.record.run_id) == []


#: checks with few and with many connections
CONCURRENT = ("--check=capture.insert", "--check=actor.many-clients")


def test_two_concurrent_runs_do_not_affect_each_other(
    any_name: str, tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    arguments = ("verify", "transaction", *CONCURRENT, "--engine", any_name)
    other = start(running, tmp_path, *arguments)
    wait_for_run(tmp_path)
    here = harness_here(tmp_path, *arguments)
    for done in (here, ended(other)):
        assert done.returncode == 0, done.stderr
        assert "ok=2 issue=0 na=0 not_run=0" in done.stdout
    runs, _ = kept_runs(tmp_path / "reports")
    assert len({run.record.run_id for run in runs}) == 2
    assert {run.record.state for run in runs} == {"finished"}


def test_a_full_disk_ends_the_run_with_one_error_message(any_name: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(small)], check=True)

    def fill() -> None:
        """Fill the disk as soon as the first result is stored; the space is needed to start."""
        wait_for_results(tmp_path, small)
        with contextlib.suppress(OSError), (small / "others").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass

    filling = Thread(target=fill)
    try:
        filling.start()
        done = harness_here(
            tmp_path, "verify", "direct", "--suite", "redaction", "--engine", any_name, "--reports", str(small)
        )
        filling.join()
        assert done.returncode == 3, done.stderr
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
        runs, _ = kept_runs(small)
        assert [run for run in runs if run.results], "the disk was full before the first result"
        assert all(leftovers(any_name, run.record.run_id) == [] for run in runs)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_missing_engine_is_reported_in_one_message(tmp_path: Path) -> None:
    done = harness(tmp_path, "verify", "direct", "--engine", "docker", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 3
    assert "no Docker engine answers at unix:///nowhere/docker.sock" in done.stderr
    assert "--engine native" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unavailable_image_is_reported_in_one_message(tmp_path: Path) -> None:
    require_engine("docker")
    done = harness(tmp_path, "verify", "direct", "--engine", "docker", "--image", "postgres=127.0.0.1:1/nothing:1")
    assert done.returncode == 3
    assert "127.0.0.1:1/nothing:1 is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_planted_secrets_appear_neither_in_output_nor_in_evidence(
    any_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canaries are in a server setting, in an error that a server logs, and in every password of the run."""
    folder = tmp_path / "topologies"
    folder.mkdir()
    canary = "canary-5f2e9c"
    (folder / "leaky.toml").write_text(
        'summary = "logs every statement"\n[postgres]\nversion = "17"\n[postgres.settings]\n'
        f'log_statement = "all"\nlog_connections = "on"\ncluster_name = "password={canary}"\n'
        f'[pooler]\nproduct = "pgbouncer"\nversion = "1.24"\npool_mode = "transaction"\ndefault_pool_size = 4\n'
        '[pooler.settings]\nverbose = "2"\nlog_connections = "1"\n'
    )
    numbers = count()
    monkeypatch.setattr(
        "harness.lab.credentials.secrets.token_urlsafe", lambda _: f"{canary}-{str(next(numbers)) * 12}"
    )
    checks = ("--check=capture.insert", "--check=actor.invalid", "--check=actor.careless-startup-option")
    done = harness_here(tmp_path, "verify", "--engine", any_name, "--topologies-folder", str(folder), *checks)
    assert done.returncode == 0, done.stderr
    log = tmp_path / "reports" / "runs" / "latest" / "logs" / "leaky" / "postgres.log"
    assert "INSERT INTO public.posts" in log.read_text()  # the servers really logged the statements
    searched = [done.stdout, done.stderr]
    searched += [path.read_text(errors="replace") for path in (tmp_path / "reports").rglob("*") if path.is_file()]
    assert len(searched) > 10
    assert not [text for text in searched if canary in text]


def test_runs_of_several_jobs_merge(any_name: str, tmp_path: Path) -> None:
    arguments = ("--check", "redaction.insert", "--engine", any_name)
    for name in ("direct", "session"):
        done = harness_here(tmp_path, "verify", name, *arguments, "--reports", f"job-{name}")
        assert done.returncode == 0, done.stderr
    done = harness_here(tmp_path, "report", "--from", "job-direct", "job-session", "--strict")
    assert done.returncode == 4, done.stderr  # the transaction topology and the other checks have no results
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if "checks:" in line}
    assert lines.keys() == {"direct", "session"}
    direct = load_topologies()["direct"]
    owed = [check for check in catalogue().checks if not check.on_demand and direct.verifies(check.id)]
    assert f"what no run of this code was asked for: {len(owed) - 1} rows of direct" in done.stderr
    raw = msgspec.json.decode((tmp_path / "reports" / "report.json").read_bytes())
    assert {(row["environment"], row["matches_prod"]) for row in raw["topologies"]} == {
        ("direct", "partial"),
        ("session", "partial"),
    }


#: CI proves all checks in all topologies on Docker, and five suites natively
PROVEN = ("direct", "--check=export.csv", "--check=redaction.insert")


def test_every_control_turns_its_check_to_issue(any_name: str, tmp_path: Path) -> None:
    done = harness_here(tmp_path, "prove", *PROVEN, "--engine", any_name)
    assert done.returncode == 0, done.stdout + done.stderr
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    assert [proof for proof in run.proofs if proof.applicable and not proof.proven] == []
    proven = {(proof.topology, proof.check) for proof in run.proofs if proof.proven}
    applicable = {(result.target, result.check) for result in run.answers() if result.status is not Status.NA}
    assert proven == applicable
    assert run.trail_proofs, "breaks of the trail itself are tried, too"
    assert [proof for proof in run.trail_proofs if not (proof.exact and proof.caught)] == []
