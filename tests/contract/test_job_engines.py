"""The suite `jobs` with small engines of a user: one that works, one that never begins a job, and one that exits."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from harness.audit.target_loading import reference_target
from harness.checks.execution import run_check
from harness.checks.judges import jobs as judged
from harness.checks.registry import Check, Control
from harness.checks.workspace import Workspace
from harness.database import console
from harness.engine.owner import Owner, process_started
from harness.job_engines.loading import load
from harness.job_engines.target_file import Case
from harness.job_engines.workers import Supervisor
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies, wanted_by
from harness.model import Result, Status
from harness.redaction import Redactor
from harness.store import RunStore, new_run_id
from harness.suites.catalogue import catalogue
from harness.suites.jobs.rows import job_checks
from tests.contract.services import path_with_psql
from tests.unit.made_up import planned, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = [pytest.mark.engine, pytest.mark.long]

#: all but the work of a worker that does its jobs: psql starts in a tenth of the time of Python and psycopg
SCRIPT = r"""
set -e
sql() { psql --no-psqlrc --quiet --no-align --tuples-only --set ON_ERROR_STOP=1 "$@"; }
case $1-$VARIANT in
    install-broken)
        printf 'no schema %0120d %s %0300d\n' 0 "$DATABASE_URL" 0
        exit 1 ;;
    install-*)
        sql --command "CREATE TABLE my_jobs (key integer PRIMARY KEY, state text DEFAULT 'waiting')" ;;
    enqueue-*)
        sql --command "INSERT INTO my_jobs SELECT generate_series($2, $3)"
        sql --dbname "$EFFECTS_URL" --command "SELECT job_phase(key, 'enqueued') FROM generate_series($2, $3) AS key" ;;
    work-exits)  # it is started again and again
        echo "57P01: cannot connect to $DATABASE_URL"
        exit 1 ;;
    work-idles)
        trap '' TERM
        setsid sleep 600 &
        echo "$$ $!" >> "$PIDS"
        exec sleep 600 ;;
    work-works | work-leaves)
        exec PYTHON "${0%/*}/program.py" ;;
    *)
        if [ "$VARIANT" = loses ]; then sql --command 'DELETE FROM my_jobs WHERE key = 1'; fi
        keys=$(sql --command "SELECT string_agg(key::text, ', ') FROM my_jobs")
        sql --dbname "$EFFECTS_URL" --output /dev/null <<END
SELECT job_phase(key, 'begin', '$WORKER') FROM unnest(ARRAY[$keys]) AS key \watch $PAUSE_S
END
        ;;
esac
"""
PROGRAM = '''
"""Jobs in a table, each claimed in a transaction that ends with its effect."""

import time

import psycopg
from effects import DATABASE_URL, PAYLOAD, VARIANT, perform

connection = psycopg.connect(DATABASE_URL, autocommit=True)
if VARIANT == "leaves":
    connection.execute("LISTEN my_jobs; PREPARE left_here AS SELECT 1")
while True:
    with connection.transaction():
        claimed = connection.execute("SELECT key FROM my_jobs WHERE state = 'waiting' LIMIT 1 FOR UPDATE SKIP LOCKED")
        for (key,) in claimed.fetchall():
            perform(key, payload=PAYLOAD)
            connection.execute("UPDATE my_jobs SET state = 'done' WHERE key = %s", [key])
    time.sleep(0.05)
'''
TARGET = """
title = "My jobs"
summary = "a table"
documentation = "https://example.test/"
version = "1"
[commands]
install = ["sh", "{folder}/program.sh", "install"]
enqueue = ["sh", "{folder}/program.sh", "enqueue", "{first}", "{last}"]
work = ["sh", "{folder}/program.sh", "work"]
[sql]
state = "SELECT key, state FROM my_jobs"
[settings]
backoff_s = 1
poll_s = 0.1
[variants.works]
summary = "works"
[variants.idles]
summary = "begins no job, ignores SIGTERM, and has a child process in a session of its own"
environment = { PIDS = "PIDS_FILE" }
[variants.repeats]
summary = "begins its jobs for ever"
environment = { PAUSE_S = "0.8" }
[variants.spins]
summary = "begins its jobs for ever, more often than any engine"
environment = { PAUSE_S = "0.02" }
[variants.loses]
summary = "deletes a job, and begins the others for ever"
environment = { PAUSE_S = "0.8" }
[variants.broken]
summary = "cannot create its schema"
[variants.leaves]
summary = "leaves a channel and a prepared statement on its server connection"
[variants.exits]
summary = "exits at once, and prints its address"
"""


class Stage:
    """A lab with a pool of sessions, a run that keeps evidence, and the checks of an engine."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.pids = folder / "pids"
        (folder / "program.sh").write_text(SCRIPT.replace("PYTHON", sys.executable))
        (folder / "program.py").write_text(PROGRAM)
        (folder / "my-jobs.toml").write_text(TARGET.replace("PIDS_FILE", str(self.pids)))
        declared = list(job_checks([load(folder / "my-jobs.toml")]))
        self.checks = {one.id: one for one in declared if isinstance(one, Check)}
        self.controls = {(one.check, one.name): one for one in declared if isinstance(one, Control)}
        redact, topology = Redactor(), load_topologies()["session"]
        engine.prepare(wanted_by(topology), lambda _: None)
        self.lab = stand_up(engine, topology, Owner.me(new_run_id()), redact)
        self.store = RunStore(folder / "reports", record(new_run_id()), redact)
        self.workspace = Workspace(self.lab, reference_target(), catalogue().fixtures, store=self.store)

    def run(self, variant: str, control: str = "", case: Case = Case.WORKS) -> Result:
        """Run a case of a variant."""
        check = self.checks[f"jobs.my-jobs-{variant}-{case}"]
        broken = self.controls[check.id, control] if control else None
        return run_check(
            check, planned(self.lab.topology.name, check.id), self.lab.topology, self.workspace, control=broken
        )

    def evidence(self, result: Result) -> str:
        """Return all that is kept of a result."""
        kept = [path.read_text() for path in self.store.folder.rglob("*works*") if path.is_file()]
        return "\n".join([msgspec.json.encode(result).decode(), *kept])

    def close(self) -> None:
        self.workspace.close()
        self.store.close()
        self.lab.close()


