"""The table of an ingest pipeline: a row for each property and topology, with what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Status
from harness.report.outcomes import is_shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.report.evidence import Row

#: facts of the rows
_OUTCOME, _MEASURED = "outcome", "measured"


class IngestRow(Struct, frozen=True, kw_only=True):
    """One property of a pipeline in one topology."""

    target: str
    check: str
    #: as its project spells it
    pipeline: str
    #: the claim of the check
    property: str
    status: Status
    #: what was observed, in short; the reason of a row that is Not run or N/A
    outcome: str
    measured: str


def ingest_rows(rows: Iterable[Row]) -> tuple[IngestRow, ...]:
    """Return the rows about ingest pipelines, in the order of the report."""
    return tuple(
        IngestRow(
            target=row.planned.target,
            check=row.planned.check,
            pipeline=label.title,
            property=row.planned.claim,
            status=row.status,
            outcome=_outcome(row),
            measured=row.result.facts.get(_MEASURED, ""),
        )
        for row in rows
        if (label := row.planned.ingest) and is_shown(*row.answer)
    )


def _outcome(row: Row) -> str:
    """Return what was observed; an Issue without an outcome ended early, and its reason says why."""
    outcome = row.result.facts.get(_OUTCOME, "")
    if row.status is Status.OK or (row.status is Status.ISSUE and outcome):
        return outcome
    return row.result.reason
