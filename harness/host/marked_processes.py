"""Processes that a command started and left behind: found by a variable in their environment, which children inherit.

A process in a session of its own is in no process group of the command, and a process whose parent has ended is no
longer its descendant. Both keep their environment. Without /proc nothing is found, and a process that cleared its
environment is found only as a descendant.
"""

from __future__ import annotations

import contextlib
import os
import signal
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.owner import process_started
from harness.engine.processes import descendants, pids
from harness.errors import TimedOutError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Event

_PROC = Path("/proc")
#: new processes may start while others end
_MOST_ROUNDS = 3
_LONGEST_NAME = 60


def below(pid: int) -> dict[int, int]:
    """Return the descendants of a process, each with its start time; also those that cleared their environment."""
    return {child: started for child in descendants(pid) if (started := process_started(child)) is not None}


def end_marked(
    mark: str, known: Mapping[int, int], grace_s: float, hurry: Event | None = None
) -> tuple[str, ...]:
    """End all processes of a command, first with SIGTERM, then with SIGKILL, and return their names.

    :param mark: the variable in their environment.
    :param known: further processes of the command, each with its start time.
    :param grace_s: between SIGTERM and SIGKILL, seconds.
    :param hurry: ends that time when set.
    """
    names: dict[int, str] = {}
    for _ in range(_MOST_ROUNDS):
        left = running({**marked(mark), **known})
        if not left:
            break
        names |= {pid: name_of(pid) for pid in left if pid not in names}
        for number, cancelled in ((signal.SIGTERM, hurry), (signal.SIGKILL, None)):
            send(left, number)
            send(left, signal.SIGCONT)  # a frozen process handles SIGTERM once it continues
            with contextlib.suppress(TimedOutError):
                poll(_gone(left), what="processes of the command to end", deadline_s=grace_s, cancelled=cancelled)
                break
    return tuple(name for _, name in sorted(names.items()))


def marked(mark: str) -> dict[int, int]:
    """Return the running processes with a variable in their environment, each with its start time."""
    wanted = f"\0{mark}=".encode()
    found = {}
    for pid in pids():
        # read again, because its number may belong to another process meanwhile
        if (
            wanted in _environment(pid)
            and (started := process_started(pid)) is not None
            and wanted in _environment(pid)
        ):
            found[pid] = started
    return found


def in_session(leader: int) -> dict[int, int]:
    """Return the running processes of a session, each with its start time.

    A process stays in its session when its parent ends, and when it clears its environment or leaves its group.
    """
    found = {}
    for pid in pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader and (started := process_started(pid)) is not None:
                found[pid] = started
    return found


def _environment(pid: int) -> bytes:
    """Return the environment of a process, each variable after a NUL; empty if it ended or belongs to another user."""
    try:
        with FileIO(f"/proc/{pid}/environ") as file:
            return b"\0" + file.readall()
    except OSError:
        return b""


def running(processes: Mapping[int, int]) -> dict[int, int]:
    """Return those of the processes that still run."""
    return {pid: started for pid, started in processes.items() if process_started(pid) == started}


def _gone(processes: Mapping[int, int]) -> Callable[[], None]:
    def probe() -> None:
        if running(processes):
            raise NotYet("a process of the command still runs")

    return probe


def send(processes: Mapping[int, int], number: signal.Signals) -> None:
    """Send a signal to those of the processes that still run."""
    for pid in running(processes):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def name_of(pid: int) -> str:
    """Return the program of a process and its number; its arguments may hold secrets."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    program = os.fsdecode(words[0] if words else b"").rpartition("/")[2].strip()[:_LONGEST_NAME]
    return f"{program or 'a process'} (process {pid})"
