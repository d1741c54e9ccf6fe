"""Whether the work for a text grows with its length, or with the square of it.

No absolute time is compared: a slow machine is slow for the short text, too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORT = 4_000
_LONGEST = 400_000
#: the long text is this many times as long; linear work grows by as much, quadratic work by its square
_TIMES = 8
_BETWEEN = _TIMES**1.5


def is_linear(work: Callable[[str], object], hostile: str) -> bool:
    """Say whether work on a repeated text is linear; what looks quadratic is measured again on longer texts."""
    size = _SHORT
    while size * _TIMES <= _LONGEST:
        short, long = (_seconds(work, hostile * max(1, length // len(hostile))) for length in (size, size * _TIMES))
        if long <= short * _BETWEEN:
            return True
        size *= _TIMES // 2
    return False


def _seconds(work: Callable[[str], object], text: str) -> float:
    """Return the processor time of this thread: what other processes do is not counted."""
    began = time.thread_time()
    work(text)
    return time.thread_time() - began
