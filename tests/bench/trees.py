"""Trees of the project: this one, and another commit to measure in the same session."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness import places
from harness.errors import HarnessError, UsageError
from harness.git import git_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: longest time that the harness gets to tear its servers down after Ctrl-C
_TEARDOWN_S = 60.0
#: the extra of pyproject.toml that a run needs
_EXTRA = "drivers"


class Tree(Struct, frozen=True, kw_only=True):
    """A checkout, and the interpreter with its dependencies."""

    name: str
    folder: Path
    python: str

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder), "NO_COLOR": "1"}

    def harness(self, folder: Path, *arguments: str, allowed: tuple[int, ...] = (0, 1)) -> Child:
        """Run this tree's harness in a folder.

        :param allowed: exit codes that count as a result. An Issue (1) does.
        :raises ChildFailedError: for any other exit code.
        """
        return run_child(
            [self.python, "-m", "harness", *arguments], folder=folder, environment=self.environment(), allowed=allowed
        )


class Child(Struct, frozen=True, kw_only=True):
    """The result of a process."""

    stdout: str
    peak_mb: float


class ChildFailedError(HarnessError):
    """A measured process failed, so its figures mean nothing."""


def run_child(
    command: list[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    allowed: tuple[int, ...] = (0,),
) -> Child:
    """Run a process to its end. After Ctrl-C it gets time to tear its servers down.

    :raises ChildFailedError: with the last lines of its stderr, when the exit code is not in `allowed`.
    """
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        request.write(stdin)
        request.seek(0)
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=request, stdout=out, stderr=err)
        try:
            # wait4 gives the peak of this child; getrusage(RUSAGE_CHILDREN) gives the highest of all children so far
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):  # Ctrl-C in a terminal reaches the child, too
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(_TEARDOWN_S)
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode not in allowed:
            last_lines = err.read().decode(errors="replace").strip().splitlines()[-5:]
            raise ChildFailedError(f"{' '.join(command)} exited with {process.returncode}: " + "\n".join(last_lines))
        return Child(stdout=out.read().decode(errors="replace"), peak_mb=usage.ru_maxrss / 1024)


def this_tree() -> Tree:
    return Tree(name="this tree", folder=places.SHIPPED, python=sys.executable)


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Tree]:
    """Check a commit out into a temporary folder, which is removed at the end.

    A clone with shared objects serves better than a worktree: the repository does not record it, so nothing is left in
    the repository even if this process is killed.

    :raises UsageError: for an unknown revision, without git, or outside a git checkout.
    """
    commit = _git(places.SHIPPED, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    with tempfile.TemporaryDirectory(prefix="pooler-harness-bench-") as folder:
        checkout = Path(folder) / "tree"
        _git(places.SHIPPED, "clone", "--quiet", "--shared", "--no-checkout", str(places.SHIPPED), str(checkout))
        _git(checkout, "checkout", "--quiet", "--detach", commit)
        python = sys.executable
        if _dependencies(checkout) != _dependencies(places.SHIPPED):
            python = _environment(checkout, Path(folder) / "environment")
        yield Tree(name=commit[:12], folder=checkout, python=python)


def _git(folder: Path, *arguments: str) -> str:
    try:
        # in a session of its own: Ctrl-C in a terminal ends the bench, which then ends git
        completed = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            start_new_session=True,
            env=git_environment(),
        )
    except FileNotFoundError:
        raise UsageError("--beside needs git, which is not installed") from None
    except subprocess.CalledProcessError as error:
        output = error.stderr.strip() or "no such commit"
        raise UsageError(f"--beside: git {arguments[0]}: {output}", hint="--beside HEAD~1") from None
    return completed.stdout


def _dependencies(folder: Path) -> Any:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project.get("optional-dependencies", {}).get(_EXTRA)


def _environment(checkout: Path, folder: Path) -> str:
    """Create a virtual environment with the dependencies of that commit, and return its interpreter."""
    run_child([sys.executable, "-m", "venv", str(folder)], folder=checkout, environment=os.environ)
    python = str(folder / "bin" / "python")
    run_child(
        [python, "-m", "pip", "install", "--quiet", "-e", f".[{_EXTRA}]"], folder=checkout, environment=os.environ
    )
    return python
