"""A run with a fault through the command line: its history is judged again, drawn, and counted in the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from harness.model import Repetition
from harness.store import history_files, read_run
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

CHECK = "resilience.connections-terminated"


def test_a_stored_history_is_judged_as_the_run_judged_it(tmp_path: Path, any_engine: Engine) -> None:
    """Each attempt has a history of its own. Such rows run on servers of their own, beside the others."""
    repeated = ("--check", CHECK, "--repeat", "2", "--rounds", "1")
    ran = harness_here(tmp_path, "verify", "direct", *repeated, "--engine", any_engine.name)
    assert ran.returncode == 0, ran.stderr
    again = harness_here(tmp_path, "judge")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"direct  holds        {CHECK}; operations: " in again.stdout
    assert f"direct  holds        {CHECK}, attempt 2; operations: " in again.stdout
    assert again.stdout.count("; 1 fault\n") == 2
    assert again.stdout.endswith("\n2 histories: 2 holds\n")
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    histories = history_files(run.folder)
    assert [history.name for history in histories] == [f"{CHECK}.jsonl", f"{CHECK}.attempt-2.jsonl"]
    report = msgspec.json.decode((tmp_path / "reports" / "report.json").read_bytes())
    assert [history["link"].rpartition("/")[2] for history in report["histories"]] == [histories[1].name]
    page = (tmp_path / "reports" / "report.html").read_text()
    assert page.count('<path class="fault"') == 2  # rate and latency
    table = (tmp_path / "reports" / "resilience.md").read_text()
    assert "| server connections terminated | direct | OK | 1 of 1, attempt 2 of 2 |" in table
    [own] = run.record.topologies["direct"].own_servers
    assert own.storage.startswith("on disk, with fsync")
    assert [result.attempt for result in run.results] == [1, 2]
    assert [result.repetition for result in run.answers()] == [Repetition(ok=2)]
    for result in run.results:
        assert result.facts["servers"].startswith("own, data on disk, fsync on, synchronous_commit on, PostgreSQL ")
    assert "direct: own servers of faults and loads ready after " in ran.stderr
    assert "direct       faults:   acknowledged=" in ran.stdout
    history = histories[0]
    history.write_bytes(history.read_bytes().replace(b'"outcome":"ok"', b'"outcome":"fail"', 1))
    edited = harness_here(tmp_path, "judge")
    assert edited.returncode == 3
    assert "was edited" in edited.stderr


def test_a_run_under_a_control_is_judged_by_what_the_control_expects(tmp_path: Path, any_engine: Engine) -> None:
    control = ("--check", CHECK, "--under", "success-reported-before-commit", "--rounds", "2")
    ran = harness_here(tmp_path, "verify", "direct", *control, "--engine", any_engine.name)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    again = harness_here(tmp_path, "judge", "latest", "--under")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "as its control expects: an Issue at 'acknowledged writes missing in the table'" in again.stdout
