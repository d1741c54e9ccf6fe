"""Waiting with a deadline: the only place in the harness that lets time pass on purpose."""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from harness.errors import TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class NotYet(Exception):  # noqa: N818 -- not an error: the state a poll is there to outlast
    """Raised by a probe that has seen something, but not yet what it waits for."""


def poll(
    probe: Callable[[], T],
    *,
    what: str,
    deadline_s: float,
    interval_s: float = 0.01,
    hint: str = "",
    cancelled: Event | None = None,
) -> T:
    """Call `probe` until it returns, and return what it returned.

    :param probe: raises :class:`NotYet` with what was last seen; any other exception ends the wait.
    :param what: what is awaited, completing "timed out waiting for ...".
    :param deadline_s: seconds on the monotonic clock.
    :param interval_s: first pause between two calls, in seconds; it grows to ten times that.
    :param cancelled: ends the wait early when set.
    :raises TimedOutError: with what was last seen.
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
