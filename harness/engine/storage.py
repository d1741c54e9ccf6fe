"""The storage of data directories: memory if enough is available, else disk.

With data in memory a run takes about half the time, because a check spends most of its time on creating and removing
files.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import ServiceFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MIB = 2**20
#: the minimum for one topology's data; the checks on a full file system are Not run
LAB_MIB = 1024
#: the maximum; with this much, no database has to be dropped before the topology ends
ROOMY_MIB = 2560
#: reserved for everything else on the machine
_SPARE_MIB = 512
#: with less, a topology keeps its data on disk
NEEDED_MIB = LAB_MIB + _SPARE_MIB

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


class StoragePolicy(StrEnum):
    """The values of `--storage`: where servers keep their data."""

    #: in memory when enough is available
    AUTO = "auto"
    #: in memory, or the topology does not start
    MEMORY = "memory"
    #: on disk, without fsync
    DISK = "disk"


class DataStorage(Struct, frozen=True, kw_only=True):
    """The storage of one topology's data directory."""

    #: the memory limit; 0 on disk
    memory_mib: int = 0
    #: one sentence for the evidence
    note: str

    @property
    def in_memory(self) -> bool:
        return self.memory_mib > 0


class MemoryBudget:
    """Reserves memory for topologies while enough is available."""

    def __init__(self, policy: StoragePolicy, available: Callable[[], tuple[int, str]]) -> None:
        """Reserve nothing yet.

        :param available: returns the memory for data that is available now, in MiB, and the reason when it is 0; "" if
            the number is reason enough.
        """
        self._policy = policy
        self._available = available
        self._given_mib = 0
        self._lock = Lock()

    def take(self, *, durable: bool) -> DataStorage:
        """Choose the storage of a topology's data. :meth:`give_back` releases the memory.

        :param durable: the data must survive a crash of the server, and is kept on disk.
        :raises ServiceFailedError: when memory is demanded, and too little is available.
        """
        if durable:
            return DataStorage(note="on disk, with fsync: it has to survive crashes of the server")
        if self._policy is StoragePolicy.DISK:
            return DataStorage(note="on disk, without fsync: --storage disk is set")
        with self._lock:
            available, why = self._available()
            available -= self._given_mib
            if memory_mib := _share(available):
                self._given_mib += memory_mib
                return DataStorage(memory_mib=memory_mib, note=f"in memory, {memory_mib} MiB at most")
        reason = why or f"its data needs {NEEDED_MIB} MiB of memory, and {max(0, available)} MiB are available"
        if self._policy is StoragePolicy.MEMORY:
            raise ServiceFailedError(reason, hint="--storage disk, or fewer topologies at a time")
        return DataStorage(note=f"on disk, without fsync: {reason}")

    def describe(self, most: int) -> str:
        """Return one sentence: how much memory is available, and for how many topologies at a time.

        :param most: the number of topologies that run at a time.
        """
        if self._policy is StoragePolicy.DISK:
            return "data is kept on disk: --storage disk is set"
        available, why = self._available()
        topologies, left = 0, available
        while share := _share(left):
            topologies, left = topologies + 1, left - share
        others = "others do not start" if self._policy is StoragePolicy.MEMORY else "others keep it on disk"
        memory = why or f"{available} MiB of memory for data"
        if topologies >= most:
            return f"{memory}: enough for the {most} topologies that run at a time"
        return f"{memory}: enough for {topologies} of {most} topologies at a time; {others}"

    def refused(self, storage: DataStorage, why: str) -> DataStorage:
        """Return the storage for a topology after the engine refused memory for its data.

        :param storage: the storage that was chosen before; its memory is released.
        :param why: the engine's reason.
        :raises ServiceFailedError: when memory is demanded.
        """
        if self._policy is StoragePolicy.MEMORY:
            raise ServiceFailedError(f"the data cannot be kept in memory: {why}", hint="--storage disk")
        self.give_back(storage)
        return DataStorage(note=f"on disk, without fsync: the engine refused memory for the data: {why}")

    def give_back(self, storage: DataStorage) -> None:
        """Release the memory of one topology."""
        with self._lock:
            self._given_mib -= storage.memory_mib


def _share(available_mib: int) -> int:
    """Return one topology's share of the available memory in MiB; 0 when too little is available."""
    if available_mib < NEEDED_MIB:
        return 0
    # half of it at most, so that enough remains for the next topologies
    return max(LAB_MIB, min(ROOMY_MIB, (available_mib - _SPARE_MIB) // 2))


def available_here_mib() -> int:
    """Return this machine's available memory in MiB, within the limits of this process's control groups; 0 if unknown.

    Source: proc(5), MemAvailable.
    """
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        available = int(lines["MemAvailable"].split()[0]) // 1024
    except (OSError, KeyError, ValueError):
        return 0
    for folder in _own_groups():
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            try:
                left = (int((folder / limit).read_text()) - int((folder / used).read_text())) // _MIB
            except (OSError, ValueError):  # without a limit the file contains "max"
                continue
            available = min(available, max(0, left))
    return available


def _own_groups() -> Iterator[Path]:
    """Yield the folders of the control groups that limit the memory of this process, from the innermost to the root.

    Source: cgroups(7), /proc/pid/cgroup: `hierarchy:controllers:path`; the controllers are empty in version 2.
    """
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _GROUPS / "memory" if controllers else _GROUPS
        own = root / path.lstrip("/")
        yield from (own, *(parent for parent in own.parents if parent == root or root in parent.parents))
