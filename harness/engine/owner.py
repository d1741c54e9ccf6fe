"""Who a run's servers belong to, so that what a killed run left is told from what a living one uses."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from msgspec import Struct


class Owner(Struct, frozen=True, kw_only=True):
    """The process that a run belongs to, told apart from a later one that got the same pid."""

    run_id: str
    host: str
    pid: int
    #: clock ticks after boot, from /proc; 0 where there is no /proc
    started: int

    @classmethod
    def me(cls, run_id: str) -> Owner:
        return cls(run_id=run_id, host=this_host(), pid=os.getpid(), started=process_started(os.getpid()) or 0)

    def is_gone(self) -> bool:
        """Say whether the owner surely ended; an owner on another host is never known to be gone."""
        if self.host != this_host():
            return False
        started = process_started(self.pid)
        return started is None or (0 not in {self.started, started} and self.started != started)


def this_host() -> str:
    """Return a name for this kernel and pid namespace since its boot: pids mean nothing beyond it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        boot, space = "", ""
    return f"{socket.gethostname()}/{boot[:8]}/{space.removeprefix('pid:')}"


def process_started(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None when it is gone or a zombie, 0 when unknown.

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
    except OSError:  # no more files can be opened, say: that tells nothing of the process
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
