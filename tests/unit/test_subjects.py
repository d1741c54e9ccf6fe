"""The identity of a foreign command: what changes it, what does not, and folders that git cannot read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.host import folder_state
from harness.host.declarations import CommandDeclaration
from harness.host.folder_state import FolderState, state_of
from harness.host.subjects import CommandFolders, subjects_now
from harness.report.stacks import difference

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.model import Subject

SUITE = CommandDeclaration(name="suite", title="the suite passes", command=("pytest",), folder="guest")


def git(at: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.org", "-C", str(at), *arguments],
        check=True,
        capture_output=True,
    )


def commit(at: Path) -> None:
    git(at, "add", "--all")
    git(at, "commit", "--quiet", "--message", "a change")


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a guest: a repository with a test and a rule for ignored files."""
    monkeypatch.chdir(tmp_path)
    at = tmp_path / "guest"
    at.mkdir()
    git(at, "init", "--quiet")
    (at / "test_it.py").write_text("def test_it(): pass\n")
    (at / ".gitignore").write_text("*.pyc\n")
    commit(at)
    return at


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a guest that is no repository."""
    monkeypatch.chdir(tmp_path)
    at = tmp_path / "guest"
    at.mkdir()
    (at / "test_it.py").write_text("def test_it(): pass\n")
    return at


def subject(at: Path) -> Subject:
    return CommandFolders([SUITE], at.parent / "reports", {}).subjects(ended=False)["command.suite"]


def edit(at: Path) -> None:
    (at / "test_it.py").write_text("def test_it(:\n")


def edit_and_commit(at: Path) -> None:
    edit(at)
    commit(at)


def add_an_untracked_test(at: Path) -> None:
    (at / "conftest.py").write_text("raise SystemExit\n")


def delete_the_test(at: Path) -> None:
    (at / "test_it.py").unlink()


def make_it_executable(at: Path) -> None:
    (at / "test_it.py").chmod(0o755)


def replace_it_by_a_link(at: Path) -> None:
    (at / "test_it.py").unlink()
    (at / "test_it.py").symlink_to("elsewhere.py")


def commit_without_a_change(at: Path) -> None:
    git(at, "commit", "--quiet", "--allow-empty", "--message", "nothing")


CHANGES = (edit, add_an_untracked_test, delete_the_test, make_it_executable, replace_it_by_a_link)


@pytest.mark.parametrize("change", [*CHANGES, edit_and_commit, commit_without_a_change])
def test_every_change_of_a_repository_is_another_subject(guest: Path, change: Callable[[Path], None]) -> None:
    before = subject(guest)
    assert difference(before, subject(guest)) == ""
    change(guest)
    assert difference(before, subject(guest)) != ""


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_folder_without_git_is_another_subject(bare: Path, change: Callable[[Path], None]) -> None:
    before = subject(bare)
    assert list(before.facts) == ["files", "role", "deadline", "declaration"]
    assert difference(before, subject(bare)) == ""
    change(bare)
    assert "files" in difference(before, subject(bare))


def test_the_whole_working_tree_counts_and_ignored_files_do_not(guest: Path) -> None:
    (guest / "tests").mkdir()
    (guest / "tests" / "a.py").write_text("1")
    commit(guest)
    inner = CommandDeclaration(name="suite", title="it passes", command=("pytest",), folder="guest/tests")

    def now() -> Subject:
        return CommandFolders([inner], guest.parent / "reports", {}).subjects(ended=False)["command.suite"]

    before = now()
    (guest / "made.pyc").write_text("made by Python")
    assert difference(before, now()) == ""
    edit(guest)
    assert "uncommitted changes none, now" in difference(before, now())


def test_a_commit_is_named_with_twelve_characters(guest: Path) -> None:
    before = subject(guest)
    edit_and_commit(guest)
    after = subject(guest)
    assert difference(before, after) == f"commit {before.facts['commit'][:12]}, now {after.facts['commit'][:12]}"


def test_a_submodule_is_part_of_its_repository(guest: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    git(library, "init", "--quiet")
    (library / "lib.py").write_text("1")
    commit(library)
    git(guest, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "library")
    commit(guest)
    clean = subject(guest)
    (guest / "library" / "lib.py").write_text("2")
    dirty = subject(guest)
    (guest / "library" / "lib.py").write_text("3")
    assert difference(clean, dirty) != ""
    assert difference(dirty, subject(guest)) != ""


def test_a_repository_without_a_commit_has_a_subject(bare: Path) -> None:
    git(bare, "init", "--quiet")
    before = subject(bare)
    assert before.facts["commit"] == "none yet"
    edit(bare)
    assert difference(before, subject(bare)) != ""


def test_variables_of_a_git_hook_do_not_lead_elsewhere(
    guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = subject(guest)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert difference(before, subject(guest)) == ""


def test_without_git_a_repository_is_read_from_its_files(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    before = subject(guest)
    assert list(before.facts) == ["files", "role", "deadline", "declaration"]
    assert "all files of the folder" in before.covers
    (guest / ".git" / "description").write_text("another")
    assert difference(before, subject(guest)) == ""
    edit(guest)
    assert "files" in difference(before, subject(guest))


def test_special_and_unreadable_files_are_no_obstacle(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(bare / "pipe")
    (bare / "circle").symlink_to("circle")

    def refuse(_path: Path, _mode: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    state = state_of(bare)
    assert state.untracked == {"pipe": "special file", "circle": "link to circle", "test_it.py": "unreadable"}
    assert state.covers.endswith("; 1 files could not be read")


def test_of_large_files_inode_size_and_times_count(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_state, "_MOST_BYTES", 10)
    state = state_of(bare)
    assert state.too_large == "too large to be read, so inode, size and times count: test_it.py"
    assert state.covers.endswith(f"; {state.too_large}")
    assert state.untracked["test_it.py"].startswith("unread: 20 bytes, inode ")
    assert CommandFolders([SUITE], bare.parent / "reports", {}).notes() == [f"guest: {state.too_large}"]


@pytest.mark.parametrize("largest", [10, 256 * 1024 * 1024], ids=["too large", "read"])
@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "in place"])
def test_restored_times_hide_no_change(
    bare: Path, monkeypatch: pytest.MonkeyPatch, largest: int, replaced: bool
) -> None:
    """A program may give a file of the same size its old modification time back."""
    monkeypatch.setattr(folder_state, "_MOST_BYTES", largest)
    file = bare / "test_it.py"
    before, times = subject(bare), file.stat()
    if replaced:
        file.rename(bare.parent / "old")
    file.write_text("def test_it(): fail\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert "files" in difference(before, subject(bare))


def test_a_huge_file_keeps_no_small_file_from_being_read(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_state, "_MOST_BYTES", 100)
    (bare / "a_core_dump").write_text("x" * 90)
    state = state_of(bare)
    assert state.untracked["a_core_dump"].startswith("unread: 90 bytes")
    assert not state.untracked["test_it.py"].startswith("unread")


def test_what_could_be_read_only_once_was_not_written_by_the_run(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run that writes a large file would take another large file out of the identity."""
    monkeypatch.setattr(folder_state, "_MOST_BYTES", 100)
    (bare / "data").write_text("x" * 70)
    before = state_of(bare)
    (bare / "output").write_text("x" * 60)
    after = state_of(bare)
    assert after.untracked["data"].startswith("unread")
    assert after.written_since(before) == {"output"}


