"""What is made once on this machine for all runs: its name in the cache, and the lock of the run that makes it."""

from __future__ import annotations

import fcntl
import hashlib
from typing import IO

from harness.waiting import NotYet


def named_by(*parts: str) -> str:
    """Return the end of a name, which differs as soon as one part does."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def take(lock: IO[str], taken: str) -> None:
    """Take the lock of a file that other processes and threads have opened, too. It ends with this opening.

    :param taken: the state in which another one holds it, for a wait.
    :raises NotYet: when another one holds it.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotYet(taken) from None
