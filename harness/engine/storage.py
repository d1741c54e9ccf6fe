"""Where data directories are kept: in memory where there is room, else on disk.

With data in memory a run takes about half the time: most of what a check costs is the creation and removal of files.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import ServiceFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

_MIB = 2**20
#: the least that one topology's data gets; a full file system ends its checks as Not run
LAB_MIB = 1024
#: the most: with it, no database has to be dropped while the topology is up
ROOMY_MIB = 2560
#: left to everything else on the machine
_SPARE_MIB = 512
#: a topology that finds less keeps its data on disk
NEEDED_MIB = LAB_MIB + _SPARE_MIB

_MEMINFO = Path("/proc/meminfo")
#: of the control group that a container or a service manager puts this process into; version 2, then version 1
_CGROUP_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


class StoragePolicy(StrEnum):
    """The values of `--storage`."""

    #: in memory when enough is available
    AUTO = "auto"
    #: in memory, or the topology does not start
    MEMORY = "memory"
    DISK = "disk"


class DataStorage(Struct, frozen=True, kw_only=True):
    """Where the data directory of one topology's server is."""

    #: how much memory it may take; 0 on disk
    memory_mib: int = 0
    #: one sentence for the evidence
    note: str

    @property
    def in_memory(self) -> bool:
        return self.memory_mib > 0


class MemoryBudget:
    """Gives memory to topologies as long as there is enough, counting what it gave and is not returned."""

    def __init__(self, policy: StoragePolicy, available_mib: Callable[[], int]) -> None:
        """Give nothing yet.

        :param available_mib: returns how much memory is available for data now, in MiB.
        """
        self._policy = policy
        self._available_mib = available_mib
        self._given_mib = 0
        self._lock = Lock()

    def take(self, *, durable: bool) -> DataStorage:
        """Decide where a topology's data goes. Memory that was taken is returned with :meth:`give_back`.

        :param durable: the topology must survive a crash of its server, so its data belongs on disk.
        :raises ServiceFailedError: when memory was demanded and is not available.
        """
        if durable:
            return DataStorage(note="on disk, with fsync: the topology is declared durable")
        if self._policy is StoragePolicy.DISK:
            return DataStorage(note="on disk, without fsync: --storage disk was asked for")
        with self._lock:
            available = self._available_mib() - self._given_mib
            if available >= NEEDED_MIB:
                # half of what is left, so that the topologies after it find room, too
                memory_mib = max(LAB_MIB, min(ROOMY_MIB, (available - _SPARE_MIB) // 2))
                self._given_mib += memory_mib
                return DataStorage(memory_mib=memory_mib, note=f"in memory, {memory_mib} MiB at most")
        found = f"{NEEDED_MIB} MiB of memory are needed for its data, and {max(0, available)} MiB are available"
        if self._policy is StoragePolicy.MEMORY:
            raise ServiceFailedError(found, hint="--storage disk, or fewer topologies at a time")
        return DataStorage(note=f"on disk, without fsync: {found}")

    def describe(self) -> str:
        """Return in one sentence how much memory is available, and how many topologies it is enough for."""
        available = max(0, self._available_mib())
        return (
            f"{available} MiB of memory for data: enough for "
            f"{available // NEEDED_MIB} topologies at a time; "
            "others keep their data on disk"
        )

    def refused(self, storage: DataStorage, why: str) -> DataStorage:
        """Return what a topology gets whose memory the engine refused.

        :param storage: what it was given; its memory is returned.
        :raises ServiceFailedError: when memory was demanded.
        """
        if self._policy is StoragePolicy.MEMORY:
            raise ServiceFailedError(f"the data cannot be kept in memory: {why}", hint="--storage disk")
        self.give_back(storage)
        return DataStorage(note=f"on disk, without fsync: the engine refused memory for it: {why}")

    def give_back(self, storage: DataStorage) -> None:
        """Return one topology's memory."""
        with self._lock:
            self._given_mib -= storage.memory_mib


def available_here_mib() -> int:
    """Return how much memory this machine has available, within the limit of our control group; 0 when unknown.

    Sources: proc(5), MemAvailable; the kernel's documentation of cgroup-v1 and cgroup-v2.
    """
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        available = int(lines["MemAvailable"].split()[0]) // 1024
    except (OSError, KeyError, ValueError):
        return 0
    for limit, used in _CGROUP_LIMITS:
        try:
            left = (int(limit.read_text()) - int(used.read_text())) // _MIB
        except (OSError, ValueError):  # "max" is written where there is no limit
            continue
        available = min(available, max(0, left))
    return available
