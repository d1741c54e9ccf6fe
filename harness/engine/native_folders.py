"""The folders that native servers run in, on disk and in memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from harness import places
from harness.engine.storage import available_here_mib

if TYPE_CHECKING:
    from collections.abc import Iterator

#: a file system in memory, on Linux; memory for data is there or nowhere
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- with a folder of our own, whose owner is looked at


def runs_on_disk() -> Path:
    folder = places.cache() / "native"
    folder.mkdir(exist_ok=True)
    return folder


def runs_in_memory() -> Path:
    """Return the folder of runs in shared memory; like all of that folder's content, it is for one user."""
    return _SHARED_MEMORY / f"pooler-harness-{os.geteuid()}"


def memory_available() -> tuple[int, str]:
    """Return how much may be kept in shared memory, in MiB, and why nothing may."""
    folder = runs_in_memory()
    try:
        if not os.path.ismount(_SHARED_MEMORY):
            return 0, f"{_SHARED_MEMORY} is not a file system in memory"
        folder.mkdir(mode=0o755, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():  # somebody else was there first
            return 0, f"{folder} is not a folder of this user"
        open_to_servers(folder)
        return min(shutil.disk_usage(folder).free // 2**20, available_here_mib()), ""
    except FileExistsError:
        return 0, f"{folder} is not a folder of this user"
    except OSError as error:
        return 0, f"{folder} cannot be used: {error.strerror}"


def open_to_servers(folder: Path) -> None:
    """Let the user that servers run as pass through a folder, whatever the umask is, and nobody else write to it."""
    folder.chmod(0o755)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
