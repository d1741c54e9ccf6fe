"""The folder of a group is removed whole, also while a program of a killed run still copies files into it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.engine import native_folders
from harness.engine.native_folders import OWNER, remove_folder
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_is_removed_while_a_program_copies_into_it(tmp_path: Path) -> None:
    source, group = tmp_path / "cluster", tmp_path / "run" / "transaction-1"
    for number in range(3000):
        (source / str(number % 30)).mkdir(parents=True, exist_ok=True)
        (source / str(number % 30) / str(number)).write_bytes(b"x" * 4096)
    (group / "postgres").mkdir(parents=True)
    (group / OWNER).write_text("{}")
    (group / "a file").touch()
    copied = group / "postgres" / "data"

    def begun() -> None:
        if not copied.exists():
            raise NotYet("nothing is copied yet")

    with subprocess.Popen(["cp", "-a", str(source), str(copied)], stderr=subprocess.DEVNULL) as copying:
        poll(begun, what="the copy", deadline_s=30, interval_s=0.001)
        assert remove_folder(group)
        copying.wait(30)
    assert not group.exists()
    assert remove_folder(group)


@pytest.mark.parametrize(("error", "tries"), [(OSError, 2), (PermissionError, 1)])
def test_the_owner_stays_while_something_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError], tries: int
) -> None:
    """Without its owner, no later `reap` would remove the rest. What another user owns is not waited for."""
    (tmp_path / "postgres").mkdir()
    (tmp_path / OWNER).write_text("{}")
    tried: list[Path] = []

    def fails(path: Path) -> None:
        tried.append(path)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fails)
        patched.setattr(native_folders, "_REMOVED_S", 0.1)
        assert not remove_folder(tmp_path)
    assert (len(tried) >= tries) if tries > 1 else (len(tried) == 1)
    assert (tmp_path / OWNER).exists()
    assert remove_folder(tmp_path)
