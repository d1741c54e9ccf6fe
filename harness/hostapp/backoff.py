"""How long a failed job waits until it is tried again."""

from __future__ import annotations

import random


def longest_delay(attempt: int, *, base_s: int, cap_s: int) -> int:
    """Return the longest wait after an attempt, in seconds: it doubles with each attempt up to the cap.

    :param attempt: that failed, from 1.
    """
    # capped before it is computed: a job that was tried a thousand times must not cost a huge number
    doublings = min(max(attempt, 1) - 1, 32)
    return int(min(cap_s, base_s * 2**doublings))


def delay(attempt: int, *, base_s: int, cap_s: int, chance: random.Random | None = None) -> int:
    """Return how many whole seconds to wait: anything from half the longest wait up to it.

    Jobs that failed together come back apart, and never later than the cap.
    """
    longest = longest_delay(attempt, base_s=base_s, cap_s=cap_s)
    return (chance or random).randint((longest + 1) // 2, longest)
