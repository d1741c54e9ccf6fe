"""The owner of a run's servers: leftovers are distinguished from the servers of a live run."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from msgspec import Struct


class Owner(Struct, frozen=True, kw_only=True):
    """The process that owns a run. Its start time distinguishes it from a later process with the same pid."""

    run_id: str
    host: str
    pid: int
    #: the start time in clock ticks after boot, from /proc; 0 on systems without /proc
    started: int

    @classmethod
    def me(cls, run_id: str) -> Owner:
        """Return this process as the owner of a run."""
        return cls(run_id=run_id, host=this_host(), pid=os.getpid(), started=process_started(os.getpid()) or 0)

    def is_gone(self) -> bool:
        """Return whether the owner has certainly ended. An owner on another host is never considered gone."""
        if self.host != this_host():
            return False
        started = process_started(self.pid)
        return started is None or (0 not in {self.started, started} and self.started != started)


def this_host() -> str:
    """Return a name for this boot of the kernel and this pid namespace: a pid is unique only within them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        boot, space = "", ""
    return f"{socket.gethostname()}/{boot[:8]}/{space.removeprefix('pid:')}"


def process_started(pid: int) -> int | None:
    """Return the start time of a process in clock ticks after boot; None if it ended or is a zombie, 0 if unknown.

    Source: proc(5), field 22 of /proc/<pid>/stat.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return None
        return _started_without_proc(pid)
    except ProcessLookupError:  # it ended between opening and reading
        return None
    except OSError:  # for example, the limit of open files is reached: the process may be running
        return 0
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _started_without_proc(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0
