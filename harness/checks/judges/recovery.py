"""How long clients take to succeed again after a fault, by a history: a measure, and no verdict."""

from __future__ import annotations

from bisect import bisect_left
from statistics import median
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from harness.model.history import History


class Recovery(Struct, frozen=True, kw_only=True):
    """How long clients took to succeed again, in seconds from the end of the healing; each by its first new success."""

    first_s: float
    median_s: float
    last_s: float


def recoveries(history: History) -> dict[int, Recovery]:
    """Return how long the clients took to succeed after each healed fault, by the number of the fault.

    A fault after which no client succeeded is left out. An operation counts when it began after the healing.
    """
    successes = sorted(
        (one.invoked_s, one.answered_s, one.client)
        for one in history.operations
        if one.outcome == "ok" and one.answered_s is not None
    )
    ends = (*(fault.inject_s for fault in history.faults[1:]), float("inf"))
    found = {}
    for fault, until in zip(history.faults, ends, strict=False):  # without a fault there is an end too many
        if fault.healed_s is None:
            continue
        first: dict[int, float] = {}
        begin, end = bisect_left(successes, (fault.healed_s,)), bisect_left(successes, (until,))
        for _, answered, client in successes[begin:end]:
            first.setdefault(client, round(answered - fault.healed_s, 6))
        if times := sorted(first.values()):
            found[fault.number] = Recovery(first_s=times[0], median_s=round(median(times), 6), last_s=times[-1])
    return found


def recovery(history: History) -> Recovery | None:
    """Return how long the clients took to succeed again after the faults of a history; None without a healed fault.

    The first client after any fault, the median of the faults' medians, and the last client after any fault.
    """
    found = tuple(recoveries(history).values())
    if not found:
        return None
    return Recovery(
        first_s=min(one.first_s for one in found),
        median_s=round(median(one.median_s for one in found), 6),
        last_s=max(one.last_s for one in found),
    )
