"""The readiness map, and the decision on a workflow class. Both state only what the evidence shows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from harness.host.readiness_file import GUIDANCE
from harness.model import Status
from harness.report.readiness_rows import (
    commands_of,
    counted,
    few,
    is_of,
    judge,
    never_planned,
    not_by_the_host,
    path_rows,
    rows_of,
    sentence_of,
)
from harness.report.trials import missing_trials, shown_trials

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.host.readiness_file import GuidanceItem, ReadinessArea, Workflow
    from harness.report.evidence import Evidence, Row


class Stance(StrEnum):
    """How far the evidence supports an area; worst first."""

    NOT_READY = "Not ready"
    NOT_SHOWN = "Not shown"
    WITH_LIMITS = "Proven with limits"
    PROVEN = "Proven"


MEANINGS: dict[Stance, str] = {
    Stance.NOT_READY: "at least one of its checks is an Issue that is not known",
    Stance.NOT_SHOWN: "part of the required evidence is missing, Not run or N/A",
    Stance.WITH_LIMITS: "the required evidence is OK, except for the known Issues and documented limits that are named",
    Stance.PROVEN: "the required evidence is OK, and no limit was observed",
}


class ReadinessRow(Struct, frozen=True, kw_only=True):
    """One area of the map."""

    area: str
    stance: Stance
    #: what the stance means, in one sentence
    meaning: str
    #: why the stance is not better, one sentence each
    reasons: tuple[str, ...]
    #: the number of rows by status, in words
    shown: str
    #: the commands that reproduce the evidence
    commands: tuple[str, ...]
    host_responsibility: str


class Conjunct(Struct, frozen=True, kw_only=True):
    """One of the three conditions of a decision. It holds if nothing is missing."""

    name: str
    missing: tuple[str, ...]
    #: the evidence for it, and its known limits, one sentence each
    shown: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        return not self.missing


class Decision(Struct, frozen=True, kw_only=True):
    """The decision on one workflow class on one release. Another class, release or load needs its own evidence."""

    workflow: str
    release: str
    answer: Literal["yes", "not yet"]
    conjuncts: tuple[Conjunct, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(sentence for conjunct in self.conjuncts for sentence in conjunct.missing)


# --- the map ---------------------------------------------------------------------------------------------


def readiness(areas: Iterable[ReadinessArea], evidence: Evidence) -> tuple[ReadinessRow, ...]:
    """Return one row for each area, in the order of the declaration."""
    return tuple(_area(area, evidence) for area in areas)


def _area(declared: ReadinessArea, evidence: Evidence) -> ReadinessRow:
    checks = judge(rows_of(evidence, declared.checks, declared.topologies))
    absent = [f"Not run: {declared.not_run}"] if declared.not_run else []  # the first one, so that it is never cut off
    absent += never_planned(evidence, declared.checks, declared.topologies)
    paths = [judge(path_rows(evidence, declared.environment, name)) for name in declared.paths]
    absent += not_by_the_host(evidence, declared.environment, declared.paths)
    everything = [checks, *paths]
    broken = [sentence for judged in everything for sentence in judged.broken]
    absent += [sentence for judged in everything for sentence in judged.absent]
    for judged in everything:
        if judged.rows and not _ok(judged.rows):  # rows that are only N/A or known Issues show nothing
            absent += judged.not_applicable or judged.limits
    limits = [sentence for judged in everything for sentence in judged.limits]
    rows = [row for judged in everything for row in judged.rows]
    stance = _stance(broken, absent, limits, rows)
    return ReadinessRow(
        area=declared.area,
        stance=stance,
        meaning=MEANINGS[stance],
        reasons=tuple(few(broken) + few(absent) + few(limits)),
        shown=counted(rows),
        commands=commands_of(rows),
        host_responsibility=declared.host_responsibility,
    )


def _stance(broken: Sequence[str], absent: Sequence[str], limits: Sequence[str], rows: Sequence[Row]) -> Stance:
    if broken:
        return Stance.NOT_READY
    # a known Issue records that a defect is accepted; it is not evidence
    if absent or not _ok(rows):
        return Stance.NOT_SHOWN
    return Stance.WITH_LIMITS if limits else Stance.PROVEN


def _ok(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.status is Status.OK]


# --- the decision ----------------------------------------------------------------------------------------


def decide(workflow: Workflow, evidence: Evidence, *, library_version: str = "", today: date | None = None) -> Decision:
    """Decide on one workflow class: `yes` if three conditions hold, else `not yet` with what is missing.

    1. Rollout guidance: each of its items is signed.
    2. Verification: each row of the workflow's checks is OK, N/A with a reason, or a known Issue, and each check is OK
       in at least one topology. The same holds for smoke, resilience and soak: see :mod:`harness.report.trials`.
    3. Host path: each named path was run in the workflow's environment, with host-class evidence, and is OK. Aspects
       of a path may be N/A.

    :param library_version: the version that the evidence is about; "" if the evidence does not record it.
    :param today: signatures with a later date do not count; the current date in UTC if None.
    """
    conjuncts = (
        _guidance(workflow.guidance, today or datetime.now(tz=UTC).date()),
        _verification(workflow, evidence, library_version),
        _host_path(workflow, evidence),
    )
    return Decision(
        workflow=workflow.name,
        release=workflow.release,
        answer="yes" if all(conjunct.held for conjunct in conjuncts) else "not yet",
        conjuncts=conjuncts,
    )


def _guidance(signed: Sequence[GuidanceItem], today: date) -> Conjunct:
    done = {entry.item: entry for entry in signed if _is_past(entry.on, today)}
    missing = [f"{item} is not signed: {statement}" for item, statement in GUIDANCE.items() if item not in done]
    missing += [
        f"{entry.item} is signed for {entry.on}, expected a date up to {today}"
        for entry in signed
        if not _is_past(entry.on, today)
    ]
    shown = [
        f"{item}: {done[item].done_by} on {done[item].on}: {done[item].statement} ({done[item].link})"
        for item in GUIDANCE
        if item in done
    ]
    return Conjunct(name="rollout guidance satisfied", missing=tuple(missing), shown=tuple(shown))


def _is_past(day: str, today: date) -> bool:
    try:
        return date.fromisoformat(day) <= today
    except ValueError:
        return False


def _verification(workflow: Workflow, evidence: Evidence, library_version: str) -> Conjunct:
    rows = rows_of(evidence, workflow.checks, workflow.topologies)
    judged = judge(rows)
    missing = never_planned(evidence, workflow.checks, workflow.topologies)
    missing += few(judged.broken) + few(judged.absent)
    missing += missing_trials(evidence, workflow.topologies)
    missing += [
        f"{name} is OK in no topology: its rows are N/A or known Issues"
        for name in workflow.checks
        if (relevant := [row for row in rows if is_of(row, name)])
        and all(row.status is Status.NA or row.result.known for row in relevant)
    ]
    shown = [counted(rows), *few(judged.limits), *shown_trials(evidence, workflow.topologies)]
    if not library_version:
        missing.append(f"the evidence does not record the library's version, expected {workflow.release}")
    elif not _is_release(library_version, workflow):
        missing.append(f"the evidence is about release {library_version}, expected {workflow.release}")
    return Conjunct(
        name=f"verification green on release {workflow.release}", missing=tuple(missing), shown=tuple(shown)
    )


def library_of(evidence: Evidence, environment: str) -> str:
    """Return the version of the library that an environment is declared to run; "" if it is not declared."""
    found = evidence.environments.get(environment)
    return found.versions.get("library", "").rpartition(" ")[2] if found else ""


def _is_release(version: str, workflow: Workflow) -> bool:
    return version.removeprefix("v") == workflow.release.removeprefix("v")


def _host_path(workflow: Workflow, evidence: Evidence) -> Conjunct:
    missing = [] if workflow.paths else ["the workflow names no audited path that the host runs through its own worker"]
    missing += not_by_the_host(evidence, workflow.environment, workflow.paths)
    if (runs := library_of(evidence, workflow.environment)) and not _is_release(runs, workflow):
        missing.append(f"{workflow.environment} runs release {runs}, expected {workflow.release}")
    shown = []
    for name in workflow.paths:
        judged = judge(path_rows(evidence, workflow.environment, name))
        known = [sentence_of(row) for row in judged.rows if row.status is Status.ISSUE and row.result.known]
        missing += [*judged.broken, *known, *judged.absent]
        shown += [f"path {name}: {counted(judged.rows)}"] if judged.rows else []
        shown += [sentence for sentence in (*judged.limits, *judged.not_applicable) if sentence not in known]
    return Conjunct(
        name="host verified the same path through its own worker and deploy path",
        missing=tuple(dict.fromkeys(missing)),
        shown=tuple(shown),
    )
