"""The section of the page about job engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report import job_engine_columns
from harness.report.job_engine_cells import ACCEPTED, ISSUE, LIMIT, OBSERVED, OPEN, WORKS
from harness.report.job_engine_rows import engines_in_words
from harness.report.listings import Part, Section
from harness.report.section_words import one_table

if TYPE_CHECKING:
    from harness.report.tables import Report

#: topologies whose results the first sentence has one by one
_MOST_NAMES = 8
#: the colours of the words of a cell, each with a sample and its meaning
_LEGEND = (
    (WORKS, "works", "every case that was asked for ran and is OK; the cell has their number"),
    (OPEN, "works", "OK so far: other cases are Not run, or a verdict is not reliable"),
    (OBSERVED, "such as twice 3", "an observation of a case that is OK"),
    (LIMIT, "such as idle 27 s", "a documented limit"),
    (ISSUE, "such as lost 2", "an Issue"),
    (ACCEPTED, "such as lost 2", "an Issue that is known or in quarantine"),
)


def job_engines(report: Report) -> Section:
    found = report.job_engines
    rows, findings, names = (found.rows, found.findings, found.topologies) if found else ((), (), ())
    absent = found.absent if found else ()
    by_topology = {name: [row.cells[name] for row in rows if name in row.cells] for name in names}
    if len(names) > _MOST_NAMES:
        by_topology = {f"in {len(names)} topologies": [cell for cells in by_topology.values() for cell in cells]}
    said = (f"{name}: {words}" for name, cells in by_topology.items() if (words := engines_in_words(cells)))
    instead = one_table("Findings about job engines, by engine", job_engine_columns.FINDINGS, findings)
    part = Part(title="What was found, and what to do instead", intro=("job_findings", ()), listings=instead)
    return Section(
        anchor="job-engines",
        title="Job engines behind a pooler",
        short="Job engines",
        result=". ".join(said) or ("no case of a job engine applies" if rows else ""),
        intro=("job_engines", ()),
        missing=("no_job_engines", (absent,)),
        listings=one_table("Job engines by topology", job_engine_columns.engines(names, None), rows, on_paper=True),
        parts=(part,) if findings else (),
        legend=tuple((f"j-{tone}", example, meaning) for tone, example, meaning in _LEGEND),
        remarks=tuple((f"{one.title} did not run in {', '.join(one.topologies)}:", f"{one.reason}.") for one in absent),
    )
