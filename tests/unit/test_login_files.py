"""The files with the logins of a topology that `up` keeps running."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.database import Endpoint
from harness.engine.owner import Owner
from harness.lab import login_files
from harness.lab.login_files import reap_login_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("harness.places.cache", lambda: tmp_path)
    return tmp_path


def test_the_files_are_private_and_are_read_as_they_were_written() -> None:
    at = Endpoint(host="::1", port=6432, user="ada", password="a:b\\c", dbname="x")
    with login_files.login_files(Owner.me("run")) as files:
        files.write({"PGPASSWORD": "it's $HOME"}, [at])
        assert {path.stat().st_mode & 0o777 for path in files.env.parent.iterdir()} == {0o600}
        assert files.env.parent.stat().st_mode & 0o777 == 0o700
        assert files.pgpass.read_text() == "\\:\\:1:6432:*:ada:a\\:b\\\\c\n"
        shown = subprocess.run(
            ["sh", "-c", '. "$1" && printf "%s %s" "$PGPASSWORD" "$PGPASSFILE"', "sh", str(files.env)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout == f"it's $HOME {files.pgpass}"
    assert not files.env.parent.exists()


def test_only_the_files_of_a_process_that_ended_are_removed() -> None:
    mine = Owner.me("run")
    with login_files.login_files(mine) as files:
        assert reap_login_files() == []
        assert files.env.parent.exists()
    with login_files.login_files(replace(mine, run_id="gone", started=1)) as files:
        assert reap_login_files() == [f"login files {files.env.parent}"]
        assert not files.env.parent.exists()
