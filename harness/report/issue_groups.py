"""Issues that belong together: the same check on several topologies, or several checks with the same cause.

The only grouping there is: the recap on a terminal, the report and the annotations of a CI service show these groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judging import STATEMENTS
from harness.model import CHECK_BROKE, Repetition, Severity, Status, total
from harness.report.outcomes import accepted_as, outcome_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.model import PlannedCheck, Result

    #: a row and its result
    Answer = tuple[PlannedCheck, Result]

#: the beginnings of the reasons that show an error, which is its own cause
_ERRORS = (CHECK_BROKE, *STATEMENTS.values())


#: the most symptoms that a line names, besides the first one
_MOST_SYMPTOMS = 3


class IssueGroup(Struct, frozen=True, kw_only=True):
    """Issues with the same check or the same cause: all new, all known, or all in quarantine."""

    #: of the worst of them
    severity: Severity
    checks: tuple[str, ...]
    topologies: tuple[str, ...]
    #: the rows that are an Issue
    number: int
    #: what was found in the worst of them, then what else was found, each with its topologies: `rows: 2 (peered)`
    symptoms: tuple[str, ...]
    #: the feature or the claim that the worst of them is about
    about: str
    #: where a known Issue is accepted, or one in quarantine is investigated; "" for a new one
    link: str
    #: `known`, `quarantined`, or "" for a new one
    accepted: str = ""
    #: how many attempts of these rows were an Issue; "" if each was tried once
    attempts: str = ""
    #: the command that reproduces the worst of them
    command: str

    @property
    def where(self) -> str:
        """The worst check and all topologies, in one line."""
        return f"{self.checks[0]} on {', '.join(self.topologies)}"

    @property
    def found(self) -> str:
        """The symptoms, the number of attempts, and the other checks with the same cause, without a full stop."""
        symptoms = in_words(self.symptoms)
        others = ", ".join(check for check in self.checks[1:] if f"({check} on " not in symptoms)
        symptoms += f" ({self.attempts})" if self.attempts else ""
        return f"{symptoms}; the same cause: {others}" if others else symptoms

    @property
    def text(self) -> str:
        """The whole group in one line without a full stop."""
        return f"{self.where}: {self.about}: {self.found}"


def in_words(symptoms: Sequence[str]) -> str:
    """Return the symptoms of a group in one line; the last part says how many it leaves out."""
    first, *others = symptoms
    shown = others[:_MOST_SYMPTOMS]
    more = (f"and {len(others) - len(shown)} more, in issues.md",) if len(others) > len(shown) else ()
    return "; ".join((first, *(f"also {symptom}" for symptom in shown), *more))


def accepted_kinds(groups: Iterable[IssueGroup]) -> str:
    """Return why Issues do not count: `known`, `quarantined`, or `known or quarantined`."""
    return " or ".join(sorted({group.accepted for group in groups}))


def issue_groups(answers: Iterable[Answer]) -> tuple[IssueGroup, ...]:
    """Return the Issues in groups: those that count first, then by severity, in the order of the rows."""
    groups: dict[tuple[str, ...], list[Answer]] = {}
    for row in answers:
        if row[1].status is Status.ISSUE:
            keys = _keys(row)
            same = {id(groups[key]): groups[key] for key in keys if key in groups}
            joined = [*(other for group in same.values() for other in group), row]
            groups |= {key: joined for other in joined for key in _keys(other)}
    found = [_group(group) for group in {id(group): group for group in groups.values()}.values()]
    return tuple(sorted(found, key=lambda group: (bool(group.accepted), group.severity)))


def _keys(answer: Answer) -> list[tuple[str, ...]]:
    """Return what joins an Issue with others: its check, and its cause if it is certain."""
    planned, result = answer
    kind = "known" if result.known else "quarantine" if result.quarantine else "new"
    keys: list[tuple[str, ...]] = [(kind, "check", planned.check)]
    if entry := result.known or result.quarantine:
        keys.append((kind, "cause", entry.link))
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
        symptoms=_symptoms(worst, answers),
        about=planned.feature or planned.claim,
        link=entry.link if (entry := result.known or result.quarantine) else "",
        accepted=accepted_as(result),
        attempts=_attempts(result for _, result in answers),
        command=result.reproduce,
    )


def _attempts(results: Iterable[Result]) -> str:
    counts = [result.repetition for result in results]
    if not any(counts):
        return ""
    return str(total(found or Repetition(issue=1) for found in counts))


def _symptoms(worst: Answer, answers: Iterable[Answer]) -> tuple[str, ...]:
    """Return the symptom of the worst Issue, then the others with their topologies, and with another check's name."""
    first = _symptom(worst[1])
    found: dict[tuple[str, str], dict[str, None]] = {}
    for planned, result in answers:
        check = f"{planned.check} on " if planned.check != worst[0].check else ""
        found.setdefault((_symptom(result), check), {})[planned.target] = None
    others = (f"{symptom} ({check}{', '.join(names)})" for (symptom, check), names in found.items() if symptom != first)
    return first, *others


def _symptom(result: Result) -> str:
    outcome = outcome_of(result)
    if outcome is None:
        return result.reason
    return f"expected {' or '.join(map(str, outcome.expected))}, observed {outcome.observed}"


def _severity(answer: Answer) -> Severity:
    planned, result = answer
    return result.severity or planned.severity
