"""The state of a folder that holds a test suite: its commit and its uncommitted changes; without git, its files."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.git import git_environment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

#: for all calls of git and for all files of one folder together, seconds
_LONGEST_S = 20.0
_MOST_FILES = 20_000
#: the content of so many bytes is read, of small files first; of the others, inode, size and times count
_MOST_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
#: the state of a file whose content was not read begins with it
_UNREAD = "unread:"
#: files that are named in a sentence
_MOST_NAMED = 3
_DEEPEST = 5
#: folders that hold tools, or what tools made; without git, nothing distinguishes them from sources
TOOL_FOLDERS = frozenset(
    (
        *(".git", ".hg", ".svn", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"),
        *("node_modules", ".venv", "venv", ".tox", ".nox"),
    )
)


class FolderState(Struct, frozen=True, kw_only=True):
    """The state of a folder, or of the repository that holds it. Paths are relative to `top`."""

    top: Path
    #: "" for a folder that git does not know, and for a repository without a commit
    commit: str
    is_repository: bool
    #: tracked files that differ from the commit, each with a digest of its content
    changed: Mapping[str, str]
    #: files that git does not track and does not ignore, each with a digest; without git, all files
    untracked: Mapping[str, str]
    #: what the state covers, in one sentence without a full stop
    covers: str
    #: why the state could not be read; "" when it was
    unknown: str = ""
    #: which files were too large to be read, in one sentence without a full stop; "" when all were read
    too_large: str = ""

    def written_since(self, before: FolderState) -> frozenset[str]:
        """Return the untracked files that differ from an earlier state."""
        return frozenset(
            path
            for path in {*self.untracked, *before.untracked}
            if _is_written(self.untracked.get(path), before.untracked.get(path))
        )

    def facts(self, written: Collection[str] = ()) -> dict[str, str]:
        """Return what identifies the state, by name.

        :param written: files to leave out, because runs wrote them.
        """
        files = {path: digest for path, digest in self.untracked.items() if path not in written}
        if not self.is_repository:
            return {"files": self.unknown or _digest(files)}
        changes = {**self.changed, **files}
        return {
            "commit": self.commit or "none yet",
            "uncommitted changes": self.unknown or (_digest(changes) if changes else "none"),
        }


def state_of(folder: Path, *, without: Collection[Path] = ()) -> FolderState:
    """Return the state of a folder. Never raises for what it finds there, and ends after 20 s at the latest.

    In a repository the state covers the whole working tree, because a suite tests more than its own folder. Submodules
    are part of it. Files that git ignores are not.

    :param without: files and folders to leave out, such as the evidence of the harness.
    """
    reading = _Reading(without)
    found = reading.repository(folder)
    return found if found is not None else reading.files(folder)


def tracked_state_of(file: Path) -> dict[str, str]:
    """Return commit and changes of tracked files of the repository that tracks a file; {} when none does."""
    reading = _Reading(())
    if not reading.tracks(file):
        return {}
    found = reading.repository(file.parent)
    return found.facts(found.untracked) if found is not None else {}


class _Reading:
    """Reads one folder, within limits for time, files and bytes."""

    def __init__(self, without: Collection[Path]) -> None:
        self._without = tuple(path.resolve() for path in without)
        self._end = time.monotonic() + _LONGEST_S
        self._files_left = _MOST_FILES
        self._bytes_left = _MOST_BYTES
        #: files whose content was not read
        self._not_read: list[Path] = []
        self._unreadable = 0

    def repository(self, folder: Path, depth: int = 0) -> FolderState | None:
        """Return the state of the repository that holds a folder; None without git or without a repository."""
        top = self._git(folder, "rev-parse", "--show-toplevel")
        if not top:
            return None
        at = Path(top.removesuffix("\n"))
        commit = (self._git(at, "rev-parse", "--verify", "HEAD^{commit}") or "").strip()
        listed = self._git(
            at, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=none"
        )
        changed: dict[str, str] = {}
        untracked: dict[str, str] = {}
        unknown = "" if listed is not None else f"unknown: git did not list them within {_LONGEST_S:g} s"
        entries = [entry for entry in (listed or "").split("\0") if entry[3:] and not self._is_left_out(at / entry[3:])]
        for entry in sorted(entries, key=lambda entry: _size(at / entry[3:])):
            path = entry[3:]
            if self._is_over():
                unknown = _too_many("changed files")
                break
            (untracked if entry.startswith("??") else changed)[path] = self._digest_of(at / path, depth)
        unknown = unknown or self._late("changed files")
        covers = "the commit, changed files and files that git neither tracks nor ignores, with submodules"
        return FolderState(
            top=at,
            commit=commit,
            is_repository=True,
            changed=changed,
            untracked=untracked,
            covers=covers + self._limits(),
            unknown=unknown,
            too_large=self._too_large(),
        )

    def tracks(self, file: Path) -> bool:
        """Return whether a repository tracks a file."""
        return self._git(file.parent, "ls-files", "--error-unmatch", "--", file.name) is not None

    def files(self, folder: Path) -> FolderState:
        """Return the state of a folder from all its files."""
        found: dict[str, str] = {}
        unknown = ""
        paths = list(itertools.islice(self._walk(folder), max(0, self._files_left) + 1))
        for path in sorted(paths, key=_size):
            if self._is_over():
                unknown = _too_many("files")
                break
            found[str(path.relative_to(folder))] = self._digest_of(path, _DEEPEST)
        unknown = unknown or self._late("files")
        covers = "all files of the folder, but those of tools and caches, such as node_modules and .venv"
        return FolderState(
            top=folder,
            commit="",
            is_repository=False,
            changed={},
            untracked=found,
            covers=covers + self._limits(),
            unknown=unknown,
            too_large=self._too_large(),
        )

    def _walk(self, folder: Path) -> Iterator[Path]:
        for at, folders, names in os.walk(folder):  # an unreadable folder is empty
            inside = Path(at)
            folders[:] = sorted(
                name for name in folders if name not in TOOL_FOLDERS and not self._is_left_out(inside / name)
            )
            linked = [name for name in folders if (inside / name).is_symlink()]
            yield from (inside / name for name in sorted((*names, *linked)) if not self._is_left_out(inside / name))

    def _digest_of(self, path: Path, depth: int) -> str:
        """Return a digest of the content of a file, or of the state of a repository within the repository."""
        self._files_left -= 1
        try:
            return self._read(path, path.lstat(), depth)
        except FileNotFoundError:
            return "deleted"
        except OSError:
            self._unreadable += 1
            return "unreadable"

    def _read(self, path: Path, seen: os.stat_result, depth: int) -> str:
        if stat.S_ISLNK(seen.st_mode):
            return f"link to {path.readlink()}"
        if stat.S_ISDIR(seen.st_mode):
            inner = self.repository(path, depth + 1) if depth < _DEEPEST else None
            return _digest(inner.facts()) if inner is not None and inner.top == path.resolve() else "folder"
        if not stat.S_ISREG(seen.st_mode):
            return "special file"  # to read a FIFO would take for ever
        executable = " executable" if seen.st_mode & stat.S_IXUSR else ""
        content = self.content(path) if seen.st_size <= self._bytes_left else None
        if content is None:
            self._not_read.append(path)
            return _without_content(seen) + executable
        return content + executable

    def content(self, path: Path) -> str | None:
        """Return a digest of a file's content; None for more bytes than may be read, or when the time is over."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                self._bytes_left -= len(chunk)
                if self._bytes_left < 0 or time.monotonic() > self._end:  # after the time, the whole state is unknown
                    return None
                digest.update(chunk)
        return digest.hexdigest()

    def _is_over(self) -> bool:
        return self._files_left <= 0 or time.monotonic() > self._end

    def _late(self, what: str) -> str:
        return _too_many(what) if time.monotonic() > self._end else ""

    def _is_left_out(self, path: Path) -> bool:
        if not self._without:
            return False
        at = path.parent.resolve() / path.name
        return any(at.is_relative_to(left_out) for left_out in self._without)

    def _limits(self) -> str:
        large = f"; {self._too_large()}" if self._not_read else ""
        return large + (f"; {self._unreadable} files could not be read" if self._unreadable else "")

    def _too_large(self) -> str:
        if not self._not_read:
            return ""
        names = ", ".join(path.name for path in self._not_read[:_MOST_NAMED])
        more = f" and {len(self._not_read) - _MOST_NAMED} more" if len(self._not_read) > _MOST_NAMED else ""
        return f"too large to be read, so inode, size and times count: {names}{more}"

    def _git(self, folder: Path, *arguments: str) -> str | None:
        return git_output(folder, *arguments, timeout_s=self._end - time.monotonic())


