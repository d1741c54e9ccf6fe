"""What rows about faults, jobs, loads and systems of a project's own say together, in a sentence for each kind."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from harness.model import Section, Status
from harness.report.job_rows import is_about_jobs
from harness.report.outcomes import accepted_as, because_interrupted, is_interrupted
from harness.report.scope import asked_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.report.evidence import Row


def with_number(count: int, noun: str) -> str:
    """Return a number with its noun: `1 check`, `2 checks`."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def accepted_in_words(rows: Iterable[Row]) -> str:
    """Return how many Issues do not count, by why: `2 known Issues and 1 Issue in quarantine`; "" without one."""
    found = Counter(accepted_as(row.result) for row in rows)
    known, apart = found["known"], found["quarantined"]
    parts = (
        with_number(known, "known Issue") if known else "",
        f"{with_number(apart, 'Issue')} in quarantine" if apart else "",
    )
    return " and ".join(filter(None, parts))


def not_run_in_words(rows: Iterable[Row], noun: str = "") -> str:
    """Return the end of a sentence about rows that are Not run: `, and 3 are Not run`, and whether by an interruption.

    :param noun: of the rows, where the sentence has not named them.
    :return: "" if none is Not run.
    """
    missing = [row.result for row in rows if row.status is Status.NOT_RUN]
    if not missing:
        return ""
    number = with_number(len(missing), noun) if noun else str(len(missing))
    because = because_interrupted(sum(map(is_interrupted, missing)), len(missing))
    return f", and {number} {'is' if len(missing) == 1 else 'are'} Not run{because}"


def except_for(accepted: str) -> str:
    """Return the end of a sentence about what holds, but for accepted Issues; "" without one."""
    return f", except for {accepted}" if accepted else ""


class _Tried(NamedTuple):
    """What rows of one kind say."""

    broken: str
    holds: str
    #: if no row is OK, and each Issue is accepted
    holds_in_none: str
    noun: str
    #: if no row is OK, and none is an Issue; "" for what is not said then
    unverified: str = ""


_FAULTS = _Tried(
    "acknowledged work does not survive", "acknowledged work survives", "acknowledged work survives no fault", "fault"
)
_JOBS = _Tried(
    "jobs do not survive the end of their runner in",
    "jobs survive the end of their runner in",
    "jobs survive the end of their runner in no case",
    "case",
)
_LOADS = _Tried(
    "not every write is right under", "every write is right under", "every write is right in no load", "load"
)


def about_load(rows: Iterable[Row]) -> list[str]:
    """Return the results of faults, of jobs and of loads; "" for what was not exercised."""
    asked = [row for row in rows if asked_for(row)]
    resilience = [row for row in asked if row.planned.section is Section.RESILIENCE]
    faults = [row for row in resilience if not is_about_jobs(row.planned)]
    jobs = [row for row in resilience if is_about_jobs(row.planned)]
    loads = [row for row in asked if row.planned.section is Section.SOAK]
    return [_survival(faults, _FAULTS), _survival(jobs, _JOBS), _survival(loads, _LOADS)]


_PIPELINE = _Tried(
    "the ingest pipeline does not keep its promises in",
    "the ingest pipeline keeps its promises in",
    "the ingest pipeline keeps its promises in no check",
    "check",
    "the ingest pipeline was not verified here",
)
_MIGRATIONS = _Tried(
    "migrations do not hold in",
    "migrations hold in",
    "migrations hold in no check",
    "check",
    "migrations were not verified here",
)
_COMMANDS = _Tried(
    "other test suites fail in",
    "other test suites pass in",
    "other test suites pass in no command",
    "command",
    "no other test suite was verified here",
)


def about_own_systems(rows: Iterable[Row]) -> list[str]:
    """Return the results of the ingest pipeline, of migrations and of other test suites; "" for what was not tried."""
    asked = [row for row in rows if asked_for(row)]
    sections = ((Section.INGEST, _PIPELINE), (Section.MIGRATIONS, _MIGRATIONS), (Section.COMMANDS, _COMMANDS))
    return [_survival([row for row in asked if row.planned.section is section], tried) for section, tried in sections]


def _survival(rows: Sequence[Row], tried: _Tried) -> str:
    issues = sum(row.result.gates for row in rows)
    held = sum(row.status is Status.OK for row in rows)
    if issues:
        return f"{tried.broken} {issues} of {with_number(issues + held, tried.noun)}"
    accepted = accepted_in_words(rows)
    apart = not_run_in_words(rows)
    if not held:
        said = f"{tried.holds_in_none}: {accepted}" if accepted else tried.unverified if rows else ""
        if not said and any(is_interrupted(row.result) for row in rows):
            return not_run_in_words(rows, tried.noun).removeprefix(", and ")
        return f"{said}{apart}" if said else ""
    return f"{tried.holds} {with_number(held, tried.noun)}{except_for(accepted)}{apart}"
