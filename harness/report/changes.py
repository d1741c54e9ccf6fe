"""What changed between two pieces of evidence: rows that turned, with what differs between the runs as the cause."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.model import Severity, Status
from harness.report.factors import Difference, differences
from harness.report.outcomes import is_shown
from harness.report.row_states import Direction, behaviour, detail, is_new_issue, shown, state_of
from harness.report.scope import asked_for
from harness.report.sides import Side, pairs_of, side_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from harness.report.evidence import Evidence, Row

#: a duration changed if it is this many times as long, and longer by this many milliseconds
_TIMES, _MORE_MS = 2, 1000


class Kind(StrEnum):
    """How a row changed; the most important kind first."""

    NEW_ISSUE = "new Issue"
    FIXED = "no longer an Issue"
    FEATURE = "feature changed"
    UNVERIFIED = "no longer verified"
    VERIFIED = "verified now"
    STATUS = "status changed"

    def words(self, number: int) -> str:
        """Return the kind after a number of rows: `3 features changed`."""
        plural = {Kind.NEW_ISSUE: "new Issues", Kind.FEATURE: "features changed", Kind.STATUS: "statuses changed"}
        return self.value if number == 1 else plural.get(self, self.value)


class Change(Struct, frozen=True, kw_only=True):
    """How the row of one check changed, with all the topologies and environments in which it changed that way."""

    kind: Kind
    check: str
    #: the feature, else the claim
    title: str
    severity: Severity
    #: status or outcome; "" for a row that the other evidence does not have
    before: str
    after: str
    #: of the behaviour of a feature
    direction: Direction | None = None
    #: the change in words, or the reason of the newer result
    reason: str = ""
    targets: tuple[str, ...] = ()
    #: everything recorded that differs for these rows. One: the likely cause. Several: the cause is not known
    causes: tuple[str, ...] = ()

    @property
    def cause(self) -> str:
        """The likely cause in one sentence without a full stop; "" where a row is Not run, which has its own reason."""
        if self.kind in {Kind.UNVERIFIED, Kind.VERIFIED}:
            return ""
        if len(self.causes) == 1:
            return f"likely {self.causes[0]}"
        if not self.causes:
            return "nothing that is recorded differs"
        names = (cause.partition(": ")[0] for cause in self.causes)
        return f"not known, {len(self.causes)} things differ: {'; '.join(names)}"


class Duration(Struct, frozen=True, kw_only=True):
    """A duration that doubled or halved. It depends on the machine, too, so it is never an Issue."""

    #: the id of a check; "" for the time until the topology was ready
    check: str
    target: str
    before_ms: float
    after_ms: float


class OneSided(Struct, frozen=True, kw_only=True):
    """Rows that only one of the two has."""

    targets: tuple[str, ...]
    checks: tuple[str, ...]
    #: whether the other has no row of these topologies and environments at all
    whole: bool


class Changes(Struct, frozen=True, kw_only=True):
    """Everything that changed between two pieces of evidence."""

    before: Side
    after: Side
    #: number of rows that both have, of different runs
    compared: int
    #: those of them that are Not run in neither
    verified: int
    #: number of rows that both have of the same run: nothing can differ
    same: int = 0
    changes: tuple[Change, ...] = ()
    durations: tuple[Duration, ...] = ()
    only_before: tuple[OneSided, ...] = ()
    only_after: tuple[OneSided, ...] = ()
    #: what differs between code, servers, settings and subjects, whether or not a row changed
    differences: tuple[Difference, ...] = ()

    def of(self, kind: Kind) -> tuple[Change, ...]:
        """Return the changes of one kind."""
        return tuple(change for change in self.changes if change.kind is kind)

    @property
    def new_issues(self) -> frozenset[tuple[str, str]]:
        """The rows that are Issues now, neither known nor present before: target and check."""
        return frozenset((target, change.check) for change in self.of(Kind.NEW_ISSUE) for target in change.targets)

    @property
    def summary(self) -> str:
        """What changed in one line without a full stop, each part with its number of rows."""
        if self.void:
            return self.void
        parts = []
        for kind in Kind:
            if found := self.of(kind):
                number = sum(len(change.targets) for change in found)
                parts.append(f"{number} {kind.words(number)}{_directions(found)}")
        if self.durations:
            parts.append(f"{len(self.durations)} {'duration' if len(self.durations) == 1 else 'durations'} changed")
        for side, rows in (("before", self.only_before), ("after", self.only_after)):
            if number := sum(len(row.targets) * len(row.checks) for row in rows):
                parts.append(f"{number} {'row' if number == 1 else 'rows'} only {side}")
        if self.same:
            parts.append(f"{self.same} {'row' if self.same == 1 else 'rows'} of the same run in both")
        compared = f"{self.compared} {'row was' if self.compared == 1 else 'rows were'} compared"
        return f"{compared}: {', '.join(parts) or 'no row changed'}"

    @property
    def void(self) -> str:
        """Why nothing follows from the comparison, in one line without a full stop; "" if something does."""
        if self.edited:
            return "a run was edited, so nothing follows"
        if self.same and not self.compared:
            return "both have the same rows of the same run, so nothing was compared"
        if not self.compared:
            return "the two have no row in common, so nothing was compared"
        if not self.verified:
            return f"no row ran in both, so nothing follows ({self.compared} were planned in both)"
        return ""

    @property
    def edited(self) -> tuple[str, ...]:
        """A sentence for each run that was edited."""
        return tuple(dict.fromkeys((*self.before.edited, *self.after.edited)))

    @property
    def empty(self) -> bool:
        """Whether nothing differs at all."""
        return not (self.changes or self.durations or self.only_before or self.only_after or self.differences)


def _directions(changes: Iterable[Change]) -> str:
    """Return how many rows are better and worse, in brackets; "" if none is a feature with another behaviour."""
    counted = [
        f"{number} {direction}"
        for direction in Direction
        if (number := sum(len(change.targets) for change in changes if change.direction is direction))
    ]
    return f" ({', '.join(counted)})" if counted else ""


def compare(before: Evidence, after: Evidence, names: tuple[str, str] = ("before", "after")) -> Changes:
    """Return what changed.

    A topology that ran in another version, such as `transaction+postgres-18`, is compared with the other version of the
    same topology, unless the other evidence has the same one. No statement follows from edited evidence, so nothing is
    compared with it.

    :param names: what the user calls the two.
    """
    pairs = pairs_of(before, after)
    then, now = _rows(before, {old: new for new, old in pairs.items()}), _rows(after, {})
    sides = side_of(before, names[0]), side_of(after, names[1])
    shared = [key for key in now if key in then]
    both = [key for key in shared if not then[key].run_id or then[key].run_id != now[key].run_id]
    if any(side.edited for side in sides):
        return Changes(before=sides[0], after=sides[1], compared=len(both), verified=0, same=len(shared) - len(both))
    found = differences(before, after, pairs)
    changes = [change for key in both for change in _turned(then[key], now[key])]
    changes += [_appeared(row) for key, row in now.items() if key not in then and is_new_issue(None, row)]
    caused = [replace(change, causes=_causes(change, found)) for change in changes]
    order = list(Kind)
    return Changes(
        before=sides[0],
        after=sides[1],
        compared=len(both),
        same=len(shared) - len(both),
        verified=sum(Status.NOT_RUN not in {then[key].status, now[key].status} for key in both),
        changes=tuple(sorted(_grouped(caused), key=lambda change: (order.index(change.kind), change.severity))),
        durations=tuple(
            sorted(
                (*_durations(then, now, both), *_ready(before, after, pairs)),
                key=lambda duration: (-abs(duration.after_ms - duration.before_ms), duration.target, duration.check),
            )
        ),
        only_before=_one_sided(then, now),
        only_after=_one_sided(now, then),
        differences=found,
    )


def _rows(evidence: Evidence, renamed: Mapping[str, str]) -> dict[tuple[str, str], Row]:
    """Return the rows that are shown, by the name of their target after, and their check."""
    return {
        (renamed.get(row.planned.target, row.planned.target), row.planned.check): row
        for row in evidence.rows
        if asked_for(row) and is_shown(*row.answer)
    }


# --- rows ------------------------------------------------------------------------------------------------


def _turned(then: Row, now: Row) -> Iterator[Change]:
    """Yield the change of a row; nothing if it says the same."""
    before, after = state_of(then), state_of(now)
    if before == after:
        return
    direction, words = behaviour(then, now)
    kind = _kind(then, now, direction)
    change = _change(now, kind, before=shown(then), after=shown(now), direction=direction, reason=words)
    parts = (detail(then, now), change.reason)
    yield replace(change, reason="; ".join(filter(None, parts)))


def _kind(then: Row, now: Row, direction: Direction | None) -> Kind:
    if is_new_issue(then, now):
        return Kind.NEW_ISSUE
    if now.status is Status.NOT_RUN:
        return Kind.UNVERIFIED
    if then.status is Status.ISSUE and now.status is not Status.ISSUE:
        return Kind.FIXED
    if then.status is Status.NOT_RUN:
        return Kind.VERIFIED
    return Kind.FEATURE if direction else Kind.STATUS


def _appeared(now: Row) -> Change:
    return _change(now, Kind.NEW_ISSUE, before="", after=shown(now))


def _change(
    row: Row, kind: Kind, *, before: str, after: str, direction: Direction | None = None, reason: str = ""
) -> Change:
    planned, result = row.planned, row.result
    given = result.reason if kind in {Kind.NEW_ISSUE, Kind.UNVERIFIED, Kind.STATUS} else ""
    return Change(
        kind=kind,
        check=planned.check,
        title=planned.feature or planned.claim,
        severity=result.severity or planned.severity,
        before=before,
        after=after,
        direction=direction,
        reason=reason or given,
        targets=(planned.target,),
    )


def _causes(change: Change, found: Iterable[Difference]) -> tuple[str, ...]:
    """Return what differs for a changed row."""
    target = change.targets[0]
    if change.kind in {Kind.UNVERIFIED, Kind.VERIFIED}:
        return ()
    return tuple(difference.text for difference in found if difference.concerns(target, change.check))


def _grouped(changes: Iterable[Change]) -> list[Change]:
    """Return each change once, with all targets in which the row changed that way."""
    groups: dict[Change, list[str]] = {}
    for change in changes:
        groups.setdefault(replace(change, targets=()), []).extend(change.targets)
    return [replace(change, targets=tuple(targets)) for change, targets in groups.items()]


# --- durations and rows of one side ----------------------------------------------------------------------


def _durations(
    then: Mapping[tuple[str, str], Row], now: Mapping[tuple[str, str], Row], keys: Iterable[tuple[str, str]]
) -> Iterator[Duration]:
    """Yield the durations of checks that ran to their end in both."""
    ran = {Status.OK, Status.ISSUE}
    for target, check in keys:
        rows = then[target, check], now[target, check]
        if all(row.status in ran and row.result.ended_by is None for row in rows):
            before, after = (row.result.duration_ms for row in rows)
            if _doubled(before, after):
                yield Duration(check=check, target=target, before_ms=before, after_ms=after)


def _ready(before: Evidence, after: Evidence, pairs: Mapping[str, str]) -> Iterator[Duration]:
    for name, name_before in pairs.items():
        then, now = before.topologies.get(name_before), after.topologies.get(name)
        if then and now and then.stood and now.stood and _doubled(then.ready_ms, now.ready_ms):
            yield Duration(check="", target=name, before_ms=then.ready_ms, after_ms=now.ready_ms)


def _doubled(before: float, after: float) -> bool:
    short, long = sorted((before, after))
    return short > 0 and long >= _TIMES * short and long - short >= _MORE_MS


def _one_sided(rows: Mapping[tuple[str, str], Row], others: Mapping[tuple[str, str], Row]) -> tuple[OneSided, ...]:
    """Return the rows without a counterpart, grouped over targets."""
    elsewhere = {target for target, _ in others}
    missing: dict[str, list[str]] = {}
    for target, check in rows:
        if (target, check) not in others:
            missing.setdefault(target, []).append(check)
    groups: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    for target, checks in missing.items():
        groups.setdefault((tuple(checks), target not in elsewhere), []).append(target)
    return tuple(
        OneSided(targets=tuple(targets), checks=checks, whole=whole) for (checks, whole), targets in groups.items()
    )
