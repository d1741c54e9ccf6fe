"""The rows about jobs of the reference host. They are not faults: the database is not disturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Section, Status
from harness.report.outcomes import is_shown
from harness.report.section_words import numbered, statuses_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.model import PlannedCheck
    from harness.report.evidence import Row

#: the area of checks that end the runner of jobs; every other row of resilience is a fault
JOBS = "host application"


class JobRow(Struct, frozen=True, kw_only=True):
    """One case in one topology."""

    check: str
    #: in words, such as `jobs with a delay survive the end of worker and scheduler`
    case: str
    target: str
    status: Status
    #: why it is not OK
    note: str


def is_about_jobs(planned: PlannedCheck) -> bool:
    return planned.section is Section.RESILIENCE and planned.area == JOBS


def job_rows(rows: Iterable[Row]) -> tuple[JobRow, ...]:
    """Return the rows about jobs: those of one case together."""
    found: dict[str, list[JobRow]] = {}
    for row in rows:
        if is_about_jobs(row.planned) and is_shown(*row.answer):
            found.setdefault(row.planned.check, []).append(
                JobRow(
                    check=row.planned.check,
                    case=row.planned.claim.partition(": once")[0],
                    target=row.planned.target,
                    status=row.status,
                    note=row.result.reason,
                )
            )
    return tuple(row for of_check in found.values() for row in of_check)


def jobs_in_words(rows: Sequence[JobRow]) -> str:
    """Return the result of all cases in one sentence without a full stop; "" without a row."""
    if not rows:
        return ""
    cases, topologies = {row.check for row in rows}, {row.target for row in rows}
    where = numbered(topologies, "topology", "topologies")
    return f"{numbered(cases, 'case')} of jobs whose runner ends, in {where}: {statuses_in_words(rows)}"
