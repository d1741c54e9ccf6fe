"""Reads the tags of a library's repository with git, offline, and the versions that they name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.preflight.git_access import GitFailure, git_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.preflight.project_files import Folder

_LIST = ("for-each-ref", "--format=%(refname:strip=2)", "refs/tags")


class Tags(Struct, frozen=True, kw_only=True):
    """Tag names, or the reason why they cannot be listed."""

    names: tuple[str, ...] = ()
    why: str = ""


class Release(Struct, frozen=True, kw_only=True):
    """A tag that names a version."""

    tag: str
    #: in the language's own version type, which defines the order
    version: Any


def command_of(project: Folder) -> str:
    """Return the command that lists the tags, as evidence that a reader can repeat."""
    return f"git -C {project.at('')} {_LIST[0]} '{_LIST[1]}' {_LIST[2]}"


def read_tags(project: Folder, manifest: str) -> Tags:
    """Return the tags of the repository that tracks the manifest.

    A library in an untracked folder of another repository, such as a dependency, does not have that repository's tags.
    """
    tracked = git_text(project.path, "ls-files", "--error-unmatch", "--", manifest)
    if isinstance(tracked, GitFailure):
        return Tags(why=f"git does not track {manifest}: {tracked.why}")
    listed = git_text(project.path, *_LIST)
    if isinstance(listed, GitFailure):
        return Tags(why=f"the tags cannot be listed: {listed.why}")
    return Tags(names=tuple(listed.splitlines()))


def releases(names: tuple[str, ...], package: str, parse: Callable[[str], Any]) -> list[Release]:
    """Return the tags that name a version, lowest version first.

    Formats are `1.2.0` and `v1.2.0`, and in a repository of several packages `demo-v1.2.0`, `demo/1.2.0` or
    `demo@1.2.0`. If any tag names the package, tags without its name are ignored: they belong to another package.

    :param parse: returns a comparable version; None for an invalid one.
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
            return sorted(found, key=lambda release: (release.version, release.tag))
    return []
