"""Processes and their descendants, from /proc; running a program to its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.owner import process_started
from harness.errors import HarnessError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

_GONE_DEADLINE_S = 10.0


def pids() -> list[int]:
    """Return the pids of all processes; none without /proc."""
    try:
        with os.scandir("/proc") as entries:
            return [int(entry.name) for entry in entries if entry.name.isdecimal()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants of a process. A process group would miss PostgreSQL's server processes."""
    children: dict[int, list[int]] = {}
    for child in pids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            with FileIO(f"/proc/{child}/stat") as file:
                fields = file.readall().rpartition(b")")[2].split(maxsplit=2)
            children.setdefault(int(fields[1]), []).append(child)
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped all threads of a process, or it has ended.

    Source: proc(5), field 3 of /proc/<pid>/task/<tid>/stat.
    """
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it ended, also while the folder was opened
        return True
    return all(_state(thread / "stat") in {b"T", b"Z", b"X"} for thread in threads)


def _state(path: Path) -> bytes:
    try:
        with FileIO(path) as file:
            return file.readall().rpartition(b")")[2].split(maxsplit=1)[0]
    except (OSError, IndexError):
        return b"X"


def end_all(pid: int, number: signal.Signals) -> None:
    """Signal a process and all its descendants, and wait until the descendants are gone."""
    below = {child: process_started(child) for child in descendants(pid)}
    for target in [pid, *below]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, number)

    def all_gone() -> None:
        left = [child for child, started in below.items() if started is not None and process_started(child) == started]
        if left:
            raise NotYet(f"processes {left}")

    with contextlib.suppress(HarnessError):
        poll(all_gone, what="the server's children to end", deadline_s=_GONE_DEADLINE_S, interval_s=0.005)


def output_of(command: list[str], as_user: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and return its exit code, and its stdout and stderr in one text.

    :param as_user: subprocess's options for the user that runs it; empty for this process's user.
    :raises OSError: when the program cannot be started.
    """
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]  # noqa: S603 -- our own arguments
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd="/",
        **as_user,
    )
    return done
