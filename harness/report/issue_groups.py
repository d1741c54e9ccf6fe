"""Issues that belong together: the same check on several topologies, or several checks with the same cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judging import STATEMENTS
from harness.model import CHECK_BROKE, Severity, Status
from harness.report.outcomes import outcome_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.report.evidence import Row

#: the beginnings of the reasons that show an error, which is its own cause
_ERRORS = (CHECK_BROKE, *STATEMENTS.values())


class IssueGroup(Struct, frozen=True, kw_only=True):
    """Issues with the same check or the same cause, either all known or all new."""

    #: of the worst of them
    severity: Severity
    checks: tuple[str, ...]
    topologies: tuple[str, ...]
    #: the rows that are an Issue
    number: int
    #: what was found in the worst of them, and the feature or the claim that it is about
    symptom: str
    about: str
    #: where a known Issue is accepted; "" for a new one
    link: str
    #: the command that reproduces the worst of them
    command: str

    @property
    def text(self) -> str:
        """The whole group in one line without a full stop."""
        others = [check for check in self.checks if check != self.checks[0]]
        also = f"; the same cause: {', '.join(others)}" if others else ""
        return f"{self.checks[0]} on {', '.join(self.topologies)}: {self.about}: {self.symptom}{also}"


def issue_groups(rows: Iterable[Row]) -> tuple[IssueGroup, ...]:
    """Return the Issues in groups: new ones before known ones, then by severity, in the order of the rows."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.status is Status.ISSUE:
            keys = _keys(row)
            same = {id(groups[key]): groups[key] for key in keys if key in groups}
            joined = [*(other for group in same.values() for other in group), row]
            groups |= {key: joined for other in joined for key in _keys(other)}
    found = [_group(group) for group in {id(group): group for group in groups.values()}.values()]
    return tuple(sorted(found, key=lambda group: (bool(group.link), group.severity)))


def _keys(row: Row) -> list[tuple[str, ...]]:
    """Return what joins an Issue with others: its check, and its cause if it is certain."""
    known = row.result.known
    kind = "known" if known else "new"
    keys = [(kind, "check", row.planned.check)]
    if known:
        keys.append((kind, "cause", known.link))
    elif row.result.reason.startswith(_ERRORS):
        # expectations of two checks may break alike and have nothing in common, but not errors
        keys.append((kind, "cause", row.result.reason))
    return keys


def _group(rows: list[Row]) -> IssueGroup:
    worst = min(rows, key=_severity)
    return IssueGroup(
        severity=_severity(worst),
        checks=tuple(dict.fromkeys([worst.planned.check, *(row.planned.check for row in rows)])),
        topologies=tuple(dict.fromkeys(row.planned.target for row in rows)),
        number=len(rows),
        symptom=_symptom(worst),
        about=worst.planned.feature or worst.planned.claim,
        link=worst.result.known.link if worst.result.known else "",
        command=worst.result.reproduce,
    )


def _symptom(row: Row) -> str:
    outcome = outcome_of(row.result)
    if outcome is None:
        return row.result.reason
    return f"expected {' or '.join(map(str, outcome.expected))}, observed {outcome.observed}"


def _severity(row: Row) -> Severity:
    return row.result.severity or row.planned.severity
