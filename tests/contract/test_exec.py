"""Commands behind a topology: they get the address of the chain, and their output and result are evidence."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harness.model import Status
from harness.store import StoredRun, read_run
from harness.suites import commands as commands_suite
from harness.waiting import NotYet, poll
from tests.contract.command_line import command, ended, environment, harness_here
from tests.contract.services import path_with_psql

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

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
    try:
        again.execute("CREATE ROLE another")
    except psycopg.errors.InsufficientPrivilege as error:
        print(error)
print("the password is", os.environ["PGPASSWORD"])
open("results.xml", "w").write('<testsuite><testcase classname="A" name="b"/></testsuite>')
"""


USES_IT = "psql --no-psqlrc \"$DATABASE_URL\" --command 'SELECT 1'"


SUITE_SQL = ("psql", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--file", "suite.sql")


def last(reports: Path) -> StoredRun:
    return read_run(reports / "runs" / "latest")


def test_a_command_gets_the_chain_and_its_result_is_evidence(any_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "suite.py").write_text(SUITE)
    done = harness_here(
        tmp_path,
        *("exec", "transaction", "--role", "owner", "--engine", any_engine.name),
        *("--reports", str(tmp_path / "reports"), "--", sys.executable, "suite.py"),
    )
    assert done.returncode == 0, done.stderr
    assert "rows 1 transaction\npermission denied to create role" in done.stdout
    run = last(tmp_path / "reports")
    [result] = run.answers()
    assert result.status is Status.OK
    assert result.facts["tests"] == "1"  # found in a common location
    assert result.facts["role"].startswith("owner: ")
    assert result.reproduce.startswith("python -m harness exec transaction --name ")
    [kept] = (run.folder / "artifacts" / "transaction").glob("command.*/results.xml")
    assert 'classname="A"' in kept.read_text()
    log = next((run.folder / "logs" / "transaction").glob("command-*.log")).read_text()
    assert "rows 1" in log
    assert "the password is [redacted]" in log
    assert "the password is [redacted]" in done.stdout


#: program, status, and what the reason says, by the name of a command
PROVE_NOTHING = {
    "fails": ("exit 3", Status.ISSUE, "exit code: expected 0, observed 3"),
    "has-no-test": (f"{USES_IT}; echo '<testsuite/>' > has-no-test.xml", Status.NOT_RUN, "the file contains no test"),
    "writes-nothing": (USES_IT, Status.ISSUE, "JUnit XML was written"),
    "needs-no-server": (
        "echo '<testsuite><testcase/></testsuite>' > needs-no-server.xml",
        Status.ISSUE,
        "the command logged in to the given server",
    ),
    "has-a-failed-test": (
        "echo '<testsuite><testcase name=\"a\"><failure/></testcase></testsuite>' > has-a-failed-test.xml; exit 1",
        Status.ISSUE,
        'tests that failed: expected [], observed ["a"]',
    ),
    "passes-on-a-retry": (
        f"{USES_IT}; echo '<testsuite><testcase name=\"a\"><flakyError/></testcase></testsuite>' > passes-on-a-retry.xml",
        Status.ISSUE,
        'tests that passed only on a retry: expected [], observed ["a"]',
    ),
}


def declared(name: str, *command: str, **keys: object) -> str:
    """Return the declaration of a command in harness.toml."""
    lines = {"name": name, "title": f"{name} passes", "command": list(command), **keys}
    return "[[commands]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())


def verify(engine: Engine, folder: Path, commands: list[str], *topologies: str) -> CompletedProcess[str]:
    """Declare commands in harness.toml, and run them."""
    (folder / "harness.toml").write_text("\n".join(commands))
    arguments = ("--suite", "command", "--engine", engine.name)
    return harness_here(folder, "verify", *topologies, *arguments, PATH=path_with_psql(engine))


def test_a_command_that_proves_nothing_is_no_evidence(
    any_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_suite, "_LOG_S", 1.0)  # a login is in the log when its command ends
    commands = [
        declared(name, "sh", "-c", program, junit=[f"{name}.xml"]) for name, (program, _, _) in PROVE_NOTHING.items()
    ]
    done = verify(any_engine, tmp_path, commands, "direct")
    assert done.returncode == 1, done.stderr
    results = {result.check: result for result in last(tmp_path / "reports").answers()}
    for name, (_, status, reason) in PROVE_NOTHING.items():
        result = results[f"command.{name}"]
        assert (result.status, reason in result.reason) == (status, True), result


#: with the name of a file, it also writes a failed test there, and what follows the name
EXTENSION = """
said=$(psql --no-psqlrc "$DATABASE_URL" --command 'CREATE EXTENSION pg_stat_statements' 2>&1) && exit
echo "$said" >&2
failed="<testcase name='a'><failure message='$(echo "$said" | head -n 1 | tr -d '"')'/></testcase>"
test -z "$1" || echo "<testsuite>$failed$2</testsuite>" > "$1"
exit 1
"""
OTHER_FAILURE = '<testcase name="b"><failure>other rows</failure></testcase>'
#: words of the command, keys of its declaration, status, and what the reason says
SUPERUSER: dict[str, tuple[tuple[str, ...], dict[str, Any], Status, str]] = {
    "chosen": ((), {}, Status.NOT_RUN, 'declare the role of your test suite (--role with exec): role = "superuser"'),
    "declared": ((), {"role": "createdb"}, Status.ISSUE, "exit code: expected 0, observed 1"),
    "granted": ((), {"role": "superuser"}, Status.OK, ""),
    "one-test": (("one.xml",), {"junit": ["one.xml"]}, Status.NOT_RUN, "permission denied to create extension"),
    "another-test": (("two.xml", OTHER_FAILURE), {"junit": ["two.xml"]}, Status.ISSUE, 'observed ["a","b"]'),
}


def test_a_right_that_a_chosen_login_lacks_is_no_issue(
    any_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_suite, "_LOG_S", 1.0)  # a login is in the log when its command ends
    commands = [
        declared(name, "sh", "-c", EXTENSION, "sh", *words, **keys) for name, (words, keys, _, _) in SUPERUSER.items()
    ]
    done = verify(any_engine, tmp_path, commands, "direct")
    assert done.returncode == 1, done.stderr
    results = {result.check: result for result in last(tmp_path / "reports").answers()}
    for name, (_, _, status, reason) in SUPERUSER.items():
        result = results[f"command.{name}"]
        assert (result.status, reason in result.reason) == (status, True), result


#: a suite that does what a CI's own database user may: a database, a role that logs in to it, a trusted extension
CREATES = r"""
CREATE DATABASE shop_test;
CREATE ROLE shop LOGIN PASSWORD 'a secret of the suite';
GRANT ALL ON DATABASE shop_test TO shop;
CREATE EXTENSION citext;
\connect -reuse-previous=on "dbname=shop_test user=shop password='a secret of the suite'"
SELECT current_user;
"""


def test_a_command_may_do_what_its_role_says_through_the_pooler_and_finds_nothing_of_others(
    any_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same suite four times in each topology: what one leaves behind would break the next."""
    monkeypatch.setattr(commands_suite, "_LOG_S", 1.0)  # a login is in the log when its command ends
    (tmp_path / "suite.sql").write_text(CREATES)
    roles = ("app", "owner", "createdb", "superuser")
    commands = [declared(f"as-{role}", *SUITE_SQL, role=role) for role in roles]
    # a command that uses another database of the chain
    commands.append(declared("elsewhere", "psql", "--no-psqlrc", "--dbname", "postgres", "--command", "SELECT 1"))
    commands.append(declared("past-the-pooler", "sh", "-c", USES_IT.replace("DATABASE_URL", "DIRECT_URL")))
    done = verify(any_engine, tmp_path, commands, "direct", "transaction")
    assert done.returncode == 1, done.stderr
    results = {(result.target, result.check): result for result in last(tmp_path / "reports").answers()}
    for topology in ("direct", "transaction"):
        assert results[topology, "command.elsewhere"].status is Status.OK
        for role in roles:
            result = results[topology, f"command.as-{role}"]
            assert result.status is (Status.OK if role in {"createdb", "superuser"} else Status.ISSUE), result
            assert result.facts["role"].startswith(f"{role}: ")
    past = results["transaction", "command.past-the-pooler"]
    assert past.status is Status.ISSUE
    assert "the command came through the pooler: expected true" in past.reason


def test_a_command_that_the_harness_ended_is_not_run(any_engine: Engine, tmp_path: Path) -> None:
    done = harness_here(
        tmp_path,
        *("exec", "direct", "--deadline", "1", "--engine", any_engine.name, "--reports", str(tmp_path / "reports")),
        *("--", "sleep", "600"),
    )
    assert done.returncode == 3, done.stderr
    [result] = last(tmp_path / "reports").answers()
    assert (result.status, result.reason) == (Status.NOT_RUN, "the command did not end within 1 s, so SIGTERM ended it")


def test_a_commit_makes_the_evidence_outdated(any_engine: Engine, tmp_path: Path) -> None:
    import subprocess

    def commit() -> None:
        git = ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.org"]
        subprocess.run([*git, "add", "--all"], cwd=tmp_path, check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "a change"], cwd=tmp_path, check=True)

    topologies = tmp_path / "topologies"
    topologies.mkdir()
    (topologies / "direct.toml").write_text('summary = "one row"\nverify = ["command"]\n[postgres]\nversion = "17"\n')
    (tmp_path / "harness.toml").write_text(
        'topologies = "topologies"\n[[commands]]\nname = "mine"\ntitle = "mine passes"\n'
        'command = ["sh", "suite.sh"]\n'
    )
    (tmp_path / "suite.sh").write_text(f"{USES_IT}\necho '<testsuite><testcase/></testsuite>' > results.xml")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    commit()
    done = harness_here(
        tmp_path, "verify", "direct", "--engine", any_engine.name, PATH=path_with_psql(any_engine)
    )
    assert done.returncode == 0, done.stderr
    done = harness_here(tmp_path, "report", "--complete", "--engine", any_engine.name)
    assert "direct: the evidence for this code is complete" in done.stderr
    (tmp_path / "suite.sh").write_text("if broken")
    commit()
    for source in ((), ("--from", str(tmp_path / "reports" / "runs"))):
        done = harness_here(tmp_path, "report", *source)
        assert "what it tested has changed: commit " in done.stderr
        assert "ok=0" in done.stdout
    done = harness_here(tmp_path, "report", "--complete", "--engine", any_engine.name)
    assert "complete" not in done.stderr
    assert done.returncode == 1, done.stderr


def test_an_unknown_command_is_reported(any_engine: Engine, tmp_path: Path) -> None:
    done = harness_here(
        tmp_path,
        *("exec", "direct", "--engine", any_engine.name, "--reports", str(tmp_path / "reports")),
        *("--", "no-such-command"),
    )
    assert done.returncode == 3
    assert "command 'no-such-command' not found" in done.stderr
    assert "Traceback" not in done.stderr


def test_declared_commands_are_proven_with_an_unreachable_server(
    any_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_suite, "_LOG_S", 1.0)  # a login is in the log when its command ends
    commands = [declared("uses-it", "sh", "-c", USES_IT), declared("uses-nothing", "true")]
    (tmp_path / "harness.toml").write_text("\n".join(commands))
    done = harness_here(
        tmp_path,
        *("prove", "session", "--suite", "command", "--engine", any_engine.name),
        *("--reports", str(tmp_path / "reports")),
        PATH=path_with_psql(any_engine),
    )
    assert done.returncode == 1
    assert "proven=2 unproven=2" in done.stdout
    assert "UNPROVEN session: command.uses-nothing" in done.stdout
    assert "the command logged in to the given server: expected true, observed false" in done.stderr
    assert "uses-it passes, on session" in (tmp_path / "reports" / "parity.md").read_text()


def test_an_interrupt_ends_the_command(any_engine: Engine, tmp_path: Path) -> None:
    import subprocess

    marker = tmp_path / "pid"
    program = f"echo $$ > {shlex.quote(str(marker))}; exec sleep 600"
    process = subprocess.Popen(
        command(
            *("exec", "direct", "--engine", any_engine.name, "--reports", str(tmp_path / "reports")),
            *("--", "sh", "-c", program),
        ),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def started() -> int:
        if not marker.exists() or not marker.read_text().endswith("\n"):
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
