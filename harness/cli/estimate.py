"""How much of a run is left: by when the same rows ended in earlier runs, else by the share that is done."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: how much slower or faster than earlier runs a run may be taken to be
_FASTEST, _SLOWEST = 0.25, 4.0
#: without earlier runs, an estimate needs this share of the rows, and this time
_LEAST_SHARE, _LEAST_S = 0.05, 5.0
_MINUTE_S = 60
_HOUR_S = 3600


def left_s(
    earlier: Sequence[float], done: int, planned: int, elapsed_s: float, *, since_s: float = 0.0, used_s: float = 0.0
) -> float | None:
    """Return about how many seconds are left; None without a base for an estimate.

    Until the next row ends, the estimate only becomes smaller.

    :param earlier: from :func:`harness.cli.earlier_runs.earlier_ends`.
    :param done: the rows with a result, of `planned`.
    :param elapsed_s: since the start of the run.
    :param since_s: since a row ended.
    :param used_s: what the longest check that runs now has used, of those that do not report how far they are. Without
        earlier runs nobody knows how long it lasts, and an estimate below it is none.
    """
    at_last_s = elapsed_s - since_s
    share = done / planned if planned else 1.0
    if not earlier:
        enough = share >= _LEAST_SHARE and at_last_s >= _LEAST_S
        left = at_last_s * (1 - share) / share - since_s if enough else -1.0
        return left if left >= used_s else None
    if not done:  # the servers start
        return earlier[-1] - min(elapsed_s, earlier[0])
    reached = earlier[ceil(min(share, 1.0) * len(earlier)) - 1]
    pace = min(max(at_last_s / reached, _FASTEST), _SLOWEST) if reached > 0 else 1.0
    # the first rows say little about the pace of the others
    left = (earlier[-1] - reached) * (1 + (pace - 1) * min(share, 1.0)) - since_s
    return left if left >= 0 else None


def clock(seconds: float) -> str:
    """Return a duration as `0:07`, `12:30` or `1:02:03`."""
    minutes, second = divmod(int(seconds), _MINUTE_S)
    hours, minute = divmod(minutes, _MINUTE_S)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def about(seconds: float) -> str:
    """Return an estimate in round numbers, such as `about 40 s` and `about 3 min`."""
    if seconds < _MINUTE_S:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < _HOUR_S:
        return f"about {round(seconds / _MINUTE_S)} min"
    return f"about {seconds / _HOUR_S:.1f} h"
