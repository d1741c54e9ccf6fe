"""The delay before a failed download is tried again: it grows, has a cap, and differs for each upload."""

from __future__ import annotations

import random

#: the longest delay of an attempt is this many times its shortest one. Less than 2, so that delays always grow
_SPREAD = 1.5
_MOST_DOUBLINGS = 32


def delay_range(failures: int, *, shortest_s: float, longest_s: float) -> tuple[float, float]:
    """Return the shortest and the longest delay after a number of failures, in seconds.

    Both double with each failure. At the cap the delays still differ, and none is longer than the cap.

    :param failures: 1 after the first one.
    """
    doubled = shortest_s * 2.0 ** min(max(failures, 1) - 1, _MOST_DOUBLINGS)
    low = min(doubled, longest_s / _SPREAD)
    return low, min(low * _SPREAD, longest_s)


def delay(failures: int, *, shortest_s: float, longest_s: float, chance: random.Random | None = None) -> float:
    """Return a random delay in seconds, so that uploads that failed together are not retried together."""
    low, high = delay_range(failures, shortest_s=shortest_s, longest_s=longest_s)
    return (chance or random).uniform(low, high)
