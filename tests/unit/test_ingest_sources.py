"""The files that decide what the programs of a pipeline do: what changes its evidence, and what does not."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.ingest.loading import load
from tests.unit.test_ingest_loading import TABLE, written

if TYPE_CHECKING:
    from pathlib import Path

#: what a run and its tools write into the package of a program
_WRITTEN = (
    *("shop/worker.log", "shop/out.json", "shop/data.csv", "shop/__pycache__/tables.cpython-313.pyc", "shop/notes.md"),
    *("shop/reports/run.sql", "shop/.cache/made.py", "shop/shop.egg-info/setup.py", "shop/node_modules/a/index.js"),
)


def _git(folder: Path, *arguments: str) -> None:
    words = ("git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments)
    subprocess.run(words, check=True, capture_output=True)


def _add(folder: Path, name: str, text: str = "new\n") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture(params=["git", "no git"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return the path of a pipeline, with and without a repository around it."""
    path = written(tmp_path)
    if request.param == "git":
        _git(tmp_path, "init", "-q")
        _add(tmp_path, ".gitignore", "generated.py\n")
        _git(tmp_path, "add", "-A")
        _git(tmp_path, "commit", "-qm", "a pipeline")
    return path


@pytest.mark.parametrize("name", _WRITTEN)
def test_what_a_run_or_a_tool_writes_keeps_earlier_results(file: Path, name: str) -> None:
    before = load(file).identity
    _add(file.parent, name)
    assert load(file).identity == before


@pytest.mark.parametrize("name", ["shop/new.py", "shop/migrations/002.sql", "shop/deeper/new.py"])
def test_a_new_program_in_the_package_of_a_command_counts(file: Path, name: str) -> None:
    before = load(file).identity
    _add(file.parent, name)
    assert load(file).identity != before


def test_a_program_that_a_command_imports_counts(file: Path) -> None:
    _add(file.parent, "queues.py", "import leases, os\n")
    _add(file.parent, "leases/__init__.py")
    _add(file.parent, "besides.py")
    _add(file.parent, "worker.py", "def work():\n    from queues import claim\n")
    before = load(file).identity
    _add(file.parent, "besides.py", "edited\n")
    assert load(file).identity == before
    for name in ("queues.py", "leases/__init__.py"):
        _add(file.parent, name, f"edited, and {name}\nimport leases\n")
        assert load(file).identity != before
        before = load(file).identity


def test_a_program_beside_a_named_one_of_another_language_counts(tmp_path: Path) -> None:
    (tmp_path / "worker.js").write_text("require('./queue')\n")
    path = written(tmp_path, TABLE.replace("{folder}/worker.py", "{folder}/worker.js"))
    before = load(path).identity
    _add(tmp_path, "queue.js")
    assert load(path).identity != before


def test_git_decides_about_data_and_about_what_is_generated(tmp_path: Path) -> None:
    path = written(tmp_path)
    _git(tmp_path, "init", "-q")
    _add(tmp_path, ".gitignore", "generated.py\n")
    _add(tmp_path, "shop/words.txt")
    _git(tmp_path, "add", "-A")
    before = load(path).identity
    _add(tmp_path, "shop/generated.py")
    assert load(path).identity == before
    _add(tmp_path, "shop/words.txt", "edited\n")
    assert load(path).identity != before
    before = load(path).identity
    (tmp_path / "shop/words.txt").unlink()
    assert load(path).identity != before
