"""Distributions of what a run measured: until servers are ready, for each check, and until recovery after a fault."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harness.report.evidence import Row
    from harness.report.tables import Report

#: the fact that a check of a fault records, in seconds
RECOVERY = "seconds until a new client was answered"
_MS = 1000
#: seconds: tenths are shown below it
_TENTHS_BELOW_S = 10
#: the decades of the histograms, from 1 ms to 100 s, and the bins of each
_DECADES, _BINS = 5, 5


class Spread(Struct, frozen=True, kw_only=True):
    """One line of a distribution: the values of one topology."""

    name: str
    number: int
    median_ms: float
    p95_ms: float
    longest_ms: float
    #: how many values lie in each bin of a logarithmic scale from 1 ms to 100 s
    bins: tuple[int, ...]


class Distribution(Struct, frozen=True, kw_only=True):
    """One measured quantity, by topology."""

    title: str
    #: what was measured, in one sentence without a full stop
    what: str
    spreads: tuple[Spread, ...]


def distributions(report: Report) -> tuple[Distribution, ...]:
    """Return what the runs of a report measured; a quantity without a value is left out."""
    found = (
        (
            "Ready",
            "from the start of the servers to the first answer through the whole chain",
            {row.environment: [row.ready_ms] for row in report.topologies if row.ready_ms},
        ),
        ("Checks", "the duration of each check", _by_topology(report.rows, _duration)),
        (
            "Recovery",
            "from a restart or crash of the server until a new client is answered",
            _by_topology(report.rows, _recovery),
        ),
    )
    return tuple(
        Distribution(title=title, what=what, spreads=tuple(spread(name, values) for name, values in lines.items()))
        for title, what, lines in found
        if lines
    )


def _by_topology(rows: Iterable[Row], measured: Callable[[Row], float | None]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        if (value := measured(row)) is not None:
            found.setdefault(row.planned.target, []).append(value)
    return found


def _duration(row: Row) -> float | None:
    return row.result.duration_ms if row.status in {Status.OK, Status.ISSUE} else None


def _recovery(row: Row) -> float | None:
    try:
        return float(row.result.facts[RECOVERY]) * _MS
    except (KeyError, ValueError):  # no such fact, or evidence that was edited
        return None


def spread(name: str, values: Sequence[float]) -> Spread:
    """Return the spread of some values, in milliseconds.

    :param values: at least one.
    """
    ordered = sorted(values)
    bins = [0] * (_DECADES * _BINS)
    for value in ordered:
        place = int(math.log10(value) * _BINS) if value > 1 else 0
        bins[min(place, len(bins) - 1)] += 1
    return Spread(
        name=name,
        number=len(ordered),
        median_ms=statistics.median(ordered),
        p95_ms=ordered[math.ceil(0.95 * len(ordered)) - 1],
        longest_ms=ordered[-1],
        bins=tuple(bins),
    )


def slowest(rows: Iterable[Row], number: int = 20) -> tuple[Row, ...]:
    """Return the rows that took the longest, the slowest first."""
    return tuple(sorted(rows, key=lambda row: -row.result.duration_ms)[:number])


def readable(milliseconds: float) -> str:
    """Return a duration with a unit that fits: `23 ms`, `1.4 s`, `107 s`."""
    if milliseconds < _MS:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / _MS
    return f"{seconds:.1f} s" if seconds < _TENTHS_BELOW_S else f"{seconds:.0f} s"
