"""Polling with a deadline: the only place in the harness that waits on purpose."""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from harness.errors import TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class NotYet(Exception):  # noqa: N818 -- not an error: the state that a poll waits out
    """Raised by a probe while the awaited state is missing. The message is the observed state."""


def poll(
    probe: Callable[[], T],
    *,
    what: str,
    deadline_s: float,
    interval_s: float = 0.01,
    hint: str = "",
    cancelled: Event | None = None,
) -> T:
    """Call `probe` until it returns, and return its result.

    :param probe: raises :class:`NotYet` with the observed state; any other exception ends the wait.
    :param what: a noun phrase that completes "timed out waiting for ...".
    :param deadline_s: seconds on the monotonic clock. The probe is called at least once.
    :param interval_s: the first pause between two calls, in seconds; it grows to ten times that.
    :param hint: of the error: what to try next.
    :param cancelled: ends the wait early when set.
    :raises TimedOutError: with the last observed state, when the deadline passed or the wait was cancelled.
    """
    pause = cancelled or Event()
    end = time.monotonic() + deadline_s
    interval, last = interval_s, "nothing"
    while True:
        try:
            return probe()
        except NotYet as seen:
            last = str(seen)
        left = end - time.monotonic()
        if left <= 0:
            raise TimedOutError(f"timed out after {deadline_s:g} s waiting for {what}; last seen: {last}", hint=hint)
        if pause.wait(min(interval, left)):
            raise TimedOutError(f"stopped waiting for {what}; last seen: {last}")
        interval = min(interval * 1.3, interval_s * 10)
