"""Whether verdicts can be relied on: three consecutive runs of a topology, rows that were repeated, and quarantine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Quarantine, Repetition, RunAttempts, Section, Status, concerns, spelled
from harness.report.outcomes import is_shown
from harness.report.scope import scoped
from harness.report.topology_rows import without_check
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.report.evidence import Evidence, Row, TopologyRun

#: runs of a topology that have to be complete and without an Issue, one after another
CONSECUTIVE = 3
#: names of checks that a sentence lists
_FEW = 3
#: attempts of one run are one of the three
_REPEAT = re.compile(r" --repeat \d+")


class ConsecutiveRow(Struct, frozen=True, kw_only=True):
    """The newest runs of one topology on the same subject."""

    topology: str
    status: Status
    #: newest first
    runs: tuple[str, ...]
    #: what is missing or broken, and what does not count, in words
    notes: str
    #: the command of a run that tries every row
    command: str


class RepeatedRow(Struct, frozen=True, kw_only=True):
    """A flaky row, or repeated rows of one topology with the same verdicts in the same runs."""

    topology: str
    #: "" for several rows
    check: str
    number: int = 1
    status: Status
    counts: Repetition
    #: the attempts of each run, oldest first
    runs: tuple[RunAttempts, ...]

    @property
    def flaky(self) -> str:
        return "yes" if self.counts.flaky else "no"

    @property
    def rate(self) -> str:
        """The upper bound of the failure rate, in words."""
        return spelled(self.counts.bound) if self.counts.judged else "unknown"


class QuarantineRow(Struct, frozen=True, kw_only=True):
    """One entry of the quarantine, with what its rows are now."""

    check: str
    topologies: str
    owner: str
    link: str
    expires: str
    #: whether it still applies
    decides: str
    #: the number of its rows by status
    shown: str


# --- consecutive runs ------------------------------------------------------------------------------------


def consecutive_runs(evidence: Evidence) -> tuple[ConsecutiveRow, ...]:
    """Return a row for each topology that a run was asked for; an environment changes without the harness.

    Rows that only `exec` tried are left out: no run tries them with the others.
    """
    asked = scoped(evidence)
    by_topology: dict[str, list[Row]] = {}
    for row in asked.rows:
        if row.planned.evidence_class is EvidenceClass.CI and not asked.is_unplanned(row):
            by_topology.setdefault(row.planned.target, []).append(row)
    return tuple(_consecutive(name, rows, evidence.series.get(name, ())) for name, rows in by_topology.items())


def _consecutive(topology: str, rows: Sequence[Row], series: Sequence[TopologyRun]) -> ConsecutiveRow:
    owed = {row.planned.check for row in rows if row.planned.owed}
    whole = [run for run in series if owed <= run.results.keys()][-CONSECUTIVE:]
    first = series.index(whole[0]) if whole else len(series)
    # an Issue of a run of some rows, in between, counts as well
    issues = list(_sentences(series[first:], owed, Status.ISSUE))
    gaps = list(_sentences(whole, owed, Status.NOT_RUN))
    if len(whole) < CONSECUTIVE:
        status = Status.NOT_RUN
        sentences = [f"{len(whole)} of {CONSECUTIVE} runs that tried every row ({len(owed)}) on the same subject"]
    else:
        status = Status.ISSUE if issues else Status.NOT_RUN if gaps else Status.OK
        clean = f"every row has an answer and none is an Issue ({len(owed)} in each run)"
        sentences = [] if issues or gaps else [clean]
    return ConsecutiveRow(
        topology=topology,
        status=status,
        runs=tuple(run.run_id for run in reversed(whole)),
        notes="; ".join([*sentences, *issues, *gaps, *_apart(whole, owed)]),
        command=_next_run(rows, owed),
    )


def _next_run(rows: Sequence[Row], owed: set[str]) -> str:
    """Return the command that tries every row. A check on demand runs only if its suite is named."""
    # the commands of faults and loads say how often and how long they run
    plain = (row for row in rows if row.planned.section not in {Section.RESILIENCE, Section.SOAK})
    command = _REPEAT.sub("", without_check(next(plain, rows[0]))).removesuffix(" --")
    if owed.isdisjoint(check.id for check in catalogue().checks if check.on_demand):
        return command
    suites = dict.fromkeys(row.planned.check.partition(".")[0] for row in rows if row.planned.owed)
    apart = " --" if command.startswith("nox ") and " -- " not in command else ""
    return f"{command}{apart}{''.join(f' --suite {suite}' for suite in suites)}"


def _sentences(runs: Iterable[TopologyRun], owed: set[str], status: Status) -> Iterator[str]:
    """Yield a sentence for each run with rows of a status that counts."""
    for run in runs:
        checks = [
            check
            for check, result in run.results.items()
            if check in owed
            and result.status is status
            and (result.gates if status is Status.ISSUE else result.quarantine is None)
        ]
        if checks:
            more = f" and {len(checks) - _FEW} more" if len(checks) > _FEW else ""
            yield f"{status} in run {run.run_id}: {', '.join(checks[:_FEW])}{more}"


def _apart(runs: Iterable[TopologyRun], owed: set[str]) -> Iterator[str]:
    """Yield how many rows of the runs do not count."""
    results = [result for run in runs for check, result in run.results.items() if check in owed]
    known = sum(result.known is not None and result.quarantine is None for result in results)
    if known:
        yield f"known Issues do not count: {known} row{'' if known == 1 else 's'} of these runs"
    apart = [result for result in results if result.quarantine and result.status in {Status.ISSUE, Status.NOT_RUN}]
    if apart:
        yield f"rows in quarantine do not count: {', '.join(dict.fromkeys(result.check for result in apart))}"


# --- repeated rows ---------------------------------------------------------------------------------------


def repeated_rows(rows: Iterable[Row]) -> tuple[RepeatedRow, ...]:
    """Return the rows with several attempts: flaky ones first, then those with the highest bound.

    A whole run may be repeated, so rows that are not flaky are counted.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if counts := row.result.repetition:
            apart = row.planned.check if counts.flaky else ""
            groups.setdefault((row.planned.target, apart, row.status, row.runs), []).append(row)
    found = [
        RepeatedRow(
            topology=alike[0].planned.target,
            check=alike[0].planned.check if len(alike) == 1 else "",
            number=len(alike),
            status=alike[0].status,
            counts=counts,
            runs=alike[0].runs,
        )
        for alike in groups.values()
        if (counts := alike[0].result.repetition)
    ]
    return tuple(sorted(found, key=lambda row: (not row.counts.flaky, -row.counts.bound)))


# --- quarantine ------------------------------------------------------------------------------------------


def quarantine_rows(
    evidence: Evidence, entries: Iterable[Quarantine], expired: Iterable[Quarantine]
) -> tuple[QuarantineRow, ...]:
    """Return a row for each entry of the quarantine, expired ones first."""
    return tuple(
        QuarantineRow(
            check=entry.check,
            topologies=", ".join(entry.topologies) or "all",
            owner=entry.owner,
            link=entry.link,
            expires=entry.expires,
            decides=decides,
            shown=_shown(evidence, entry),
        )
        for group, decides in ((expired, "yes, since it expired"), (entries, "no"))
        for entry in group
    )


def _shown(evidence: Evidence, entry: Quarantine) -> str:
    rows = [
        row for row in evidence.rows if concerns(entry, row.planned.check, row.planned.target) and is_shown(*row.answer)
    ]
    by_status = {status: [row.planned.target for row in rows if row.status is status] for status in Status}
    found = [f"{status} in {', '.join(targets)}" for status, targets in by_status.items() if targets]
    return "; ".join(found) or "no row"
