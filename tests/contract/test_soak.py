"""The loads of the suite soak on real servers: judged at their end, also after Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness import places
from harness.model import Status
from harness.store import history_files, kept_runs, read_history
from harness.waiting import NotYet, poll
from tests.conftest import require_engine
from tests.contract.command_line import command, ended, environment, harness_here
from tests.contract.services import leftovers

if TYPE_CHECKING:
    from pathlib import Path

    from harness.store import StoredRun

pytestmark = pytest.mark.engine


def newest(folder: Path) -> StoredRun:
    return kept_runs(folder / "reports")[0][-1]


def test_each_load_is_judged_and_leaves_a_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Docker, where pgbench runs in the container of the server; the other test is about native servers."""
    require_engine("docker")
    monkeypatch.setattr("harness.suites.soak.pgbench._LEAST_WRITES", 100)  # a second of load
    done = harness_here(tmp_path, "verify", "direct", "--suite", "soak", "--for", "1s", "--engine", "docker")
    assert done.returncode == 0, done.stderr
    run = newest(tmp_path)
    assert {row.check: row.status for row in run.results} == {"soak.pgbench": Status.OK, "soak.mix": Status.OK}
    histories = {read_history(path).opening.check: read_history(path) for path in history_files(run.folder)}
    facts = {row.check: row.facts for row in run.results}
    assert int(facts["soak.pgbench"]["transactions"]) > 0
    assert "plain transactions per second" in facts["soak.pgbench"]
    assert not histories["soak.pgbench"].operations
    assert all("transactions per second" in sample.values for sample in histories["soak.mix"].samples)
    errors = {operation.operation for operation in histories["soak.mix"].operations if operation.error}
    assert {"conflict", "lock", "cancellation", "violation"} <= errors
    judged = harness_here(tmp_path, "judge", "latest")
    assert judged.returncode == 0, judged.stdout


def test_after_an_interruption_the_load_ends_and_is_judged(tmp_path: Path) -> None:
    require_engine("native")
    (tmp_path / "sitecustomize.py").write_text("from harness.suites.soak import pgbench\npgbench._TURN_S = 1.0\n")
    process = subprocess.Popen(
        command("verify", "direct", "--check", "soak.pgbench", "--for", "5m", "--engine", "native"),
        cwd=tmp_path,
        env=environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(places.SHIPPED)])),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def begun() -> None:
        # the first turn of pgbench is in the history once it has ended
        files = list(tmp_path.glob("reports/runs/*/histories/direct/soak.pgbench.jsonl"))
        if not files or not read_history(files[0]).samples:
            raise NotYet("no sample yet")

    try:
        poll(begun, what="the first samples of the load", deadline_s=120)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        done = ended(process)
    finally:
        process.kill()
        process.wait()
    assert done.returncode == 130, done.stderr
    [row] = newest(tmp_path).results
    assert (row.status, row.reason) == (Status.NOT_RUN, "the run was interrupted before this check finished")
    assert row.expectations
    assert all(expectation.counts and expectation.held for expectation in row.expectations)
    assert int(row.facts["transactions"]) > 0
    assert leftovers("native", newest(tmp_path).record.run_id) == []
