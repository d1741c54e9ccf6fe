"""Locations: the package, the folders that ship with it, and the cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

#: in a checkout the shipped folders are next to the package, in a wheel below `share`
SHIPPED = PACKAGE.parent if (PACKAGE.parent / "topologies").is_dir() else PACKAGE / "share"

TOPOLOGIES = SHIPPED / "topologies"
TEMPLATES = SHIPPED / "templates"


def cache() -> Path:
    """Return the cache folder, and create it if it is missing.

    Database servers run as an unprivileged user that cannot read root's home, so root's cache is in /var/cache. When
    the folder cannot be created, the cache is in the folder for temporary files.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        folder = Path(base)
    elif os.geteuid() == 0:
        folder = Path("/var/cache")
    else:
        folder = Path.home() / ".cache"
    folder = folder / "pooler-harness"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"pooler-harness-cache-{os.geteuid()}"
        folder.mkdir(parents=True, exist_ok=True)
    return folder
