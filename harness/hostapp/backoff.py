"""The delay before a failed job is retried: exponential, with jitter."""

from __future__ import annotations

import random


def longest_delay(attempt: int, *, base_s: int, cap_s: int) -> int:
    """Return the longest delay after an attempt, in seconds. It doubles with each attempt, up to the cap.

    :param attempt: number of the failed attempt, from 1.
    """
    # limited before the power: after a thousand attempts it would be a huge number
    doublings = min(max(attempt, 1) - 1, 32)
    return int(min(cap_s, base_s * 2**doublings))


def delay(attempt: int, *, base_s: int, cap_s: int, chance: random.Random | None = None) -> int:
    """Return a random delay in whole seconds, between half the longest delay and the longest delay.

    Jobs that failed together are retried at different times, and never later than the cap.
    """
    longest = longest_delay(attempt, base_s=base_s, cap_s=cap_s)
    return (chance or random).randint((longest + 1) // 2, longest)
