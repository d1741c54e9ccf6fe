"""The tags of a library's repository, read offline with git, and the version that each names."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.preflight.project_files import Folder

_DEADLINE_S = 20
#: set by git for its hooks; they name another repository than the folder's own
_NAMES_A_REPOSITORY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE",
)
_LIST = ("for-each-ref", "--format=%(refname:strip=2)", "refs/tags")


class Tags(Struct, frozen=True, kw_only=True):
    """Tag names as git lists them, or why there are none."""

    names: tuple[str, ...] = ()
    why: str = ""


class Release(Struct, frozen=True, kw_only=True):
    """A tag that names a version."""

    tag: str
    #: as the language orders versions
    version: Any


def command_of(project: Folder) -> str:
    """Return the command that lists the tags, for a reader to repeat."""
    return f"git -C {project.at('')} {_LIST[0]} '{_LIST[1]}' {_LIST[2]}"


def read_tags(project: Folder, manifest: str) -> Tags:
    """Return the tags of the repository that the manifest is tracked in.

    A library that only lies in another repository's folder, as dependencies do, has none of that one's tags.
    """
    tracked = _git(project, "ls-files", "--error-unmatch", "--", manifest)
    if isinstance(tracked, str):
        return Tags(why=f"git does not find {manifest} tracked here: {tracked}")
    listed = _git(project, *_LIST)
    if isinstance(listed, str):
        return Tags(why=f"git cannot list the tags: {listed}")
    return Tags(names=tuple(listed))


def releases(names: tuple[str, ...], package: str, parse: Callable[[str], Any]) -> list[Release]:
    """Return the tags that name a version, oldest version first.

    `1.2.0`, `v1.2.0`, and where the repository has several packages, `demo-v1.2.0`, `demo/1.2.0` or `demo@1.2.0`: as
    soon as one tag names the package, those that do not are taken for another's.
    """
    package_words = r"[-_.]+".join(map(re.escape, re.split(r"[-_.]+", package))) or r"(?!)"
    own = re.compile(rf"{package_words}[-_/@]v?(?P<version>[0-9].*)", re.IGNORECASE)
    plain = re.compile(r"v?(?P<version>[0-9].*)", re.IGNORECASE)
    for pattern in (own, plain):
        found = [
            Release(tag=name, version=version)
            for name in names
            if (match := pattern.fullmatch(name)) and (version := parse(match["version"])) is not None
        ]
        if found:
            return sorted(found, key=lambda each: (each.version, each.tag))
    return []


def _git(project: Folder, *arguments: str) -> list[str] | str:
    """Return the lines that git prints, or why it does not."""
    environment = {key: value for key, value in os.environ.items() if key not in _NAMES_A_REPOSITORY}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(  # noqa: S603 -- fixed arguments, and a file name that a manifest reader knows
            # a repository's own configuration may name a program for this
            ["git", "-c", "core.fsmonitor=false", "-C", str(project.path), *arguments],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_DEADLINE_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {_DEADLINE_S} s"
    except OSError as error:
        return f"git does not run: {error.strerror}"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it failed and said nothing"])[0]
    return done.stdout.splitlines()
