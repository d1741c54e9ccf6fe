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
    from collections.abc import Callable, Iterator

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
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


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

    def __init__(self, policy: StoragePolicy, available: Callable[[], tuple[int, str]]) -> None:
        """Give nothing yet.

        :param available: returns how much memory is available for data now, in MiB, and why there is none: "" when the
            number says it all.
        """
        self._policy = policy
        self._available = available
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
            available, why = self._available()
            available -= self._given_mib
            if memory_mib := _share(available):
                self._given_mib += memory_mib
                return DataStorage(memory_mib=memory_mib, note=f"in memory, {memory_mib} MiB at most")
        found = why or f"{NEEDED_MIB} MiB of memory are needed for its data, and {max(0, available)} MiB are available"
        if self._policy is StoragePolicy.MEMORY:
            raise ServiceFailedError(found, hint="--storage disk, or fewer topologies at a time")
        return DataStorage(note=f"on disk, without fsync: {found}")

    def describe(self) -> str:
        """Return in one sentence how much memory is available, and how many topologies get some at a time."""
        if self._policy is StoragePolicy.DISK:
            return "data is kept on disk: --storage disk was asked for"
        available, why = self._available()
        topologies, left = 0, available
        while share := _share(left):
            topologies, left = topologies + 1, left - share
        others = "others do not start" if self._policy is StoragePolicy.MEMORY else "others keep it on disk"
        return f"{why or f'{available} MiB of memory for data'}: enough for {topologies} topologies at a time; {others}"

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


def _share(available_mib: int) -> int:
    """Return what one topology gets of the memory that is available, in MiB; 0 when it is not enough."""
    if available_mib < NEEDED_MIB:
        return 0
    # half of it, so that the topologies after it find room, too
    return max(LAB_MIB, min(ROOMY_MIB, (available_mib - _SPARE_MIB) // 2))


def available_here_mib() -> int:
    """Return how much memory this machine has available, within the limits of our control groups; 0 when unknown.

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
            except (OSError, ValueError):  # "max" is written where there is no limit
                continue
            available = min(available, max(0, left))
    return available


def _own_groups() -> Iterator[Path]:
    """Yield the folders of the control groups that limit the memory of this process, from its own to the root.

    Source: cgroups(7), /proc/pid/cgroup: `hierarchy:controllers:path`, with no controllers in version 2.
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
