"""The scope of a report: the rows that a run was asked for. One sentence names everything else.

Only tables are scoped. The checklist, the readiness areas and the exit code of `report` also count the rows that no run
was asked for, because an answer about some topologies is not an answer about all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.registry import TRAIL_SECTIONS
from harness.report.evidence import NOBODY_RAN_IT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from harness.report.evidence import Evidence, Row

#: the most topologies whose missing rows are counted one by one
_MOST_NAMES = 4


def asked_for(row: Row) -> bool:
    """Return whether a run was asked for a row. Evidence that no longer counts was asked for, too."""
    return bool(row.run_id) or row.result.reason != NOBODY_RAN_IT


def of_the_trail(evidence: Evidence) -> list[Row]:
    """Return the rows about the audit trail that a run was asked for, without features of poolers."""
    return [
        row
        for row in evidence.rows
        if asked_for(row) and row.planned.section in TRAIL_SECTIONS and not row.planned.feature
    ]


def scoped(evidence: Evidence) -> Evidence:
    """Return the evidence without the rows that no run was asked for."""
    return replace(evidence, rows=tuple(filter(asked_for, evidence.rows)))


def outside(evidence: Evidence, *, on_demand: Iterable[str] = (), environments: Collection[str] = ()) -> str:
    """Return one sentence about the rows that the tables leave out; "" if they leave none out.

    :param on_demand: the topologies that run only if they are named.
    :param environments: the environments that an operator named.
    """
    open_rows: dict[str, int] = {}
    for row in evidence.rows:
        if row.planned.owed and not asked_for(row):
            open_rows[row.planned.target] = open_rows.get(row.planned.target, 0) + 1
    shown = {row.planned.target for row in evidence.rows if asked_for(row)}
    absent = [name for name in open_rows if name not in shown]
    partial = [
        f"{number} row{'' if number == 1 else 's'} of {name}" for name, number in open_rows.items() if name in shown
    ]
    if len(partial) > _MOST_NAMES:
        number = sum(number for name, number in open_rows.items() if name in shown)
        partial = [f"{number} rows of {len(partial)} topologies"]
    topologies = [name for name in absent if name not in environments]
    named = [name for name in on_demand if name not in shown and name not in open_rows]
    missing = [
        *partial,
        *([f"all rows of {', '.join(topologies)}"] if topologies else []),
        *([f"{', '.join(named)}, on demand only (harness verify NAME)"] if named else []),
        *(f"environment {name} (harness verify --environment {name})" for name in absent if name in environments),
    ]
    if not missing:
        return ""
    completes = ". harness report --complete runs what is missing" if partial or topologies else ""
    return f"the tables leave out what no run of this code was asked for: {'; '.join(missing)}{completes}"
