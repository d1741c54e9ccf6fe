"""Two results of one row: whether they say the same, and whether an application is better off with the newer one."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from harness.model import Behaviour, Status
from harness.report.outcomes import mark_of, outcome_of, text_of

if TYPE_CHECKING:
    from harness.model import Outcome
    from harness.report.evidence import Row

#: how much harm a behaviour does, least first: an application notices an error, and nothing of a lost effect
_HARM = {
    Behaviour.WORKS: 0,
    Behaviour.FAILS: 1,
    Behaviour.HANGS: 3,
    Behaviour.LOST: 4,
    Behaviour.WRONG: 4,
    Behaviour.LEAKS: 5,
}
#: an error that also ends the client's connection
_CLOSED = 1
#: what an application notices now
_NOW = {
    Behaviour.WORKS: "it works now",
    Behaviour.FAILS: "an error now",
    Behaviour.HANGS: "no answer within the deadline now",
    Behaviour.LOST: "no error and no effect now",
    Behaviour.WRONG: "a wrong result without an error now",
    Behaviour.LEAKS: "state or data of one client reaches another now",
}


class Direction(StrEnum):
    """Whether an application is better off with the behaviour of a feature now."""

    WORSE = "worse"
    BETTER = "better"
    OTHER = "other"


class State(NamedTuple):
    """What decides whether a row changed."""

    status: Status
    #: what happens to a feature
    outcome: str
    limit: str
    known: bool
    #: the broken expectations of an Issue without an outcome, except those that follow from others
    broken: frozenset[str]


def state_of(row: Row) -> State:
    result = row.result
    outcome = text_of(result)
    broken = frozenset(
        expectation.name for expectation in result.expectations if expectation.broken and not expectation.consequence
    )
    is_issue = row.status is Status.ISSUE
    return State(
        status=row.status,
        outcome=outcome,
        limit=result.limit.outcome if result.limit and row.status is Status.OK else "",
        known=is_issue and result.known is not None,
        broken=broken if is_issue and not outcome else frozenset(),
    )


def shown(row: Row) -> str:
    """Return status and outcome for people, such as `lost, Issue` or `OK, documented limit`."""
    if outcome := text_of(row.result):
        mark = mark_of(row.result) if row.status is Status.ISSUE else ""
        return ", ".join(filter(None, (outcome, mark)))
    if row.status is Status.ISSUE and not row.result.gates:
        return "known Issue" if row.result.known else "Issue in quarantine"
    if row.status is Status.OK and row.result.limit:
        return "OK, documented limit"
    return str(row.status)


def is_new_issue(then: Row | None, now: Row) -> bool:
    """Return whether a row is an Issue that counts and was not there before, with the same symptom."""
    if not now.result.gates:
        return False
    if then is None or then.status is not Status.ISSUE:
        return True
    before, after = state_of(then), state_of(now)
    return before.outcome != after.outcome or not after.broken <= before.broken


def behaviour(then: Row, now: Row) -> tuple[Direction | None, str]:
    """Return whether a feature is better or worse now, and how, in words; None without two different outcomes."""
    before, after = outcome_of(then.result), outcome_of(now.result)
    if before is None or after is None or before.observed == after.observed:
        return None, ""
    harm = _harm(after.observed) - _harm(before.observed)
    direction = Direction.WORSE if harm > 0 else Direction.BETTER if harm < 0 else Direction.OTHER
    if before.observed.behaviour is after.observed.behaviour:
        closed = {True: ", and the client loses its connection", False: ""}[after.observed.closed]
        return direction, f"another error now{closed}"
    return direction, _NOW[after.observed.behaviour]


def detail(then: Row, now: Row) -> str:
    """Return what differs between two rows that are shown alike, in words; "" for rows that are not."""
    before, after = state_of(then), state_of(now)
    if shown(then) != shown(now):
        return ""
    if before.limit != after.limit:
        return f"another documented limit: {before.limit or 'none'} → {after.limit or 'none'}"
    added, gone = (", ".join(sorted(names)) for names in (after.broken - before.broken, before.broken - after.broken))
    parts = (f"{names} {words}" for names, words in ((added, "broken now"), (gone, "no longer broken")) if names)
    return "; ".join(parts)


def _harm(outcome: Outcome) -> int:
    return _HARM[outcome.behaviour] + (_CLOSED if outcome.closed else 0)
