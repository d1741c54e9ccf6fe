"""The code that produced the evidence: version, git commit, and a fingerprint of everything that decides a result."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING

from harness import places
from harness.model import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_DECIDES = (".py", ".sql", ".toml", ".j2", "Dockerfile")
#: they decide no result of a run
_PRINTS_ONLY = ("cli", "lint", "markdown", "report")


def provenance() -> Provenance:
    """Describe the code that is running."""
    return Provenance(
        tool_version=_version("pooler-harness"),
        commit=_git("rev-parse", "HEAD"),
        dirty=bool(_git("status", "--porcelain")),
        fingerprint=fingerprint(),
        python=platform.python_version(),
        psycopg=_version("psycopg"),
    )


def fingerprint() -> str:
    """Return a hash of everything that decides a result, except the topology.

    It covers the code, the recipes and configuration templates, Python and psycopg. Code that only prints is left out,
    so that a corrected sentence does not invalidate the evidence. Topology files are left out because a run records
    its topologies.
    """
    digest = hashlib.sha256(f"{platform.python_version()} {_version('psycopg')}".encode())
    for root in (places.PACKAGE, places.TOPOLOGIES):
        for path in sorted(_files(root)):
            inside = path.relative_to(root)
            topology_file = root == places.TOPOLOGIES and len(inside.parts) == 1
            if inside.parts[0] not in (*_PRINTS_ONLY, "share") and not topology_file:
                digest.update(f"{inside}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files(root: Path) -> Iterable[Path]:
    return (path for path in root.rglob("*") if path.name.endswith(_DECIDES) and path.is_file())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(places.SHIPPED), *arguments],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
