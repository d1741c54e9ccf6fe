"""Decides whether the work for a text grows linearly or quadratically with its length.

Only ratios of times are compared: a slow machine is slow for the short text, too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORT = 1_000
_LONGEST = 200_000
#: length of the long text divided by that of the short one. Linear work grows by this factor, quadratic work by its
#: square; the limit is between the two.
_FACTOR = 8
_LIMIT = _FACTOR**1.5


def is_linear(work: Callable[[str], object], hostile: str) -> bool:
    """Return whether work on a repeated text is linear. A quadratic result is measured again on longer texts."""
    size = _SHORT
    while size * _FACTOR <= _LONGEST:
        short, long = (_seconds(work, hostile * max(1, length // len(hostile))) for length in (size, size * _FACTOR))
        if long <= short * _LIMIT:
            return True
        size *= _FACTOR // 2
    return False


def _seconds(work: Callable[[str], object], text: str) -> float:
    """Return the processor time of this thread, which leaves other processes out."""
    began = time.thread_time()
    work(text)
    return time.thread_time() - began
