"""git reads the repository of the folder that it is asked about, whatever the shell or a hook exports."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from harness import places, provenance
from harness.gates.tree import Tree
from harness.git import REPOSITORY_VARIABLES
from harness.host.folder_state import state_of
from harness.preflight.git_access import git_text
from tests.bench.trees import checked_out
from tests.unit.repositories import in_git, repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _commit_of_the_code(_: Path) -> object:
    return provenance.provenance().commit, provenance.provenance().dirty


def _commit_of_the_bench(_: Path) -> object:
    with checked_out("HEAD") as tree:
        return tree.name


READERS: dict[str, Callable[[Path], object]] = {
    "provenance": _commit_of_the_code,
    "folder_state": state_of,
    "git_access": lambda root: git_text(root, "rev-parse", "HEAD"),
    "gates": lambda root: Tree(root).files,
    "bench": _commit_of_the_bench,
}
#: each variable with a value of the other repository
EXPORTED = {
    "GIT_DIR": ".git",
    "GIT_WORK_TREE": "",
    "GIT_INDEX_FILE": ".git/index",
    "GIT_COMMON_DIR": ".git",
    "GIT_OBJECT_DIRECTORY": ".git/objects",
}


@pytest.mark.parametrize("reader", READERS)
def test_no_exported_variable_selects_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    asked, other = repository(tmp_path / "asked"), repository(tmp_path / "other", {"other.py": "1\n"})
    in_git(other, "commit", "--quiet", "--allow-empty", "-m", "another")
    (asked / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    in_git(asked, "add", "--all")
    in_git(asked, "commit", "--quiet", "-m", "asked")
    monkeypatch.setattr(places, "SHIPPED", asked)
    expected = READERS[reader](asked)
    for name, value in EXPORTED.items():
        with monkeypatch.context() as patched:
            patched.setenv(name, str(other / value))
            assert READERS[reader](asked) == expected, name
    for name, value in EXPORTED.items():
        monkeypatch.setenv(name, str(other / value))
    assert READERS[reader](asked) == expected


def test_each_variable_that_git_calls_local_to_a_repository_is_known() -> None:
    named = subprocess.run(
        ["git", "rev-parse", "--local-env-vars"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(named) - REPOSITORY_VARIABLES == {"GIT_CONFIG_COUNT"}  # people pass safe.directory by it


def test_every_git_of_the_harness_runs_in_this_environment() -> None:
    starts = ('["git"', '_GIT = ("git"', "git_command(")
    texts = {file.relative_to(places.PACKAGE).as_posix(): file.read_text() for file in places.PACKAGE.rglob("*.py")}
    callers = {name for name, text in texts.items() if any(start in text for start in starts)}
    assert {"provenance.py", "gates/copies.py"} <= callers
    assert not {name for name in callers if "git_environment()" not in texts[name]}
