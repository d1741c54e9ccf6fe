"""The storage of data: which topologies get memory, and what the others get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine import storage
from harness.engine.storage import LAB_MIB, ROOMY_MIB, DataStorage, MemoryBudget, StoragePolicy, available_here_mib
from harness.errors import ServiceFailedError

if TYPE_CHECKING:
    from pathlib import Path

PLENTY = 100 * LAB_MIB


def budget(policy: StoragePolicy, available_mib: int) -> MemoryBudget:
    return MemoryBudget(policy, lambda: (available_mib, ""))


@pytest.mark.parametrize("policy", [StoragePolicy.AUTO, StoragePolicy.MEMORY])
def test_data_is_kept_in_memory_if_enough_is_available(policy: StoragePolicy) -> None:
    found = budget(policy, PLENTY).take(durable=False)
    assert found.in_memory
    assert found == DataStorage(memory_mib=ROOMY_MIB, note=f"in memory, {ROOMY_MIB} MiB at most")


@pytest.mark.parametrize("policy", list(StoragePolicy))
def test_durable_data_is_on_disk_even_if_memory_is_available(policy: StoragePolicy) -> None:
    found = budget(policy, PLENTY).take(durable=True)
    assert not found.in_memory
    assert "with fsync" in found.note


def test_the_policy_disk_uses_no_memory() -> None:
    assert not budget(StoragePolicy.DISK, PLENTY).take(durable=False).in_memory


def test_with_too_little_memory_data_is_on_disk_and_the_note_has_the_numbers() -> None:
    found = budget(StoragePolicy.AUTO, 700).take(durable=False)
    assert not found.in_memory
    assert found.note == "on disk, without fsync: its data needs 1536 MiB of memory, and 700 MiB are available"


def test_demanded_memory_is_never_replaced_by_disk() -> None:
    with pytest.raises(ServiceFailedError, match="needs 1536 MiB of memory") as raised:
        budget(StoragePolicy.MEMORY, 700).take(durable=False)
    assert "--storage disk" in raised.value.hint
    with pytest.raises(ServiceFailedError, match="no tmpfs here"):
        budget(StoragePolicy.MEMORY, PLENTY).refused(DataStorage(memory_mib=LAB_MIB, note=""), "no tmpfs here")


@given(available=st.integers(0, 20 * LAB_MIB))
def test_the_description_has_the_number_of_topologies_that_get_memory(available: int) -> None:
    shared = budget(StoragePolicy.AUTO, available)
    described = shared.describe(most=4)
    served = 0
    while served < 4 and shared.take(durable=False).in_memory:
        served += 1
    enough = "the 4 topologies that run at a time" if served == 4 else f"{served} of 4 topologies at a time; "
    assert described.startswith(f"{available} MiB of memory for data: enough for {enough}")


def test_the_note_has_the_reason_for_no_memory() -> None:
    shared = MemoryBudget(StoragePolicy.AUTO, lambda: (0, "/memory/x is not a folder of this user"))
    assert shared.take(durable=False).note == "on disk, without fsync: /memory/x is not a folder of this user"
    assert "not a folder of this user" in shared.describe(most=4)


@given(available=st.integers(0, 20 * LAB_MIB), labs=st.integers(1, 30))
def test_all_topologies_together_get_at_most_the_available_memory(available: int, labs: int) -> None:
    shared = budget(StoragePolicy.AUTO, available)
    taken = [shared.take(durable=False) for _ in range(labs)]
    assert sum(data.memory_mib for data in taken) <= available
    assert all(LAB_MIB <= data.memory_mib <= ROOMY_MIB for data in taken if data.in_memory)
    for data in taken:
        shared.give_back(data)
    assert [shared.take(durable=False) for _ in range(labs)] == taken


def test_memory_that_the_engine_refused_is_available_to_others() -> None:
    shared = budget(StoragePolicy.AUTO, 2 * LAB_MIB)
    refused = shared.take(durable=False)
    assert refused.in_memory
    assert not shared.take(durable=False).in_memory
    assert "the engine refused memory for the data: rootless" in shared.refused(refused, "rootless").note
    assert shared.take(durable=False).in_memory


@pytest.mark.parametrize(
    ("own", "group", "limit", "used", "found"),
    [
        ("0::/\n", "", "max", "1", 4000),
        ("0::/\n", "", "2147483648", "1073741824", 1024),
        ("0::/user/unit\n", "user/unit", "1", "2147483648", 0),
        ("0::/user/unit/deeper\n", "user/unit", "2147483648", "1073741824", 1024),
        ("5:cpu,memory:/outer/inner\n", "memory/outer", "2147483648", "1073741824", 1024),
        ("5:cpu:/outer\n", "memory/outer", "2147483648", "1073741824", 4000),
        ("nonsense\n", "", "x", "1", 4000),
    ],
)
def test_the_limits_of_all_control_groups_of_this_process_are_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, group: str, limit: str, used: str, found: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable:   4096000 kB\n")
    (tmp_path / "own").write_text(own)
    folder = tmp_path / "groups" / group
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if "memory" in group else ("memory.max", "memory.current")
    )
    for name, text in zip(names, (limit, used), strict=True):
        (folder / name).write_text(text)
    monkeypatch.setattr(storage, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(storage, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(storage, "_GROUPS", tmp_path / "groups")
    assert available_here_mib() == found


def test_an_unknown_amount_counts_as_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_MEMINFO", tmp_path / "meminfo")
    assert available_here_mib() == 0
