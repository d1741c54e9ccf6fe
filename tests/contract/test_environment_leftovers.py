"""A run against an environment is killed with SIGKILL: the next one finds what it left there, and clears it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.cli.main import main
from harness.database import connect
from harness.model import Status
from tests.contract.test_environment import FILE, row, staging, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.lab.lab import Lab
    from harness.store import StoredRun
    from tests.contract.a_host import Host

pytestmark = pytest.mark.engine
__all__ = ["staging", "verify"]  # fixtures of the other module

#: runs one check, and kills its process where it would begin to wait or to clean up
KILLED = """
import os, signal, sys
import harness.suites.environment as checks
from harness.cli.main import main
from harness.host.path_runner import PathRun
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
checks._wait_for_changes = PathRun._clean_up = kill
main(["verify", "--environment", "staging", "--check", sys.argv[1]])
"""
CANARY = FILE.replace('scratch_schema = "scratch"', 'canary = "public.posts(slug)"')


def killed(check: str, folder: Path, host: Host) -> None:
    given = {**os.environ, "STAGING_BASE_URL": host.base_url}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, check], cwd=folder, env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def left(lab: Lab) -> dict[str, int]:
    """Return what a run may leave: rows, tables, grants."""
    queries = {
        "rows": "SELECT count(*) FROM public.posts WHERE slug <> 'taken'",
        "tables": "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^harness_canary_'",
        "grants": "SELECT has_schema_privilege('harness_app', 'scratch', 'USAGE')::int",
    }
    with connect(lab.admin("staging")) as admin:
        return {name: int(admin.value(query)) for name, query in queries.items()}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()


@pytest.mark.parametrize(
    ("check", "file", "kind"),
    [
        ("environment.canary-attributed", CANARY, "rows"),
        ("environment.canary-attributed", FILE, "tables"),
        ("path.new-post", FILE, "rows"),
    ],
    ids=["canary rows", "scratch table", "path"],
)
def test_the_next_run_clears_what_a_killed_run_left(
    check: str,
    file: str,
    kind: str,
    staging: tuple[Lab, Host],
    verify: Callable[..., tuple[int, StoredRun]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lab, host = staging
    (tmp_path / "harness.toml").write_text(file)
    before = left(lab)
    killed(check, tmp_path, host)
    assert left(lab)[kind] > before[kind]

    assert main(["reap", "--engine", "native"]) == 0
    assert f"environment staging of {tmp_path}: the killed run " in capsys.readouterr().err

    _, reading = verify("--check", "environment.trail-closed")  # writes nothing, so it clears nothing
    assert "a run of checks that write clears it" in " ".join(reading.record.environments["staging"].notes)
    assert left(lab)[kind] > before[kind]

    _, run = verify("--check", check)
    assert row(run, check).status is Status.OK
    assert "cleared what a killed run left" in " ".join(run.record.environments["staging"].notes)
    assert left(lab) == before

    _, again = verify("--check", check)
    assert again.record.environments["staging"].notes == ()
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_rows_of_another_machine_are_named_with_their_sql(
    staging: tuple[Lab, Host], verify: Callable[..., tuple[int, StoredRun]], tmp_path: Path
) -> None:
    lab, _ = staging
    (tmp_path / "harness.toml").write_text(CANARY)
    mark = "harness-0123456789ab"
    with connect(lab.admin("staging")) as admin:
        admin.run("INSERT INTO public.posts (slug) VALUES (%s)", [f"{mark}-harness-ada-0"])
        try:
            _, run = verify("--check", "environment.canary-rolled-back")
            assert admin.value("SELECT count(*) FROM public.posts WHERE slug LIKE %s", [f"{mark}%"]) == 1
        finally:
            admin.run("DELETE FROM public.posts WHERE slug LIKE %s", [f"{mark}%"])
    [note] = run.record.environments["staging"].notes
    assert f'DELETE FROM "public"."posts" WHERE starts_with("slug", \'{mark}\')' in note
    assert row(run, "environment.canary-rolled-back").status is Status.OK
