"""A container reads the files of its service once, and a service without all of its files does not start."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.engine.docker_files import after_files, script_of

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"a.conf": "it's \"quoted\" $HOME `pwd`\n\n%s\\n", "empty": "", "of its own/b.py": "no newline"}


def run(folder: Path, sent: str) -> subprocess.CompletedProcess[str]:
    """Run a service that says what its standard input holds."""
    script = after_files("cat; echo started", str(folder))
    return subprocess.run(["sh", "-c", script], input=sent, capture_output=True, text=True, check=False)


def test_all_files_are_there_before_the_service_starts(tmp_path: Path) -> None:
    done = run(tmp_path, script_of(FILES))
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    assert {name: (tmp_path / name).read_text() for name in FILES} == FILES


def test_a_restarted_service_reads_no_files(tmp_path: Path) -> None:
    run(tmp_path, script_of(FILES))
    (tmp_path / "empty").unlink()  # as a service does with a password that it needs once
    assert run(tmp_path, "").stdout == "started\n"
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("length", [0, 60, len(script_of(FILES)) - 8])
def test_a_service_whose_files_are_incomplete_does_not_start(tmp_path: Path, length: int) -> None:
    done = run(tmp_path, script_of(FILES)[:length])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("the files of the service did not arrive\n")
