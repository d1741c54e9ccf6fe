"""git in a repository that nobody vouches for: offline, without its hooks, pagers and filters, within a deadline."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.git import git_environment

if TYPE_CHECKING:
    from pathlib import Path

_DEADLINE_S = 20
#: the repository's configuration could start programs with these
_SAFE = ("-c", "core.fsmonitor=false", "-c", "log.showSignature=false", "--no-pager")


class GitFailure(Struct, frozen=True):
    """The reason why git gave no answer."""

    why: str


def git_command(folder: Path, *arguments: str) -> list[str]:
    """Return the command line of git in a folder."""
    return ["git", *_SAFE, "-C", str(folder), *arguments]


def git_text(folder: Path, *arguments: str) -> str | GitFailure:
    """Return the output of git, or the reason of its failure."""
    try:
        done = subprocess.run(  # noqa: S603 -- the callers' arguments, without a shell
            git_command(folder, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_DEADLINE_S,
            env=git_environment(),
        )
    except subprocess.TimeoutExpired:
        return GitFailure(f"git did not end within {_DEADLINE_S} s")
    except OSError as error:
        return GitFailure(f"git cannot be started: {error.strerror}")
    if done.returncode:
        return GitFailure((done.stderr.strip().splitlines() or [f"git failed with exit code {done.returncode}"])[0])
    return done.stdout
