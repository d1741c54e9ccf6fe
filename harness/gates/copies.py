"""Copies of a repository, in which commands run: never in the tree itself."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.errors import HarnessError
from harness.git import REPOSITORY_VARIABLES, git_environment
from harness.host.command import CommandResult, run
from harness.job_engines.scratch import scratch_folder
from harness.lint.secrets import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from harness.gates.tree import Tree

#: in bytes; a repository with more is copied only if its owner makes it smaller
_LARGEST = 2_000_000_000
#: words with which programs say that something is not installed here, or needs the network
_NOT_HERE = re.compile(
    r"No module named \S+|command not found|: not found$|Cannot find module \S+|ModuleNotFoundError.*|ENOTFOUND"
    r"|EAI_AGAIN|Could not resolve host|Temporary failure in name resolution|Cannot connect to the Docker daemon"
    r"|No such file or directory: '(?:/usr)?/bin/\S+'|Permission denied",
    re.MULTILINE,
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CANNOT_START = frozenset({126, 127})
_LONGEST_LINE = 160
_NOTHING: Mapping[str, str] = MappingProxyType({})
_GIT = ("git", "-c", "commit.gpgSign=false", "-c", "gc.auto=0", "-c", "core.fsmonitor=false")


class Ran(Struct, frozen=True, kw_only=True):
    """The result of a command in a copy. `cannot_run` says why it says nothing about the repository."""

    exit_code: int = 0
    output: str = ""
    cannot_run: str = ""

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1][:_LONGEST_LINE] if lines else "no output"


class Copies:
    """Makes copies of a tree, without its git history and without what leads out of it."""

    def __init__(
        self, tree: Tree, also: Sequence[str], say: Callable[[str], None], stopped: Callable[[], bool]
    ) -> None:
        self._tree = tree
        self._also = also
        self._say = say
        self._stopped = stopped
        self._left_out: dict[str, None] = {}

    @property
    def skipped(self) -> str:
        """The files that no copy contains, in words; "" when nothing is missing."""
        names = list(self._left_out)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004

    @contextlib.contextmanager
    def copy(self) -> Iterator[Path]:
        """Return a folder with a copy, a git repository with one commit; it is removed at the end.

        :raises HarnessError: when the tree is too large to be copied.
        """
        with scratch_folder() as scratch:
            folder = scratch / "repository"
            folder.mkdir()
            left = _LARGEST
            for name in [*self._tree.files, *self._ignored()]:
                if self._stopped():
                    raise HarnessError("interrupted")
                left -= self._copy(name, folder, left)
            self._commit(folder)
            yield folder

    def _ignored(self) -> Iterator[str]:
        for name in self._also:
            path = self._tree.root / name
            if not path.exists():
                self._left_out[f"{name} (missing)"] = None
            elif path.is_dir() and path.resolve().is_relative_to(self._tree.root):
                for found, folders, files in os.walk(path):
                    here = Path(found).relative_to(self._tree.root)
                    yield from ((here / file).as_posix() for file in files)
                    links = [folder for folder in folders if Path(found, folder).is_symlink()]
                    yield from ((here / link).as_posix() for link in links)
            else:
                yield name

    def _copy(self, name: str, folder: Path, left: int) -> int:
        """Copy one file, and return its size. A link is copied as a link, if it stays in the repository.

        :param left: how many bytes may still be copied.
        """
        source, target = self._tree.root / name, folder / name
        if ".git" in target.relative_to(folder).parts:  # that of a worktree would lead git to the repository itself
            return 0
        try:
            if not source.parent.resolve().is_relative_to(self._tree.root):
                why = "outside"
            elif source.is_symlink():
                leads_to = source.readlink()
                if not leads_to.is_absolute() and source.resolve().is_relative_to(self._tree.root):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.symlink_to(leads_to)
                    return 0
                why = "a link that leads out"
            elif source.is_file():
                size = source.stat().st_size
                if size > left:
                    raise HarnessError(f"the repository has more than {_LARGEST / 1e9:g} GB, which is not copied")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
                return size
            else:  # a file that was deleted and is still in git's index is not missed
                why = "a submodule or not a regular file" if source.exists() else ""
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            why = str(error)
        if why:
            self._left_out[f"{name} ({why})"] = None
        return 0

    def _commit(self, folder: Path) -> None:
        """Make the copy a repository, because linters and builds ask git; without git, they get plain files."""
        author = {"GIT_AUTHOR_NAME": "copy", "GIT_AUTHOR_EMAIL": "copy@localhost"}
        committer = {"GIT_COMMITTER_NAME": "copy", "GIT_COMMITTER_EMAIL": "copy@localhost"}
        given = {
            **git_environment(),
            **author,
            **committer,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        steps = (
            ("init", "--quiet", "--template="),
            ("add", "--all"),
            ("commit", "--quiet", "--no-verify", "-m", "copy"),
        )
        for arguments in steps:
            try:
                failed = self._run((*_GIT, *arguments), folder, given, 60.0).exit_code != 0
            except HarnessError:
                failed = True
            if failed:
                self._left_out[f".git (git {arguments[0]} failed)"] = None
                break

    def run(self, command: Sequence[str], folder: Path, deadline_s: float, given: Mapping[str, str] = _NOTHING) -> Ran:
        """Run a command of the repository in a copy.

        :param given: its environment variables, in addition to those of this process.
        """
        try:
            result = self._run(command, folder, {"CI": "true", "PWD": str(folder), **given}, deadline_s)
        except HarnessError as error:
            return Ran(cannot_run=error.what)
        if result.exit_code is None:
            return Ran(output=result.output, cannot_run=result.reason)
        ran = Ran(exit_code=result.exit_code, output=result.output)
        missing = _NOT_HERE.search(result.output) if ran.exit_code else None
        if ran.exit_code in _CANNOT_START or missing:
            why = missing[0].strip() if missing else ran.last_line
            return Ran(
                exit_code=ran.exit_code, output=ran.output, cannot_run=f"it cannot run here: {why[:_LONGEST_LINE]}"
            )
        return ran

    def _run(self, command: Sequence[str], folder: Path, given: dict[str, str], deadline_s: float) -> CommandResult:
        """Run a command that finds the repository of the copy only: neither git's variables nor a folder around it."""
        result = run(
            command,
            folder=folder,
            given={**given, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
            without=REPOSITORY_VARIABLES,
            deadline_s=deadline_s,
            say=self._say,
            stopped=self._stopped,
        )
        # before a part of it is cut: a part of a secret has no shape
        return replace(result, output=masked(result.output))
