"""Where things lie: the shipped folders, the user's project, the cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

#: In a checkout the shipped folders lie beside the package; in a wheel, below `share`.
SHIPPED = PACKAGE.parent if (PACKAGE.parent / "topologies").is_dir() else PACKAGE / "share"

TOPOLOGIES = SHIPPED / "topologies"
TEMPLATES = SHIPPED / "templates"


def cache() -> Path:
    """Return the cache folder, creating it.

    Root's home is closed to the unprivileged user that database servers run as, so root keeps its
    cache in /var/cache.
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
