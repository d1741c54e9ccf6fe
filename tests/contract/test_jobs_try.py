"""`jobs try`: the sample in SQL and shell runs its ten jobs, and the mistakes of a broken copy are named."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from harness import places
from harness.cli.exit_codes import ExitCode
from tests.contract.command_line import harness_here
from tests.contract.services import path_with_psql

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

SAMPLES = places.SHIPPED / "harness" / "job_engines" / "samples"


@pytest.mark.parametrize("sample", ["sql", "queue"])
def test_ten_jobs_of_a_sample_are_done_and_shown(any_engine: Engine, tmp_path: Path, sample: str) -> None:
    arguments = ("jobs", "try", str(SAMPLES / f"{sample}.toml"), "--engine", any_engine.name)
    done = harness_here(tmp_path, *arguments, PATH=path_with_psql(any_engine))
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line[:1].isdigit() and " s " in line]
    assert sorted(int(row[0]) for row in rows) == list(range(1, 11))
    assert {(row[-3], row[-2], row[-1]) for row in rows} == {("A", "1", "done")}
    assert done.stdout.endswith("\n10 of 10 jobs were done, and nothing is wrong\n")
    assert "wrong:" not in done.stdout


def test_the_mistakes_of_a_target_are_named(any_engine: Engine, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "mine")
    program, target = tmp_path / "mine" / "sql.sh", tmp_path / "mine" / "sql.toml"
    program.write_text(program.read_text().replace("'enqueued'", "'queued'").replace('payload="$3"', "payload='{}'"))
    target.write_text(target.read_text().replace("SELECT key, state FROM jobs", "SELECT key, upper(state) FROM jobs"))
    arguments = ("jobs", "try", "mine/sql.toml", "--engine", any_engine.name)
    done = harness_here(tmp_path, *arguments, PATH=path_with_psql(any_engine))
    assert done.returncode == ExitCode.ISSUE, done.stdout + done.stderr
    for mistake in (
        "`enqueue` did not report jobs 1, 2, 3, 4, 5 and 5 more as enqueued",
        "began without the payload",
        "expected one of waiting, running, done, failed, cancelled",
    ):
        assert mistake in done.stdout
    assert done.stdout.endswith("\n10 of 10 jobs were done, but the target has 3 mistakes\n")


def test_nothing_is_tried_after_an_installation_that_failed(any_engine: Engine, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "mine")
    program = tmp_path / "mine" / "sql.sh"
    program.write_text(program.read_text().replace("CREATE TABLE IF NOT EXISTS", "CREATE TABEL"))
    arguments = ("jobs", "try", "mine/sql.toml", "--engine", any_engine.name)
    done = harness_here(tmp_path, *arguments, PATH=path_with_psql(any_engine))
    assert done.returncode == ExitCode.ISSUE, done.stdout + done.stderr
    assert done.stdout.count("wrong: ") == 1
    assert "wrong: the command `install` failed: " in done.stdout
    assert "key  enqueued" not in done.stdout
    assert done.stdout.endswith("\n0 of 10 jobs were done: the target has 1 mistake\n")
