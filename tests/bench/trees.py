"""Trees of the project: this one, and another commit that is measured in the same session."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: what the harness takes at most to tear its servers down after Ctrl-C
_TEARDOWN_S = 60.0
#: of the extras, those that a run needs
_EXTRA = "drivers"


class Tree(Struct, frozen=True, kw_only=True):
    """A checkout, and the interpreter that has its dependencies."""

    name: str
    folder: Path
    python: str

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder), "NO_COLOR": "1"}

    def harness(self, folder: Path, *arguments: str, allowed: tuple[int, ...] = (0, 1)) -> Child:
        """Run a command of this tree's harness in a folder; an Issue (exit 1) is a result."""
        return run_child(
            [self.python, "-m", "harness", *arguments], folder=folder, environment=self.environment(), allowed=allowed
        )


class Child(Struct, frozen=True, kw_only=True):
    """A process that ended."""

    stdout: str
    peak_mb: float


class ChildFailedError(HarnessError):
    """A process that is measured did not do what was to be measured."""


def run_child(
    command: list[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    allowed: tuple[int, ...] = (0,),
) -> Child:
    """Run a process to its end; on Ctrl-C it gets the time to tear its servers down.

    :raises ChildFailedError: with the end of what it wrote to stderr.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=given, stdout=out, stderr=err)
        try:
            # the peak of this child alone; getrusage(RUSAGE_CHILDREN) is that of the largest so far
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):  # Ctrl-C in a terminal has reached it, too
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(_TEARDOWN_S)
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode not in allowed:
            told = err.read().decode(errors="replace").strip().splitlines()[-5:]
            raise ChildFailedError(f"{' '.join(command)} ended with {process.returncode}: " + "\n".join(told))
        return Child(stdout=out.read().decode(errors="replace"), peak_mb=usage.ru_maxrss / 1024)


def this_tree() -> Tree:
    return Tree(name="this tree", folder=places.SHIPPED, python=sys.executable)


@contextlib.contextmanager
def beside(revision: str) -> Iterator[Tree]:
    """Check a commit out into a folder of its own, which is gone afterwards.

    It is a clone that shares the objects, and no worktree: even if this process is killed, the repository itself
    knows nothing of it.

    :raises UsageError: for a revision that does not exist, and outside a checkout.
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
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise UsageError("--beside needs git, which is not installed") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or "no such commit"
        raise UsageError(f"--beside: git {arguments[0]}: {said}", hint="--beside HEAD~1") from None
    return done.stdout


def _dependencies(folder: Path) -> Any:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project.get("optional-dependencies", {}).get(_EXTRA)


def _environment(checkout: Path, folder: Path) -> str:
    """Make an environment with the dependencies of that commit."""
    run_child([sys.executable, "-m", "venv", str(folder)], folder=checkout, environment=os.environ)
    python = str(folder / "bin" / "python")
    run_child(
        [python, "-m", "pip", "install", "--quiet", "-e", f".[{_EXTRA}]"], folder=checkout, environment=os.environ
    )
    return python
