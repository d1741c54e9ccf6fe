"""A trail with Issues in a real topology: the statements to repeat each of them, and the comparison with a baseline."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

from harness import places
from harness.cli.exit_codes import ExitCode
from harness.model import Status
from harness.store import read_run
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine


def test_an_issue_has_its_statements_and_a_baseline_excuses_it(some_engine: Engine, tmp_path: Path) -> None:
    for path in (places.SHIPPED / "harness/audit/targets").glob("plain-trigger.*"):
        shutil.copy(path, tmp_path / path.name)
    target = ("--audit-target", "plain-trigger.toml")
    verify = ("verify", "direct", *target, "--engine", some_engine.name)

    first = harness_here(tmp_path, *verify, "--check", "capture.search-path", "--check", "capture.insert")
    assert first.returncode == ExitCode.ISSUE
    assert "What to change: names in the capture function" in first.stderr
    answers = {result.check: result for result in read_run(tmp_path / "reports/runs/latest").answers()}
    assert answers["capture.insert"].status is Status.OK
    assert not answers["capture.insert"].reproduction
    lines = answers["capture.search-path"].reproduction.splitlines()
    assert "SET LOCAL search_path = '';" in lines
    failed = next(place for place, line in enumerate(lines) if line.startswith("-- 42P01: "))
    assert lines[failed + 1] == "ROLLBACK;"
    assert any(line.startswith("-- session application, role harness_app, directly") for line in lines)

    baseline = tmp_path / "plain-trigger.baseline.json"
    saved = harness_here(tmp_path, "report", *target, "--save-baseline", baseline.name, "--badge")
    assert saved.stdout.startswith("audit trail: 1 check OK, 0 limits, 1 issue on direct · ")
    # the file next to the target file is used without an option: what was written is compared with itself
    assert saved.returncode == ExitCode.ISSUE
    assert harness_here(tmp_path, "report", *target).returncode == ExitCode.OK

    again = harness_here(tmp_path, *verify, "--check", "capture.search-path")
    assert again.returncode == ExitCode.OK
    assert "1 row ran in both: 1 as in the baseline" in again.stderr
    rows = msgspec.json.decode(baseline.read_bytes())
    rows["rows"]["direct"]["capture.search-path"] = {"status": "OK"}
    baseline.write_bytes(msgspec.json.encode(rows))
    worse = harness_here(tmp_path, *verify, "--check", "capture.search-path")
    assert worse.returncode == ExitCode.ISSUE
    assert "new Issue: P1 capture.search-path on direct: OK → Issue" in worse.stderr
