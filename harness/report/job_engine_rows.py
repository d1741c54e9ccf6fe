"""The table of job engines: a row for each engine with its settings, a column for each topology; and its findings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Status
from harness.report.job_engine_cells import (
    ACCEPTED,
    ISSUE,
    LIMIT,
    OPEN,
    JobEngineCell,
    job_engine_cell,
    label,
    place_of_case,
)
from harness.report.job_findings import JobFinding, job_findings
from harness.report.limits import LimitKind, limit_kind
from harness.report.outcomes import is_shown
from harness.report.scope import asked_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.report.evidence import Row

#: facts that all rows of an engine and a variant share
SETTINGS, VERSIONS = "settings", "versions"
#: what cells have that do not work in all of their cases, worst first
_HAVE = {ISSUE: "an Issue", ACCEPTED: "an accepted Issue", LIMIT: "a documented limit"}


class JobEngineRow(Struct, frozen=True, kw_only=True):
    """One job engine with its settings."""

    engine: str
    #: as its project spells it, with the version that was tried
    title: str
    variant: str
    #: as the rows observed them
    settings: str = ""
    versions: str = ""
    #: by topology; one without a row of this engine has no cell
    cells: dict[str, JobEngineCell]


class AbsentEngine(Struct, frozen=True, kw_only=True):
    """A job engine that does not run on the machine of the evidence, so that nobody owes an answer about it."""

    title: str
    #: those that would try it
    topologies: tuple[str, ...]
    #: one sentence without a full stop
    reason: str


class JobEngines(Struct, frozen=True, kw_only=True):
    """Everything that the report says about job engines."""

    #: those that try an engine, in the order of the report
    topologies: tuple[str, ...]
    rows: tuple[JobEngineRow, ...]
    findings: tuple[JobFinding, ...]
    absent: tuple[AbsentEngine, ...] = ()


def job_engines(rows: Iterable[Row], order: Iterable[str] = ()) -> JobEngines | None:
    """Return the table of job engines; None if no row is about one.

    :param order: that of the topologies; without it, that of the rows.
    """
    by_engine: dict[str, dict[str, list[Row]]] = {}
    absent: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        job = row.planned.job
        if job and not is_shown(*row.answer):
            absent.setdefault((job.title, row.planned.out_of_scope), {}).setdefault(row.planned.target)
        elif job:
            by_engine.setdefault(job.engine, {}).setdefault(job.variant, []).append(row)
    # two runs have the same rows in different orders
    order = tuple(order)
    places = {name: place for place, name in enumerate(order)}
    found = [
        sorted(rows, key=lambda row: (places.get(row.planned.target, len(places)), place_of_case(label(row).case)))
        for rows in sorted((rows for variants in by_engine.values() for rows in variants.values()), key=_place)
    ]
    if not found and not absent:
        return None
    tried = dict.fromkeys(row.planned.target for rows in found for row in rows)
    return JobEngines(
        topologies=tuple(name for name in dict.fromkeys((*order, *tried)) if name in tried),
        rows=tuple(map(_row, found)),
        findings=tuple(finding for rows in found for finding in job_findings(rows)),
        absent=tuple(
            AbsentEngine(title=title, topologies=tuple(names), reason=reason)
            for (title, reason), names in absent.items()
        ),
    )


def _place(rows: Sequence[Row]) -> tuple[str, str, bool, str]:
    """Return the place of an engine and a variant: by its name, the variant `default` first."""
    job = label(rows[0])
    return job.title.casefold(), job.engine, job.variant != "default", job.variant


def _row(rows: Sequence[Row]) -> JobEngineRow:
    """Return the row of one engine and one variant."""
    by_topology: dict[str, list[Row]] = {}
    for row in rows:
        by_topology.setdefault(row.planned.target, []).append(row)

    def fact(name: str) -> str:
        return "; ".join(dict.fromkeys(filter(None, (row.result.facts.get(name, "") for row in rows))))

    return JobEngineRow(
        engine=label(rows[0]).engine,
        title=label(rows[0]).title,
        variant=label(rows[0]).variant,
        settings=fact(SETTINGS),
        versions=fact(VERSIONS),
        cells={name: job_engine_cell(found) for name, found in by_topology.items()},
    )


# --- in words --------------------------------------------------------------------------------------------


def about_job_engines(rows: Iterable[Row]) -> str:
    """Return how many job engines do their jobs in the topology of some rows; "" if nobody asked for one."""
    asked: dict[tuple[str, str], list[Row]] = {}
    others = Counter[tuple[str, str]]()
    for row in rows:
        if (job := row.planned.job) and asked_for(row) and is_shown(*row.answer):
            asked.setdefault((job.engine, job.variant), []).append(row)
        elif job and not asked_for(row):
            others[job.engine, job.variant] += 1
    words = engines_in_words(list(map(job_engine_cell, asked.values())))
    if not words:
        return ""
    unasked = sum(others[tried] for tried in asked)
    apart = f"; {unasked} more of their cases {'was' if unasked == 1 else 'were'} not asked for" if unasked else ""
    return f"job engines: {words}{apart}"


def observes_limit(rows: Iterable[Row]) -> bool:
    """Return whether a case of a job engine observes a documented limit."""
    return any(limit_kind(*row.answer) is LimitKind.JOBS for row in rows)


def engines_in_words(cells: Sequence[JobEngineCell]) -> str:
    """Return how many engines do their jobs, and what their other cases found; "" without a cell that applies.

    An engine does its jobs if the case `works` is OK. An Issue of another case is counted, and takes nothing from that.
    """
    applies = [cell for cell in cells if cell.status is not Status.NA]
    if not applies:
        return ""
    do = sum(cell.does_jobs for cell in applies)
    states = Counter(_state(cell) for cell in applies if not cell.works)
    partly = Counter(_state(cell) for cell in applies if cell.not_run)
    others = [
        f"{states[state]} {'has' if states[state] == 1 else 'have'} {said}"
        + (f" ({partly[state]} with cases that are Not run)" if partly[state] else "")
        for state, said in _HAVE.items()
        if states[state]
    ]
    if number := states[OPEN]:
        others.append(f"{number} {'is' if number == 1 else 'are'} not verified as a whole")
    total = f"all {do}" if do == len(applies) > 1 else f"{do} of {len(applies)}"
    does = f"{total} {'does its' if do == 1 else 'do their'} jobs"
    return "; ".join(filter(None, (does, ", ".join(others))))


def _state(cell: JobEngineCell) -> str:
    return next((tone for tone in _HAVE if any(word.tone == tone for word in cell.words)), OPEN)
