"""Commands behind a topology: they get the address of the chain, and their output and result are evidence."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from harness.model import Status
from harness.store import StoredRun, read_run
from harness.waiting import NotYet, poll
from tests.contract.command_line import command, ended, environment, harness

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

#: a test suite that creates a table and uses it, through the chain and past the pooler
SUITE = """
import os, sys, psycopg
with psycopg.connect(os.environ["DATABASE_URL"], prepare_threshold=None) as chain:
    chain.execute("CREATE TABLE mine (id int)")
with psycopg.connect(os.environ["DIRECT_URL"]) as direct:
    direct.execute("INSERT INTO mine VALUES (1)")
with psycopg.connect(host=os.environ["PGHOST"], port=os.environ["DB_PORT"], user=os.environ["PGUSER"],
                     password=os.environ["DB_PASSWORD"], dbname=os.environ["PGDATABASE"]) as again:
    print("rows", again.execute("SELECT count(*) FROM mine").fetchone()[0], os.environ["POOL_MODE"])
print("the password is", os.environ["PGPASSWORD"])
open("results.xml", "w").write('<testsuite><testcase classname="A" name="b"/></testsuite>')
"""


USES_IT = "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL']).execute('SELECT 1').connection.close()"


def last(reports: Path) -> StoredRun:
    return read_run(reports / "runs" / "latest")


def test_a_command_gets_the_chain_and_its_result_is_evidence(any_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "suite.py").write_text(SUITE)
    done = harness(
        tmp_path,
        *("exec", "transaction", "--engine", any_engine.name, "--reports", str(tmp_path / "reports")),
        *("--", sys.executable, "suite.py"),
    )
    assert done.returncode == 0, done.stderr
    assert "rows 1 transaction" in done.stdout
    run = last(tmp_path / "reports")
    [result] = run.answers()
    assert result.status is Status.OK
    assert result.facts["tests"] == "1"  # found in a common location
    assert result.reproduce.startswith("python -m harness exec transaction --name ")
    log = next((run.folder / "logs" / "transaction").glob("command-*.log")).read_text()
    assert "rows 1" in log
    assert "the password is [redacted]" in log
    assert "the password is [redacted]" in done.stdout


def test_a_command_that_bypasses_the_pooler_does_not_pass(any_engine: Engine, tmp_path: Path) -> None:
    program = USES_IT.replace("DATABASE_URL", "DIRECT_URL")
    done = harness(
        tmp_path,
        *("exec", "transaction", "--engine", any_engine.name, "--reports", str(tmp_path / "reports")),
        *("--", sys.executable, "-c", program),
    )
    assert done.returncode == 1, done.stderr
    assert "the command came through the pooler: expected true" in last(tmp_path / "reports").answers()[0].reason


@pytest.mark.parametrize(
    ("program", "code", "reason"),
    [
        ("raise SystemExit(3)", 1, "exit code: expected 0, observed 3"),
        (f"{USES_IT}; open('r.xml','w').write('<testsuite/>')", 1, "verdict of the test results"),
        (USES_IT, 1, "JUnit XML was written"),
        ("open('r.xml','w').write('<testsuite><testcase/></testsuite>')", 1, "the command used the given database"),
    ],
)
def test_a_command_that_proves_nothing_is_an_issue(
    any_engine: Engine, tmp_path: Path, program: str, code: int, reason: str
) -> None:
    done = harness(
        tmp_path,
        *("exec", "direct", "--engine", any_engine.name, "--reports", str(tmp_path / "reports")),
        *("--junit", "*.xml", "--", sys.executable, "-c", program),
    )
    assert done.returncode == code, done.stderr
    assert reason in last(tmp_path / "reports").answers()[0].reason


def test_an_unknown_command_is_reported(any_engine: Engine, tmp_path: Path) -> None:
    done = harness(
        tmp_path,
        *("exec", "direct", "--engine", any_engine.name, "--reports", str(tmp_path / "reports")),
        *("--", "no-such-command"),
    )
    assert done.returncode == 3
    assert "command 'no-such-command' not found" in done.stderr
    assert "Traceback" not in done.stderr


def test_declared_commands_are_proven_with_an_unreachable_server(any_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text(
        f"""
[[commands]]
name = "uses-it"
title = "a suite that uses the database passes"
command = ["{sys.executable}", "-c", "{USES_IT}"]
[[commands]]
name = "uses-nothing"
title = "a suite that needs no database passes"
command = ["{sys.executable}", "-c", "pass"]
"""
    )
    done = harness(
        tmp_path,
        *(
            "prove",
            "session",
            "--suite",
            "command",
            "--engine",
            any_engine.name,
            "--reports",
            str(tmp_path / "reports"),
        ),
    )
    assert done.returncode == 1
    assert "proven=2 unproven=2" in done.stdout
    assert "UNPROVEN session: command.uses-nothing" in done.stdout
    assert "the command used the given database: expected true, observed false" in done.stderr
    assert "a suite that uses the database passes, on session" in (tmp_path / "reports" / "report.md").read_text()


def test_an_interrupt_ends_the_command(engine: Engine, tmp_path: Path) -> None:
    import subprocess

    marker = tmp_path / "pid"
    program = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    process = subprocess.Popen(
        command(
            *("exec", "direct", "--engine", engine.name, "--reports", str(tmp_path / "reports")),
            *("--", sys.executable, "-c", program),
        ),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def started() -> int:
        if not marker.exists() or not marker.read_text():
            raise NotYet("the command has not started")
        return int(marker.read_text())

    pid = poll(started, what="the command", deadline_s=60)
    process.send_signal(signal.SIGINT)
    out = ended(process).stdout
    assert process.returncode == 130, out
    assert "a running command gets SIGTERM, and SIGKILL after 5 s" in out

    def gone() -> None:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        raise NotYet("the command still runs")

    poll(gone, what="the command to end", deadline_s=10)
    [result] = last(tmp_path / "reports").answers()
    assert result.status is Status.NOT_RUN
    assert result.reason == "the run was interrupted before this check finished"
    assert (tmp_path / "reports" / "report.md").exists()
