"""One line about an audit trail, for a badge or for release notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model import Status
from harness.report.limits import LimitKind, limit_kind
from harness.report.scope import of_the_trail
from harness.report.spans import span_of

if TYPE_CHECKING:
    from harness.report.evidence import Evidence


def badge_of(evidence: Evidence) -> str:
    """Return how many checks of the audit trail are OK, show a limit, or are an Issue, where, and when.

    A check counts once, with the worst of its topologies: `audit trail: 61 checks OK, 2 limits, 0 issues on direct,
    transaction · 2026-11-29`.
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
    names = ", ".join(dict.fromkeys(row.planned.target for row in rows))
    counts = (
        _counted(held, "check", " OK"),
        _counted(limited & held, "limit"),
        _counted(issues, "issue"),
        *([f"{len(open_rows)} not run"] if open_rows else []),
    )
    return f"audit trail: {', '.join(counts)} on {names} · {span_of(rows)[1][:10]}"


def _counted(checks: set[str], noun: str, rest: str = "") -> str:
    return f"{len(checks)} {noun}{'' if len(checks) == 1 else 's'}{rest}"