def git_output(folder: Path, *arguments: str, timeout_s: float) -> str | None:
    """Return the output of git in a folder; None when it is missing, fails or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603
            # a repository of another owner, as in many CI containers; and no program that its settings name
            ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=max(0.1, timeout_s),
            env=git_environment(),
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None


def file_state(path: Path) -> str:
    """Return a digest of the content of one file; of a file that is too large to be read, inode, size and times.

    :raises OSError: when the file cannot be read.
    """
    seen = path.stat()
    content = _Reading(()).content(path) if seen.st_size <= _MOST_BYTES else None
    return _without_content(seen) if content is None else content[:16]


def _without_content(seen: os.stat_result) -> str:
    """Identify a file without its content. A program can restore the modification time, but not the change time."""
    return (
        f"{_UNREAD} {seen.st_size} bytes, inode {seen.st_ino}, modified {seen.st_mtime_ns}, changed {seen.st_ctime_ns}"
    )


def _is_written(now: str | None, before: str | None) -> bool:
    """Return whether a file changed. One whose content was read only once cannot be compared."""
    comparable = now is None or before is None or now.startswith(_UNREAD) == before.startswith(_UNREAD)
    return comparable and now != before


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _too_many(what: str) -> str:
    return f"unknown: more {what} than can be read within {_LONGEST_S:g} s, or than {_MOST_FILES}"


def _digest(entries: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(entries.items()):
        digest.update(os.fsencode(f"{name}\0{value}\0"))
    return digest.hexdigest()[:16]
