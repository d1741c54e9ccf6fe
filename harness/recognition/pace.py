"""The pace of a chain: how long its answers take, measured, and how long a probe therefore waits for one.

A probe concludes from silence that a pool is full. On a slow machine or over a slow network silence means nothing, so
the patience follows from the slowest answer that was seen. It has an upper limit, because a probe has a deadline.
"""

from __future__ import annotations

#: without a server connection after this time, a client of a fast chain waits for another client to release one
FLOOR_S = 0.3
#: no wait is longer
CAP_S = 8.0
#: this many times the slowest answer
_FACTOR = 8


class Pace:
    """The slowest answer of a chain so far."""

    def __init__(self, slowest_s: float = 0.0) -> None:
        """Begin with one measurement, in seconds."""
        self.slowest_s = slowest_s

    def note(self, seconds: float) -> None:
        """Add a measured duration, in seconds. An answer that does not arrive is not a measurement."""
        self.slowest_s = max(self.slowest_s, seconds)

    def patience_s(self, least_s: float = FLOOR_S) -> float:
        """Return how long to wait for an answer before silence counts.

        :param least_s: the patience with a fast chain.
        """
        return min(max(least_s, self.slowest_s * _FACTOR), max(CAP_S, least_s))

    @property
    def is_too_slow(self) -> bool:
        """Whether the patience is cut, so that silence means nothing."""
        return self.slowest_s * _FACTOR > CAP_S
