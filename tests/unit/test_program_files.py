"""The files that decide what a project's own programs do: which ones count, with git and without it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.errors import ConfigError
from harness.host import program_files as rules
from harness.host.program_files import named_files, program_digest, program_files

if TYPE_CHECKING:
    from pathlib import Path

WORKER = """
import os, steps
def work():
    from shop import prices
    return open("queries.sql").read()
"""
COMMAND = ("{python}", "{folder}/worker.py", "work")


@pytest.fixture(params=["git", "no git"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    write(tmp_path / "worker.py", WORKER)
    for name in ("steps.py", "queries.sql", "shop/__init__.py", "shop/prices.py", "besides.py", "apart/__init__.py"):
        write(tmp_path / name, "pass\n")
    if request.param == "git":
        write(tmp_path / ".gitignore", "made/\nshop/generated.py\n")
        under_git(tmp_path)
    return tmp_path


def write(path: Path, text: str = "new\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def git(folder: Path, *arguments: str) -> None:
    names = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True)


def under_git(folder: Path) -> None:
    git(folder, "init", "-q")
    git(folder, "add", ".")


def digest(folder: Path, *arguments: str) -> str:
    return program_digest(b"declared", arguments or COMMAND, folder=folder, where="mine.toml")


def names(folder: Path, *arguments: str) -> list[str]:
    return [str(path.relative_to(folder)) for path in program_files(arguments, folder, where="")]


# --- what counts ------------------------------------------------------------------------------------------


MENTIONED = ("worker.py", "steps.py", "queries.sql", "shop/prices.py", "shop/new.py", "shop/deep/002.sql", "os.py")


@pytest.mark.parametrize("name", MENTIONED)
def test_an_edit_of_what_a_program_mentions_changes_the_digest(folder: Path, name: str) -> None:
    before = digest(folder)
    write(folder / name, "edited\n")
    assert digest(folder) != before


NOT_OF_THE_PROGRAM = (
    *("besides.py", "apart/__init__.py", "notes.txt", "README.md", "steps.log", "shop/out.json", "shop/notes.md"),
    *("shop/__pycache__/prices.cpython-313.pyc", "shop/reports/run.sql", "shop/.cache/made.py", "shop/.hidden.py"),
    *("shop/shop.egg-info/setup.py", "shop/node_modules/a/index.js", "shop/venv/lib/a.py"),
)


@pytest.mark.parametrize("name", NOT_OF_THE_PROGRAM)
def test_what_no_program_mentions_and_what_runs_and_tools_write_keeps_the_digest(folder: Path, name: str) -> None:
    before = digest(folder)
    write(folder / name)
    assert digest(folder) == before


@pytest.mark.parametrize(
    ("program", "text", "loaded"),
    [
        ("w.py", "import_module('plugins.' + name)", "plugins/one.py"),
        ("w.py", "Path(__file__).parent.glob('*.sql')", "003_tables.sql"),
        ("w.js", "const queue = require('./queue')", "queue.js"),
        ("w.mjs", "import { claim } from './lib/queue.mjs'", "lib/queue.mjs"),
        ("w.sh", '. "$(dirname "$0")/kit.sh"', "kit.sh"),
        ("w.rb", "require_relative 'my-queue'", "my-queue.rb"),
    ],
)
def test_names_are_found_in_any_language(tmp_path: Path, program: str, text: str, loaded: str) -> None:
    write(tmp_path / program, text)
    write(tmp_path / loaded)
    assert names(tmp_path, f"{{folder}}/{program}") == sorted((program, loaded))


@pytest.mark.parametrize(
    "command",
    [
        ("{python}", "-m", "shop.api"),
        ("{python}", "-m", "uvicorn", "shop.api:app", "--port", "8000"),
        ("sh", "-c", "exec {python} -m shop.api;"),
    ],
)
def test_a_command_names_modules(tmp_path: Path, command: tuple[str, ...]) -> None:
    for name in ("shop/api.py", "shop/tables.py", "besides.py"):
        write(tmp_path / name)
    assert names(tmp_path, *command) == ["shop/api.py", "shop/tables.py"]


def test_what_an_import_imports_counts_and_a_circle_ends(tmp_path: Path) -> None:
    write(tmp_path / "one.py", "import two")
    write(tmp_path / "two.py", "import three")
    write(tmp_path / "three.py", "import one")
    write(tmp_path / "four.py")
    assert names(tmp_path, "{folder}/one.py") == ["one.py", "three.py", "two.py"]


def test_a_program_in_a_folder_of_its_own_is_more_than_one_file(tmp_path: Path) -> None:
    for name in ("bin/worker.py", "bin/steps.py", "besides.py"):
        write(tmp_path / name)
    assert names(tmp_path, "{folder}/bin/worker.py") == ["bin/steps.py", "bin/worker.py"]


def test_a_folder_that_a_command_works_in_counts_as_a_whole(tmp_path: Path) -> None:
    for name in ("mix.exs", "lib/worker.ex"):
        write(tmp_path / name)
    assert names(tmp_path, "sh", "-c", "cd {folder} && mix run") == ["lib/worker.ex", "mix.exs"]


def test_a_named_file_counts_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path / ".worker")
    assert names(tmp_path, "{folder}/.worker", "{folder}/missing.py") == [".worker"]


# --- git --------------------------------------------------------------------------------------------------


def test_git_decides_about_data_and_about_what_is_generated(tmp_path: Path) -> None:
    write(tmp_path / ".gitignore", "generated.py\n")
    write(tmp_path / "shop/words.txt")
    under_git(tmp_path)
    before = digest(tmp_path, "-m", "shop")
    write(tmp_path / "shop/generated.py")
    assert digest(tmp_path, "-m", "shop") == before
    write(tmp_path / "shop/words.txt", "edited\n")
    edited = digest(tmp_path, "-m", "shop")
    assert edited != before
    (tmp_path / "shop/words.txt").unlink()
    assert digest(tmp_path, "-m", "shop") not in {before, edited}


def test_a_commit_changes_nothing_about_sources(tmp_path: Path) -> None:
    write(tmp_path / "worker.py", "import steps")
    write(tmp_path / "steps.py")
    git(tmp_path, "init", "-q")
    before = digest(tmp_path)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "worker")
    assert digest(tmp_path) == before


def test_a_folder_that_its_repository_ignores_is_one_without_git(tmp_path: Path) -> None:
    write(tmp_path / ".gitignore", "installed/\n")
    write(tmp_path / "installed/mine/worker.py", "import steps")
    under_git(tmp_path)
    before = digest(tmp_path / "installed/mine")
    write(tmp_path / "installed/mine/steps.py")
    assert digest(tmp_path / "installed/mine") != before


def test_a_repository_that_a_variable_names_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "worker.py", "open('data.txt')")
    write(tmp_path / "data.txt")
    under_git(tmp_path)
    before = digest(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert digest(tmp_path) == before


# --- limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"), [("harness.toml", "job_engines = []\n"), ("other.toml", 'title = "Other"\n\n[commands]\n')]
)
def test_declarations_do_not_count(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path / "worker.py", "harness other settings")
    write(tmp_path / name, text)
    write(tmp_path / "settings.toml", "key = 1\n")
    under_git(tmp_path)
    assert names(tmp_path, *COMMAND) == ["settings.toml", "worker.py"]


def test_a_copy_elsewhere_has_the_same_digest(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("copy")
    for path in program_files(COMMAND, folder, where=""):
        write(elsewhere / path.relative_to(folder), path.read_text())
    assert digest(elsewhere) == digest(folder)


def test_special_files_and_loops_of_links_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "worker.py", "import pipe, loop, up")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    (tmp_path / "up").symlink_to(tmp_path)
    assert names(tmp_path, *COMMAND) == ["worker.py"]


@pytest.mark.parametrize(("limit", "most"), [("_MOST_FILES", 3), ("_MOST_ENTRIES", 3), ("_MOST_BYTES", 12)])
def test_a_program_that_consists_of_more_than_is_read_is_an_error_for_users(
    tmp_path: Path, limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "worker.py", "import one, two, three")
    for name in ("one.py", "two.py", "three.py"):
        write(tmp_path / name)
    monkeypatch.setattr(rules, limit, most)
    with pytest.raises(ConfigError, match="the folder of a program holds more than") as caught:
        digest(tmp_path)
    assert caught.value.where == "mine.toml"
    assert "folder of its own" in caught.value.hint


def test_files_are_named_in_arguments_and_in_commands_of_a_shell(tmp_path: Path) -> None:
    arguments = ("{folder}/my worker.py", "cd {folder} && {folder}/run.sh; '{folder}/b.py'", "${folder}")
    assert named_files(arguments, tmp_path) == [tmp_path / name for name in ("my worker.py", "run.sh", "b.py")]