def test_a_large_script_outside_of_the_folder_has_an_identity(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_state, "_MOST_BYTES", 10)
    script = tmp_path / "elsewhere"
    script.write_text("echo 1 and more")
    declared = CommandDeclaration(name="suite", title="it passes", command=("sh", str(script)), folder="guest")

    def found() -> Subject:
        return CommandFolders([declared], tmp_path / "reports", {}).subjects(ended=False)["command.suite"]

    before = found()
    script.write_text("echo 2 and more")
    assert str(script) in difference(before, found())


@pytest.mark.parametrize(("limit", "value"), [("_MOST_FILES", 0), ("_LONGEST_S", -1.0)])
def test_a_folder_that_is_too_large_is_unknown_and_equals_nothing(
    bare: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(folder_state, limit, value)
    found = subject(bare)
    assert found.facts["files"].startswith("unknown: more files than")
    assert difference(found, found).startswith("unknown: more files than")


def test_what_a_run_writes_is_no_part_of_the_subject(guest: Path) -> None:
    folders = CommandFolders([SUITE], guest.parent / "reports", {})
    (guest / "results.xml").write_text("<testsuite/>")
    recorded = folders.subjects(ended=True)
    assert recorded["command.suite"].written == ("results.xml",)
    (guest / "results.xml").write_text("<testsuites/>")
    now = subjects_now([SUITE], [recorded], [guest.parent / "reports"])
    assert difference(recorded["command.suite"], now["command.suite"]) == ""
    add_an_untracked_test(guest)
    now = subjects_now([SUITE], [recorded], [guest.parent / "reports"])
    assert difference(recorded["command.suite"], now["command.suite"]) != ""


def test_the_reports_folder_is_no_part_of_the_subject(bare: Path) -> None:
    (bare / "reports").mkdir()
    before = state_of(bare, without=[bare / "reports"])
    (bare / "reports" / "report.md").write_text("evidence")
    assert state_of(bare, without=[bare / "reports"]) == before


def test_evidence_of_another_machine_within_the_folder_is_no_change(guest: Path) -> None:
    recorded = CommandFolders([SUITE], guest.parent / "reports", {}).subjects(ended=True)
    (guest / "downloaded").mkdir()
    (guest / "downloaded" / "run.json").write_text("{}")
    [changed] = subjects_now([SUITE], [recorded], []).values()
    [now] = subjects_now([SUITE], [recorded], [guest / "downloaded"]).values()
    assert difference(recorded["command.suite"], changed) != ""
    assert difference(recorded["command.suite"], now) == ""


def test_a_command_of_exec_is_compared_with_its_folder_now(guest: Path) -> None:
    recorded = CommandFolders([SUITE], guest.parent / "reports", {}).subjects(ended=True)
    [now] = subjects_now([], [recorded], [guest.parent / "reports"]).values()
    assert difference(recorded["command.suite"], now) == ""
    edit_and_commit(guest)
    [now] = subjects_now([], [recorded], [guest.parent / "reports"]).values()
    assert difference(recorded["command.suite"], now) != ""


def test_a_folder_that_is_missing_here_is_compared_with_nothing(guest: Path, tmp_path: Path) -> None:
    recorded = CommandFolders([SUITE], tmp_path / "reports", {}).subjects(ended=True)
    guest.rename(tmp_path / "elsewhere")
    assert subjects_now([SUITE], [recorded], [tmp_path / "reports"]) == {}
    assert subjects_now([], [recorded], [tmp_path / "reports"]) == {}


def test_a_script_outside_of_the_folder_belongs_to_the_subject(bare: Path, tmp_path: Path) -> None:
    script = tmp_path / "run-tests"
    script.write_text("exit 0")
    command = CommandDeclaration(name="suite", title="it passes", command=("sh", "../run-tests"), folder="guest")
    recorded = CommandFolders([command], tmp_path / "reports", {}).subjects(ended=True)
    assert str(script) in recorded["command.suite"].facts
    script.write_text("exit 1")
    for declared in ([command], []):
        now = subjects_now(declared, [recorded], [tmp_path / "reports"])
        assert difference(recorded["command.suite"], now["command.suite"]).startswith(str(script))


def test_another_declaration_is_another_subject(guest: Path) -> None:
    other = CommandDeclaration(name="suite", title="the suite passes", command=("pytest", "-x"), folder="guest")
    recorded = CommandFolders([SUITE], guest.parent / "reports", {}).subjects(ended=True)
    now = subjects_now([other], [recorded], [guest.parent / "reports"])
    assert (
        difference(recorded["command.suite"], now["command.suite"])
        == "another command line, title, JUnit pattern or topology is declared now"
    )


def test_another_role_is_another_subject_and_is_named(guest: Path) -> None:
    folders = CommandFolders([replace(SUITE, role="app", deadline_s=60)], guest.parent / "reports", {})
    recorded = folders.subjects(ended=True)
    now = subjects_now([SUITE], [recorded], [guest.parent / "reports"])
    assert difference(recorded["command.suite"], now["command.suite"]) == (
        "role app, now createdb; deadline 60 s, now 600 s"
    )


def test_a_folder_that_does_not_exist_has_a_state(tmp_path: Path) -> None:
    assert isinstance(state_of(tmp_path / "missing"), FolderState)
