"""The files of a repository that nobody vouches for: bounded reads, and nothing outside of it."""

from __future__ import annotations

import os
import re
import stat
from functools import cached_property
from pathlib import Path

from harness.preflight.git_access import GitFailure, git_text

#: the list of files ends here
MOST_FILES = 200_000
#: larger files are named, not read
LARGEST_FILE = 2_000_000
#: suffixes of source files, but for shell scripts
CODE = frozenset(
    (
        *(".py", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".go", ".rs", ".rb", ".ex", ".exs", ".erl", ".java"),
        *(".kt", ".scala", ".cs", ".fs", ".php", ".c", ".cc", ".cpp", ".h", ".swift", ".clj", ".lua", ".pl", ".sql"),
    )
)
_DEEP = {"**/": "(?:[^/]+/)*", "/**": "/.*", "**": ".*"}
_MOST_DEEP = 3
_GENERATED = frozenset({".git", ".hg", ".nox", ".tox", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache"})


class Tree:
    """A repository's folder. Names of files are relative to it, with `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The files that git tracks or would add; without git, all but those of generated folders."""
        listed = git_text(self.root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        # git lists nothing for a folder that the repository around it ignores
        if isinstance(listed, GitFailure) or not (listed or (self.root / ".git").exists()):
            return tuple(sorted(self._walked()))
        return tuple(sorted({name for name in listed.split("\0") if name}))[:MOST_FILES]

    def _walked(self) -> list[str]:
        found: list[str] = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if name not in _GENERATED)
            here = Path(folder).relative_to(self.root)
            found += [(here / name).as_posix() for name in files if name not in _GENERATED]  # .git of a worktree
            if len(found) > MOST_FILES:
                break
        return found[:MOST_FILES]

    @property
    def is_complete(self) -> bool:
        return len(self.files) < MOST_FILES

    @cached_property
    def folders(self) -> frozenset[str]:
        return frozenset(parent.as_posix() for name in self.files for parent in Path(name).parents)

    @cached_property
    def code(self) -> tuple[str, ...]:
        """The source files, with shell scripts."""
        return tuple(name for name in self.files if Path(name).suffix in {*CODE, ".sh"})

    @cached_property
    def main_branch(self) -> str:
        """The main branch, if the clone knows it."""
        found = git_text(self.root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD")
        return "" if isinstance(found, GitFailure) else found.strip().removeprefix("origin/")

    def inside(self, name: str) -> Path | None:
        """Return the regular file with this name; None when it is missing, or its links lead out of the repository."""
        try:
            path = (self.root / name).resolve()
            if path.is_relative_to(self.root) and stat.S_ISREG(path.stat().st_mode):
                return path
        except (OSError, ValueError, RuntimeError):  # a name that is too long, or a loop of links
            pass
        return None

    def text(self, name: str, largest: int = LARGEST_FILE) -> str | None:
        """Return a file's text; None when it is missing, outside, too large, or binary."""
        data = self.data(name, largest)
        return None if data is None or b"\0" in data[:8192] else data.decode("utf-8", errors="replace")

    def data(self, name: str, largest: int = LARGEST_FILE) -> bytes | None:
        """Return a file's bytes; None when it is missing, outside, or too large."""
        path = self.inside(name)
        try:
            if path is None or path.stat().st_size > largest:
                return None
            with path.open("rb") as file:
                return file.read(largest)
        except OSError:
            return None

    def matching(self, pattern: str) -> list[str]:
        """Return the files that match a pattern with `*`, `**` and `?`."""
        wanted = glob(pattern)
        return [name for name in self.files if wanted.fullmatch(name)]


def glob(pattern: str) -> re.Pattern[str]:
    """Return a pattern with `*`, `**` and `?` as a regular expression for names with `/`."""
    return re.compile(wildcards(pattern.removeprefix("./")), re.DOTALL)


def wildcards(pattern: str) -> str:
    """Return the source of a regular expression for a pattern.

    The text behind each `*` but the last is found at its first place, and never tried again, so that many stars
    take no exponential time. Of several `**`, only the first three match folders.
    """
    pieces = [piece for piece in re.split(r"(\*\*/|/\*\*\Z|\*\*|\*|\?)", pattern) if piece]
    found: list[str] = []
    deep = at = 0
    while at < len(pieces):
        piece, at = pieces[at], at + 1
        if "**" in piece:
            deep += 1
            shallow = {"**/": "", "/**": "/[^/]*", "**": ""}
            found.append((_DEEP if deep <= _MOST_DEEP else shallow)[piece])
            continue
        if piece != "*":
            found.append("[^/]" if piece == "?" else re.escape(piece))
            continue
        literal = ""
        while at < len(pieces) and "*" not in pieces[at]:
            literal += "[^/]" if pieces[at] == "?" else re.escape(pieces[at])
            at += 1
        if at == len(pieces):
            found.append(f"[^/]*{literal}")
        else:
            found.append(f"(?>[^/]*?{literal})" if literal else "")
    return "".join(found)
