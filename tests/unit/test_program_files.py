"""The files that decide what a project's own programs do: which ones count, with git and without it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.errors import ConfigError
from harness.host import program_files as rules
from harness.host.program_files import program_digest, program_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("worker.py", "steps.py", "shop/__init__.py", "shop/prices.py", "shop/prices.sql"):
        write(tmp_path / name)
    return tmp_path


def write(path: Path, text: str = "pass\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def git(folder: Path, *arguments: str) -> None:
    names = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True)


def digest(folder: Path, *programs: str) -> str:
    named = [folder / name for name in programs or ("worker.py",)]
    return program_digest(b"declared", named, top=folder, where="mine.toml")


SOURCES = ("steps.py", "new.py", "shop/prices.py", "shop/prices.sql", "shop/deep/er.sh")
NO_SOURCES = (
    "notes.txt",
    "shop/result.json",
    "__pycache__/steps.py",
    "node_modules/x/index.js",
    ".cache/x.py",
    ".x.py",
)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("with_git", [True, False])
def test_a_source_beside_the_program_decides_the_digest(folder: Path, name: str, *, with_git: bool) -> None:
    if with_git:
        git(folder, "init", "-q")
        git(folder, "add", ".")
    before = digest(folder)
    write(folder / name, "changed\n")
    assert digest(folder) != before


@pytest.mark.parametrize("name", NO_SOURCES)
@pytest.mark.parametrize("with_git", [True, False])
def test_what_a_run_or_a_tool_writes_does_not_count(folder: Path, name: str, *, with_git: bool) -> None:
    if with_git:
        git(folder, "init", "-q")
        git(folder, "add", ".")
    before = digest(folder)
    write(folder / name, "written\n")
    assert digest(folder) == before


def test_git_decides_about_data_documents_and_ignored_sources(folder: Path) -> None:
    for name in ("prompt.txt", "README.md", "made/output.py"):
        write(folder / name)
    write(folder / ".gitignore", "made/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    before = digest(folder)
    write(folder / "README.md", "changed\n")
    write(folder / "made/output.py", "changed\n")
    assert digest(folder) == before
    write(folder / "prompt.txt", "changed\n")
    assert digest(folder) != before


def test_a_commit_changes_nothing_about_sources(folder: Path) -> None:
    write(folder / "mine.toml", "[commands]\n")
    git(folder, "init", "-q")
    before = digest(folder)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "worker")
    assert digest(folder) == before


def test_a_folder_that_its_repository_ignores_is_one_without_git(folder: Path) -> None:
    write(folder / ".gitignore", "venv/\n")
    write(folder / "venv/lib/mine/worker.py")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    before = digest(folder, "venv/lib/mine/worker.py")
    write(folder / "venv/lib/mine/steps.py")
    assert digest(folder, "venv/lib/mine/worker.py") != before


@pytest.mark.parametrize(
    ("name", "text"), [("harness.toml", "job_engines = []\n"), ("other.toml", 'title = "Other"\n\n[commands]\n')]
)
def test_declarations_beside_the_program_do_not_count(folder: Path, name: str, text: str) -> None:
    write(folder / name)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    write(folder / name, text)
    before = digest(folder)
    write(folder / name, f"# edited\n{text}")
    assert digest(folder) == before


def test_a_copy_elsewhere_has_the_same_digest(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("copy")
    for path in program_files([folder / "worker.py"], where=""):
        write(elsewhere / path.relative_to(folder), path.read_text())
    assert digest(elsewhere) == digest(folder)


def test_a_named_file_counts_whatever_it_is_called(folder: Path) -> None:
    write(folder / "bin/.worker")
    assert folder / "bin/.worker" in program_files([folder / "bin/.worker"], where="")
    before = digest(folder, "bin/.worker")
    write(folder / "bin/.worker", "changed\n")
    assert digest(folder, "bin/.worker") != before


def test_a_folder_and_the_folders_of_files_are_read_once(folder: Path) -> None:
    found = program_files([folder, folder / "worker.py", folder / "shop/prices.py", folder / "missing.py"], where="")
    assert [str(path.relative_to(folder)) for path in found] == [
        "shop/__init__.py",
        "shop/prices.py",
        "shop/prices.sql",
        "steps.py",
        "worker.py",
    ]


def test_special_files_and_loops_of_links_are_left_out(folder: Path) -> None:
    os.mkfifo(folder / "pipe.py")
    (folder / "loop.py").symlink_to(folder / "loop.py")
    (folder / "up").symlink_to(folder)
    assert folder / "pipe.py" not in program_files([folder / "worker.py"], where="")
    before = digest(folder)
    write(folder / "steps.py", "changed\n")
    assert digest(folder) != before


@pytest.mark.parametrize(("limit", "most"), [("_MOST_FILES", 3), ("_MOST_ENTRIES", 3), ("_MOST_BYTES", 12)])
def test_a_folder_that_holds_more_than_is_read_is_an_error_for_users(
    folder: Path, limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, limit, most)
    with pytest.raises(ConfigError, match="the folder of a program holds more than") as caught:
        digest(folder)
    assert caught.value.where == "mine.toml"
    assert "folder of its own" in caught.value.hint


def test_a_repository_that_a_variable_names_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "data.txt")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    before = digest(folder)
    monkeypatch.setenv("GIT_DIR", str(folder / "nowhere"))
    assert digest(folder) == before
