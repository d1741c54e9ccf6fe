"""The order of a run: which topology starts first, and which rows may run side by side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.ordering import (
    begins_with_disruptive,
    breaks_tried_in,
    groups_of,
    longest_first,
    phases_of,
)
from harness.checks.registry import P0, Check, TrailBreak, breaks_trail, check
from harness.checks.topology_records import TopologyRecords
from harness.lab.topologies import load_topologies
from harness.model import JobLabel, PathLabel, Section, ServiceEvidence
from tests.unit.made_up import planned, record, stood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.checks.context import CheckContext

TOPOLOGIES = list(load_topologies().values())[:4]
PATH = PathLabel(name="posts", title="POST /api/posts", kind="HTTP")
JOB = JobLabel(engine="queue", title="Queue", variant="direct", case="works", file="")


def body(_ctx: CheckContext) -> None:
    """Do nothing."""


def checks_of(*checks: Check) -> dict[str, Check]:
    return {declared.id: declared for declared in checks}


def declared(name: str, **traits: Any) -> Check:
    identity = f"capture.{name}"
    return check(identity, claim="it holds", section=Section.CAPTURE, severity=P0, area="x", **traits)(body)


def rows_of(checks: dict[str, Check]) -> list[Any]:
    return [planned("direct", name) for name in checks]


def names(rows: Sequence[Any]) -> list[str]:
    return [row.check.partition(".")[2] for row in rows]


@pytest.mark.parametrize(
    ("rows", "order"),
    [
        ((10, 20, 30, 40), (0, 1, 2, 3)),  # about the same size: they keep their order
        ((10, 60, 120, 40), (2, 1, 0, 3)),
        ((99, 50, 100, 149), (2, 3, 0, 1)),
        ((0, 0, 0, 1000), (3, 0, 1, 2)),
    ],
)
def test_the_longest_topology_starts_first(rows: tuple[int, ...], order: tuple[int, ...]) -> None:
    count = {topology.name: number for topology, number in zip(TOPOLOGIES, rows, strict=True)}
    ordered = longest_first(TOPOLOGIES, lambda topology: count[topology.name])
    assert [TOPOLOGIES.index(topology) for topology in ordered] == list(order)


def test_all_topologies_but_the_first_begin_with_their_disruptive_rows() -> None:
    phases = phases_of([], {})
    begins = [begins_with_disruptive(TOPOLOGIES, topology.name, phases) for topology in TOPOLOGIES]
    assert begins == [False, True, True, True]


@pytest.mark.parametrize(
    ("traits", "begins"), [({}, False), ({"own_servers": True}, True), ({"own_servers": True, "job": JOB}, True)]
)
def test_a_single_topology_begins_with_its_disruptive_rows_next_to_labs_for_faults(
    traits: dict[str, Any], begins: bool
) -> None:
    checks = checks_of(declared("restart", disrupts=True), declared("crash", **traits))
    phases = phases_of(rows_of(checks), checks)
    assert begins_with_disruptive(TOPOLOGIES[:1], TOPOLOGIES[0].name, phases) is begins


def test_rows_are_divided_by_what_may_run_next_to_them() -> None:
    checks = checks_of(
        declared("insert"),
        declared("restart", disrupts=True),
        declared("posts", path=PATH, serial_group="posts"),
        declared("export", serial_group="export"),
        declared("timeouts", disrupts=True, serial_group="timeouts"),
        declared("retries", job=JOB),
        declared("crash", own_servers=True),
        declared("faults", own_servers=True, job=JOB),
        declared("update"),
    )
    phases = phases_of(rows_of(checks), checks)
    assert names(phases.together) == ["insert", "update"]
    assert names(phases.grouped) == ["export"]
    assert names(phases.paths) == ["posts"]
    assert names(phases.disruptive) == ["restart", "timeouts"]
    assert names(phases.jobs) == ["retries"]
    assert names(phases.apart) == ["crash"]
    assert names(phases.jobs_apart) == ["faults"]


traits = st.fixed_dictionaries(
    {
        "disrupts": st.booleans(),
        "path": st.sampled_from([None, PATH]),
        "serial_group": st.sampled_from(["", "one", "two"]),
        "job": st.sampled_from([None, JOB]),
        "own_servers": st.booleans(),
    }
)


@given(st.lists(traits, max_size=8))
def test_every_row_runs_once_and_keeps_its_place(kinds: list[dict[str, Any]]) -> None:
    checks = checks_of(*(declared(f"c{number}", **kind) for number, kind in enumerate(kinds)))
    rows = rows_of(checks)
    phases = phases_of(rows, checks)
    parts = {name: getattr(phases, name) for name in phases.__struct_fields__}
    assert sorted(names([row for part in parts.values() for row in part])) == sorted(names(rows))
    for part in parts.values():
        assert list(part) == [row for row in rows if row in part]
    disrupting = {name for name, part in parts.items() for row in part if checks[row.check].disrupts}
    assert disrupting <= {"disruptive", "apart", "jobs_apart"}
    assert not any(checks[row.check].serial_group or checks[row.check].path for row in (*phases.together, *phases.jobs))


def test_groups_run_in_the_order_of_the_plan() -> None:
    checks = checks_of(
        declared("a", serial_group="late"),
        declared("b", serial_group="early"),
        declared("c"),
        declared("d", serial_group="late"),
    )
    assert [names(group) for group in groups_of(rows_of(checks), checks)] == [["a", "d"], ["b"], ["c"]]
    assert groups_of([], checks) == []


def test_each_break_of_the_trail_is_tried_in_one_topology() -> None:
    one = breaks_trail(what="nothing is captured", among=("capture",), turns=["capture.insert"])(body)
    trail_breaks = [replace(one, name=f"break-{number}") for number in range(5)]
    able = {"break-0": ["a", "b"], "break-1": ["a", "b"], "break-2": ["a", "b"], "break-3": ["b"], "break-4": []}

    def topologies(trail_break: TrailBreak) -> list[str]:
        return able[trail_break.name]

    tried = {name: [found.name for found in breaks_tried_in(name, trail_breaks, topologies)] for name in "ab"}
    assert tried == {"a": ["break-0", "break-2"], "b": ["break-1", "break-3"]}


def test_services_next_to_the_chain_of_several_labs_are_recorded_once() -> None:
    def lab(*services: ServiceEvidence) -> Any:
        topology = SimpleNamespace(name="direct")
        return SimpleNamespace(topology=topology, evidence_beside={one.name: one for one in services})

    store = ServiceEvidence(name="store", product="rclone", version="1.75.2", origin="/cache/rclone")
    kept: Any = SimpleNamespace(record=replace(record(), topologies={"direct": stood("direct")}))
    kept.update = lambda **changed: setattr(kept, "record", replace(kept.record, **changed))
    records = TopologyRecords(kept)
    for used in (lab(), lab(store), lab(store)):
        records.add_beside(used)
    assert kept.record.topologies == {"direct": replace(stood("direct"), beside=(store,))}
