"""The order of a run, as pure functions: which topology starts first, and which of its rows may run side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import PlannedCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from harness.checks.registry import Check, TrailBreak
    from harness.model import Topology

#: topologies whose numbers of rows differ by less are equals
_STEP = 50


class Phases(Struct, frozen=True, kw_only=True):
    """The rows of one topology. Each row is in one phase, and keeps its place in the plan."""

    #: side by side, up to the limits of the run
    together: tuple[PlannedCheck, ...]
    #: the cases of job engines, at the same time as `together` and `grouped`: they mostly wait for their workers
    jobs: tuple[PlannedCheck, ...]
    #: group after group, once `together` has ended
    grouped: tuple[PlannedCheck, ...]
    #: paths of the host application, at the same time as these three
    paths: tuple[PlannedCheck, ...]
    #: they restart servers or change the pooler's settings, so nothing else runs meanwhile
    disruptive: tuple[PlannedCheck, ...]
    #: on servers of their own, one after another, at the same time as all others
    apart: tuple[PlannedCheck, ...]
    #: the same for the cases of job engines: their workers wait for what servers hold after a fault
    jobs_apart: tuple[PlannedCheck, ...]


def longest_first(topologies: Iterable[Topology], rows: Callable[[Topology], int]) -> list[Topology]:
    """Return topologies with the most work first, so that the others end while these still run.

    :param rows: returns the number of rows that apply to a topology. Numbers are compared in steps of fifty:
        topologies of about the same size keep their order.
    """
    return sorted(topologies, key=lambda topology: -(rows(topology) // _STEP))


def begins_with_disruptive(order: Sequence[Topology], name: str, phases: Phases) -> bool:
    """Return whether a topology runs its disruptive rows first.

    Disruptive rows mostly wait, and the processor is free meanwhile. It is used only if other topologies, or labs for
    faults, run at the same time. The first topology begins with its other rows, so that it has work for the processor
    while those after it wait.

    :param order: the topologies of the run, in the order of their start.
    :param phases: the rows of this topology.
    """
    if len(order) == 1:
        return bool(phases.apart or phases.jobs_apart)
    return order[0].name != name


def phases_of(rows: Iterable[PlannedCheck], checks: Mapping[str, Check]) -> Phases:
    """Divide the rows of one topology.

    :param checks: by id; it holds the check of every row.
    """
    phases: dict[str, list[PlannedCheck]] = {name: [] for name in Phases.__struct_fields__}
    for row in rows:
        phases[_phase_of(checks[row.check])].append(row)
    return Phases(**{name: tuple(of_phase) for name, of_phase in phases.items()})


def _phase_of(check: Check) -> str:
    if check.own_servers:
        return "jobs_apart" if check.job else "apart"
    if check.disrupts:
        return "disruptive"
    if check.path:
        return "paths"
    if check.serial_group:
        return "grouped"
    return "jobs" if check.job else "together"


def by_attempt(rows: Sequence[PlannedCheck]) -> Iterator[tuple[int, tuple[PlannedCheck, ...]]]:
    """Yield the number of each attempt, from 1, with the rows that have one of that number."""
    for attempt in range(1, max((row.attempts for row in rows), default=0) + 1):
        yield attempt, tuple(row for row in rows if row.attempts >= attempt)


def groups_of(rows: Iterable[PlannedCheck], checks: Mapping[str, Check]) -> list[list[PlannedCheck]]:
    """Return the rows of each serial group, in the order in which the plan first names the groups."""
    groups: dict[str, list[PlannedCheck]] = {}
    for row in rows:
        groups.setdefault(checks[row.check].serial_group, []).append(row)
    return list(groups.values())


def breaks_tried_in(
    name: str, trail_breaks: Iterable[TrailBreak], able: Callable[[TrailBreak], Sequence[str]]
) -> list[TrailBreak]:
    """Return the breaks of the audit trail that one topology tries.

    A break belongs to the trail and not to a topology, so one topology tries it; they take turns.

    :param able: returns the names of the topologies that can try a break; none when no planned check has to catch it.
    """
    return [
        trail_break
        for number, trail_break in enumerate(trail_breaks)
        if (names := able(trail_break)) and names[number % len(names)] == name
    ]
