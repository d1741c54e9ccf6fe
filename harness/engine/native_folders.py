"""The folders of native servers, on disk and in memory."""

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
from harness.errors import TimedOutError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Iterator

#: names the run that a group belongs to
OWNER = "owner.json"
_REMOVED_S = 10.0
#: the file system in memory on Linux; on other systems data is kept on disk
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- a folder below it is used, and its owner is checked


def runs_on_disk() -> Path:
    """Return the folder of runs in the cache."""
    folder = places.cache() / "native"
    folder.mkdir(exist_ok=True)
    return folder


def runs_in_memory() -> Path:
    """Return this user's folder of runs in shared memory."""
    return _SHARED_MEMORY / f"pooler-harness-{os.geteuid()}"


def memory_available() -> tuple[int, str]:
    """Return the memory for data in MiB, and the reason when it is 0."""
    folder = runs_in_memory()
    try:
        if not os.path.ismount(_SHARED_MEMORY):
            return 0, f"{_SHARED_MEMORY} is not a file system in memory"
        folder.mkdir(mode=0o755, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():  # another user created it
            return 0, f"{folder} is not a folder of this user"
        open_to_servers(folder)
        return min(shutil.disk_usage(folder).free // 2**20, available_here_mib()), ""
    except FileExistsError:
        return 0, f"{folder} is not a folder of this user"
    except OSError as error:
        return 0, f"{folder} cannot be used: {error.strerror}"


def open_to_servers(folder: Path) -> None:
    """Give the user that runs servers access to a folder, regardless of the umask; only the owner can write to it."""
    folder.chmod(0o755)


def remove_folder(folder: Path) -> bool:
    """Remove the folder of a group, its owner last, and return whether it is gone.

    A killed run may have left a program that still copies files into it. That program ends when it finds no folder.
    Until then the owner stays: without it, nobody would know that the rest may be removed.
    """

    def others() -> list[Path]:
        return [path for path in folder.iterdir() if path.name != OWNER]

    def gone() -> bool:
        refused = False
        for path in others():
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except PermissionError:  # of another user: waiting does not help
                refused = True
            except OSError:  # something was added or removed meanwhile
                pass
        if (left := others()) and not refused:
            raise NotYet(f"{left[0].name} is still there")
        return not left

    with contextlib.suppress(OSError, TimedOutError):
        if poll(gone, what=f"the removal of {folder}", deadline_s=_REMOVED_S, interval_s=0.02):
            shutil.rmtree(folder)
    return not folder.exists()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file that is shared with other processes."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
