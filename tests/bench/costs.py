"""The cost of checks: by suite, and the most expensive checks of a run."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from tests.bench.figures import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.store import StoredRun

_MOST = 20
_NOT_A_SUM = "Checks run concurrently, so their total is more than the wall time."


def cost_tables(job: str, run: StoredRun, wall_s: float) -> Iterator[Table]:
    """Yield the cost by suite, then the most expensive checks with their share of the wall time."""
    rows = [row for row in run.results if row.expectations]
    total_ms = sum(row.duration_ms for row in rows)
    suites: dict[str, list[float]] = {}
    for row in rows:
        suites.setdefault(row.check.partition(".")[0], []).append(row.duration_ms)
    yield Table(
        title=f"{job}: cost of a check, by suite",
        columns=("Suite", "Checks", "Mean", "Median", "Total", "Share of all checks"),
        rows=tuple(
            (
                suite,
                str(len(costs)),
                f"{statistics.mean(costs):.0f} ms",
                f"{statistics.median(costs):.0f} ms",
                f"{sum(costs) / 1000:.1f} s",
                f"{sum(costs) / total_ms:.0%}",
            )
            for suite, costs in sorted(suites.items(), key=lambda item: -sum(item[1]))
        ),
        notes=(f"All checks {total_ms / 1000:.1f} s, in {wall_s:.1f} s of wall time. {_NOT_A_SUM}",),
    )
    dearest = sorted(rows, key=lambda row: -row.duration_ms)[:_MOST]
    shown_ms = sum(row.duration_ms for row in dearest)
    yield Table(
        title=f"{job}: the most expensive checks",
        columns=("Check", "Topology", "Time", "Share of wall time"),
        rows=tuple(
            (row.check, row.target, f"{row.duration_ms:.0f} ms", f"{row.duration_ms / 1000 / wall_s:.0%}")
            for row in dearest
        ),
        notes=(
            (
                f"Together {shown_ms / 1000:.1f} s: {shown_ms / total_ms:.0%} of what all checks cost, and "
                f"{shown_ms / 1000 / wall_s:.0%} of the wall time of {wall_s:.1f} s. {_NOT_A_SUM}"
            ),
        ),
    )
