"""The code that produced the evidence: version, git commit, and a fingerprint of everything that decides a result."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness import places
from harness.git import git_environment
from harness.model import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DECIDES = (".py", ".sql", ".toml", ".j2", "Dockerfile")
#: they decide no result of a run
_PRINTS_ONLY = ("cli", "gates", "lint", "markdown", "report")


def provenance(code: str = "") -> Provenance:
    """Describe the code that is running.

    :param code: its fingerprint, if the caller has it already.
    """
    checkout = _is_checkout()
    python, psycopg = _runtime()
    return Provenance(
        tool_version=_version("pooler-harness"),
        commit=(_git("rev-parse", "HEAD") or "") if checkout else _installed_commit(),
        dirty=checkout and _git("status", "--porcelain") != "",
        fingerprint=code or fingerprint(),
        python=python,
        psycopg=psycopg,
    )


def of_this_code(codes: Iterable[Provenance], code: str = "") -> set[Provenance]:
    """Return those that are of the code that is running, whatever Python and psycopg they ran on.

    :param code: the fingerprint of the code that is running, if the caller has it already.
    """
    codes = set(codes)
    known = {_runtime(): code} if code else {}
    here = {
        runtime: known.get(runtime) or fingerprint(*runtime)
        for runtime in {(code.python, code.psycopg) for code in codes}
    }
    return {code for code in codes if code.fingerprint == here[code.python, code.psycopg]}


def fingerprint(python: str = "", psycopg: str = "") -> str:
    """Return a hash of everything that decides a result, except the topology.

    It covers the code, the recipes and configuration templates, Python and psycopg. Code that only prints is left out,
    so that a corrected sentence does not invalidate the evidence. Topology files are left out because a run records
    its topologies.

    :param python: the version of Python; the one that is running when empty.
    :param psycopg: the version of psycopg; the installed one when empty.
    """
    own_python, own_psycopg = _runtime()
    digest = hashlib.sha256(f"{python or own_python} {psycopg or own_psycopg}".encode())
    for root in (places.PACKAGE, places.TOPOLOGIES):
        for inside in sorted(_files(root)):
            topology_file = root == places.TOPOLOGIES and "/" not in inside
            if not topology_file:
                # an editor's lock is a link to a file that does not exist
                with suppress(FileNotFoundError):
                    with open(f"{root}/{inside}", "rb") as file:  # noqa: PTH123 -- a Path for each of 700 files costs more
                        text = file.read()
                    digest.update(f"{inside}\0".encode() + hashlib.sha256(text).digest())
    return digest.hexdigest()[:16]


def _files(root: Path) -> Iterator[str]:
    """Yield the files that decide a result, relative to a folder."""
    for folder, folders, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        if inside == ".":
            folders[:] = [name for name in folders if name not in {*_PRINTS_ONLY, "share"}]
        prefix = "" if inside == "." else f"{inside}/"
        yield from (prefix + name for name in names if name.endswith(_DECIDES))


def _runtime() -> tuple[str, str]:
    """Return the versions of Python and psycopg that are running."""
    return platform.python_version(), _version("psycopg")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _is_checkout() -> bool:
    """Return whether the code is a checkout of its own, and not a copy within another project's repository."""
    top = _git("rev-parse", "--show-toplevel")
    return top is not None and Path(top).resolve() == places.SHIPPED.resolve()


def _installed_commit() -> str:
    """Return the commit that pip installed, when it installed from a repository; else ""."""
    with suppress(metadata.PackageNotFoundError, msgspec.MsgspecError):
        text = metadata.distribution("pooler-harness").read_text("direct_url.json") or "{}"
        return msgspec.json.decode(text, type=_DirectUrl).vcs_info.get("commit_id", "")
    return ""


class _DirectUrl(msgspec.Struct):
    """The part of PEP 610's `direct_url.json` that names a commit."""

    vcs_info: dict[str, str] = {}


def _git(*arguments: str) -> str | None:
    """Return the output of git in the folder of the code; None when it fails."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(places.SHIPPED), *arguments],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
            env=git_environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
