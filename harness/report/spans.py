"""When results were made, and how long that took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import Result
    from harness.report.evidence import Row


def span_of(rows: Iterable[Row]) -> tuple[str, str]:
    """Return the start of the first result and the end of the last one; "" without a result."""
    times = [
        (start, start + timedelta(milliseconds=row.result.duration_ms))
        for row in rows
        if row.run_id and (start := read_time(row.result.started_at))
    ]
    if not times:
        return "", ""
    return _iso(min(start for start, _ in times)), _iso(max(end for _, end in times))


def read_time(text: str) -> datetime | None:
    """Read a time of the evidence; None when it is missing or invalid."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def elapsed_s(results: Iterable[Result]) -> float:
    """Return the seconds from the first start to the last end; checks run concurrently, so this is not their sum."""
    ran = [
        (datetime.fromisoformat(result.started_at).timestamp(), result.duration_ms)
        for result in results
        if result.started_at
    ]
    if not ran:
        return 0.0
    return max(start + duration_ms / 1000 for start, duration_ms in ran) - min(start for start, _ in ran)


def elapsed_by_run(rows: Iterable[Row]) -> dict[str, float]:
    """Return the seconds that each run took for some rows: what passes between two runs belongs to neither."""
    of_run: dict[str, list[Result]] = {}
    for row in rows:
        if row.run_id:
            of_run.setdefault(row.run_id, []).append(row.result)
    return {run_id: elapsed_s(results) for run_id, results in of_run.items()}
