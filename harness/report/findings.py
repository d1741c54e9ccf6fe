"""The Issues of an audit trail of somebody else's, by their cause, with what to change, and SQL to repeat each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.registry import TRAIL_SECTIONS
from harness.model import Severity, Status
from harness.report.outcomes import accepted_as
from harness.suites.causes import Cause, cause_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import PlannedCheck, Result

    #: a row and its result
    Answer = tuple[PlannedCheck, Result]

#: names of the reference audit layer in evidence; older evidence names none
REFERENCE = ("", "reference")


class Finding(Struct, frozen=True, kw_only=True):
    """One check that is an Issue, in all its topologies."""

    severity: Severity
    check: str
    #: true when the check is OK
    claim: str
    topologies: tuple[str, ...]
    #: what was expected and observed, with the topologies where it differs
    found: str
    #: `known`, `quarantined`, or "" for one that counts
    accepted: str
    #: the command that runs the check again
    command: str
    #: the statements of its sessions, for psql, in one topology; "" for a check without any
    script: str


class Findings(Struct, frozen=True, kw_only=True):
    """What was found for one cause, the most severe first."""

    cause: Cause
    rows: tuple[Finding, ...]

    @property
    def title(self) -> str:
        """The cause, in one sentence without a full stop."""
        return self.cause.title

    @property
    def advice(self) -> str:
        """What to change."""
        return self.cause.advice


def findings(answers: Iterable[Answer], about: str) -> tuple[Findings, ...]:
    """Return what was found in an audit trail, by cause: those of the most severe findings first.

    :param about: the name of the audit target. The reference layer has no findings: its Issues are defects here.
    """
    if about in REFERENCE:
        return ()
    by_check: dict[str, list[Answer]] = {}
    for planned, result in answers:
        if result.status is Status.ISSUE and planned.section in TRAIL_SECTIONS and not planned.feature:
            by_check.setdefault(planned.check, []).append((planned, result))
    by_cause: dict[Cause, list[Finding]] = {}
    for check, rows in by_check.items():
        by_cause.setdefault(cause_of(check, rows[0][1].reason), []).append(_finding(check, rows))
    order = list(Cause)
    found = [
        Findings(cause=cause, rows=tuple(sorted(rows, key=lambda row: (bool(row.accepted), row.severity))))
        for cause, rows in by_cause.items()
    ]
    return tuple(
        sorted(found, key=lambda one: (bool(one.rows[0].accepted), one.rows[0].severity, order.index(one.cause)))
    )


def _finding(check: str, rows: list[Answer]) -> Finding:
    planned, result = min(rows, key=lambda row: (bool(accepted_as(row[1])), row[1].severity or row[0].severity))
    found: dict[str, list[str]] = {}
    for other, answer in rows:
        found.setdefault(answer.reason, []).append(other.target)
    texts = [reason if len(found) == 1 else f"{reason} ({', '.join(names)})" for reason, names in found.items()]
    scripts = [answer.reproduction for _, answer in rows if answer.reproduction]
    return Finding(
        severity=result.severity or planned.severity,
        check=check,
        claim=planned.claim,
        topologies=tuple(other.target for other, _ in rows),
        found="; ".join(texts),
        accepted=accepted_as(result),
        command=result.reproduce,
        script=result.reproduction or next(iter(scripts), ""),
    )
