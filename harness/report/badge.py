"""One line about an audit trail, for a badge or for release notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model import Status
from harness.report.limits import LimitKind, limit_kind
from harness.report.scope import of_the_trail
from harness.report.spans import span_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.report.evidence import Evidence, Row


def badge_of(evidence: Evidence) -> str:
    """Return how many checks of the audit trail are OK, show a limit, or are an Issue, where, and when.

    A check counts once, with the worst of its topologies: `audit trail: 61 checks OK, 2 limits, 0 issues on direct,
    transaction · 2026-11-29`. A topology in which only some of them ran has their number.
    """
    rows = of_the_trail(evidence)
    statuses: dict[str, set[Status]] = {}
    for row in rows:
        statuses.setdefault(row.planned.check, set()).add(row.status)
    limited = {row.planned.check for row in rows if limit_kind(*row.answer) is LimitKind.TRAIL}
    issues = {check for check, found in statuses.items() if Status.ISSUE in found}
    open_rows = {check for check, found in statuses.items() if Status.NOT_RUN in found} - issues
    held = {check for check, found in statuses.items() if Status.OK in found} - issues - open_rows
    if not issues and not held:
        return "audit trail: not verified"
    known = {check for check in issues if all(row.result.known for row in rows if _is_issue(row, check))}
    counts = (
        _counted(held, "check", " OK"),
        _counted(limited & held, "limit"),
        _counted(issues, "issue", f" ({len(known)} known)" if known else ""),
        *([f"{len(open_rows)} not run"] if open_rows else []),
    )
    return f"audit trail: {', '.join(counts)} on {', '.join(_places(evidence, rows))} · {span_of(rows)[1][:10]}"


def _is_issue(row: Row, check: str) -> bool:
    return row.planned.check == check and row.status is Status.ISSUE


def _places(evidence: Evidence, rows: list[Row]) -> Iterator[str]:
    """Yield the topologies, those in which only some of the checks ran with their number."""
    checks = {row.planned.check for row in rows}
    for place in dict.fromkeys(row.planned.target for row in rows):
        ran = sum(row.planned.target == place for row in rows)
        planned = sum(row.planned.target == place and row.planned.check in checks for row in evidence.rows)
        yield place if ran == planned else f"{place} ({ran} of {planned})"


def _counted(checks: set[str], noun: str, rest: str = "") -> str:
    return f"{len(checks)} {noun}{'' if len(checks) == 1 else 's'}{rest}"