@pytest.fixture(scope="module")
def stage(some_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path_with_psql(some_engine))
        with closing(Stage(some_engine, tmp_path_factory.mktemp("jobs"))) as made:
            yield made


@pytest.fixture
def few_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.job_engines.workers.RESTART_PAUSE_S", 0.0)
    monkeypatch.setattr("harness.job_engines.workers.MOST_RESTARTS", 2)


def broken(result: Result) -> set[str]:
    return {found.name for found in result.expectations if found.broken}


def test_an_engine_of_a_user_works(stage: Stage) -> None:
    result = stage.run("works")
    assert (result.status, result.facts.get("outcome")) == (Status.OK, "works"), result.reason


def test_in_session_mode_a_worker_leaves_what_the_reset_query_does_not_remove(stage: Stage) -> None:
    result = stage.run("leaves", case=Case.LEAVES_NOTHING)
    assert (result.status, broken(result)) == (Status.OK, set()), result.reason
    endpoint = stage.lab.console()
    assert endpoint
    [default] = [row["value"] for row in console(endpoint, "SHOW CONFIG") if row["key"] == "server_reset_query"]
    assert default == "DISCARD ALL"
    console(endpoint, "SET server_reset_query = ''")
    try:
        result = stage.run("leaves", case=Case.LEAVES_NOTHING)
    finally:
        console(endpoint, f"SET server_reset_query = '{default}'")
    assert (result.status, broken(result)) == (Status.ISSUE, {judged.STATEMENTS, judged.CHANNELS}), result.reason


def test_a_schema_that_cannot_be_created_at_all_is_not_run(stage: Stage) -> None:
    result = stage.run("broken")
    assert result.status is Status.NOT_RUN
    assert "the schema cannot be created on a direct connection either: no schema" in result.reason
    # the output is cut, and a part of a secret would not be recognised
    password, kept = stage.lab.direct("postgres").password, stage.evidence(result)
    assert not any(password[at : at + 6] in kept for at in range(len(password) - 5))


def test_a_job_that_is_done_twice_is_an_issue_and_no_folder_is_left(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = stage.run("works", "a-job-is-done-twice")
    assert (result.status, broken(result)) == (Status.ISSUE, {judged.TWICE})
    assert result.facts["outcome"] == "twice 1"
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_never_begins_a_job_is_an_issue_and_leaves_no_process(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.suites.jobs.running.STARTS_S", 3.0)
    monkeypatch.setattr("harness.suites.jobs.cases.SETTLES_S", 0.5)  # nothing was done that an engine could record
    monkeypatch.setattr(Supervisor.close, "__defaults__", (0.5,))
    result = stage.run("idles")
    assert (result.status, broken(result)) == (Status.ISSUE, {judged.STUCK})
    pids = [int(pid) for pid in stage.pids.read_text().split()]
    assert len(pids) >= 2
    assert [pid for pid in pids if process_started(pid) is not None] == []


def test_a_job_that_begins_for_ever_is_stuck(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.suites.jobs.running._MARGIN_S", 0.0)
    monkeypatch.setattr("harness.suites.jobs.cases.SETTLES_S", 0.5)
    result = stage.run("spins")
    assert (result.status, broken(result)) == (Status.ISSUE, {judged.STUCK}), result.reason


@pytest.mark.parametrize(
    ("variant", "status", "expected"),
    [("repeats", Status.NOT_RUN, set()), ("loses", Status.ISSUE, {judged.LOST})],
)
def test_of_jobs_that_are_still_being_done_only_a_lost_one_is_an_issue(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, variant: str, status: Status, expected: set[str]
) -> None:
    monkeypatch.setattr("harness.suites.jobs.running._LONGEST_WAIT_S", 3.0)
    result = stage.run(variant)
    assert (result.status, broken(result)) == (status, expected), result.reason
    assert "outcome" not in result.facts or result.facts["outcome"] == "lost 1"
    if status is Status.NOT_RUN:
        assert result.reason.startswith("jobs were still being done after 3 s")


@pytest.mark.usefixtures("few_restarts")
def test_a_worker_that_exits_at_once_is_an_issue_without_its_secrets(stage: Stage) -> None:
    result = stage.run("exits")
    assert result.status is Status.ISSUE
    assert result.facts["outcome"].startswith("crash loop (57P01), stuck")
    assert "cannot connect to" in result.facts["last line of the last exit"]
    password = stage.lab.direct("postgres").password
    assert password
    assert password not in stage.evidence(result)
