"""Issues that belong together: the same check on several topologies, or several checks with the same cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judging import STATEMENTS
from harness.model import CHECK_BROKE, Severity, Status
from harness.report.outcomes import accepted_as, outcome_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import PlannedCheck, Result

    #: a row and its result
    Answer = tuple[PlannedCheck, Result]

#: the beginnings of the reasons that show an error, which is its own cause
_ERRORS = (CHECK_BROKE, *STATEMENTS.values())


class IssueGroup(Struct, frozen=True, kw_only=True):
    """Issues with the same check or the same cause: all new, all known, or all in quarantine."""

    #: of the worst of them
    severity: Severity
    checks: tuple[str, ...]
    topologies: tuple[str, ...]
    #: the rows that are an Issue
    number: int
    #: what was found in the worst of them, and the feature or the claim that it is about
    symptom: str
    about: str
    #: where a known Issue is accepted, or one in quarantine is investigated; "" for a new one
    link: str
    #: `known`, `quarantined`, or "" for a new one
    accepted: str = ""
    #: the command that reproduces the worst of them
    command: str

    @property
    def text(self) -> str:
        """The whole group in one line without a full stop."""
        others = [check for check in self.checks if check != self.checks[0]]
        also = f"; the same cause: {', '.join(others)}" if others else ""
        return f"{self.checks[0]} on {', '.join(self.topologies)}: {self.about}: {self.symptom}{also}"


def issue_groups(answers: Iterable[Answer]) -> tuple[IssueGroup, ...]:
    """Return the Issues in groups: new ones before known ones, then by severity, in the order of the rows."""
    groups: dict[tuple[str, ...], list[Answer]] = {}
    for row in answers:
        if row[1].status is Status.ISSUE:
            keys = _keys(row)
            same = {id(groups[key]): groups[key] for key in keys if key in groups}
            joined = [*(other for group in same.values() for other in group), row]
            groups |= {key: joined for other in joined for key in _keys(other)}
    found = [_group(group) for group in {id(group): group for group in groups.values()}.values()]
    return tuple(sorted(found, key=lambda group: (bool(group.link), group.severity)))


def _keys(answer: Answer) -> list[tuple[str, ...]]:
    """Return what joins an Issue with others: its check, and its cause if it is certain."""
    planned, result = answer
    kind = "known" if result.known else "quarantine" if result.quarantine else "new"
    keys: list[tuple[str, ...]] = [(kind, "check", planned.check)]
    if result.known:
        keys.append((kind, "cause", result.known.link))
    elif result.reason.startswith(_ERRORS):
        # expectations of two checks may break alike and have nothing in common, but not errors
        keys.append((kind, "cause", result.reason))
    return keys


def _group(answers: list[Answer]) -> IssueGroup:
    planned, result = worst = min(answers, key=_severity)
    return IssueGroup(
        severity=_severity(worst),
        checks=tuple(dict.fromkeys([planned.check, *(other.check for other, _ in answers)])),
        topologies=tuple(dict.fromkeys(other.target for other, _ in answers)),
        number=len(answers),
        symptom=_symptom(result),
        about=planned.feature or planned.claim,
        link=entry.link if (entry := result.known or result.quarantine) else "",
        accepted=accepted_as(result),
        command=result.reproduce,
    )


def _symptom(result: Result) -> str:
    outcome = outcome_of(result)
    if outcome is None:
        return result.reason
    return f"expected {' or '.join(map(str, outcome.expected))}, observed {outcome.observed}"


def _severity(answer: Answer) -> Severity:
    planned, result = answer
    return result.severity or planned.severity
