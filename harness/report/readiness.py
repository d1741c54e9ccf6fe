"""The readiness map and the decision on a workflow class: what the evidence allows to be said, and never more."""

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
    said,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.host.readiness_file import GuidanceItem, ReadinessArea, Workflow
    from harness.report.evidence import Evidence, Row


class Stance(StrEnum):
    """Where an area stands; worst first."""

    NOT_READY = "Not ready"
    NOT_SHOWN = "Not shown"
    WITH_LIMITS = "Proven with limits"
    PROVEN = "Proven"


MEANINGS: dict[Stance, str] = {
    Stance.NOT_READY: "a check of it is an Issue that nobody has accepted",
    Stance.NOT_SHOWN: "some of what would show it is missing, Not run, or does not apply",
    Stance.WITH_LIMITS: "everything that shows it is OK, but for the known Issues and documented limits that are named",
    Stance.PROVEN: "everything that shows it is OK, and no limit was seen",
}


class ReadinessRow(Struct, frozen=True, kw_only=True):
    """One area of the map."""

    area: str
    stance: Stance
    #: what the stance says, one sentence
    meaning: str
    #: why it is not better, one sentence each
    reasons: tuple[str, ...]
    #: rows by status, in words
    shown: str
    #: commands that show it again
    commands: tuple[str, ...]
    host_responsibility: str


class Conjunct(Struct, frozen=True, kw_only=True):
    """One of the three conditions: it holds when nothing is missing."""

    name: str
    missing: tuple[str, ...]
    #: what speaks for it, and what a reader should know of it, one sentence each
    shown: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        return not self.missing


class Decision(Struct, frozen=True, kw_only=True):
    """The answer for one workflow class on one release. Another class, release or load needs evidence of its own."""

    workflow: str
    release: str
    answer: Literal["yes", "not yet"]
    conjuncts: tuple[Conjunct, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(sentence for each in self.conjuncts for sentence in each.missing)


# --- the map ---------------------------------------------------------------------------------------------


def readiness(areas: Iterable[ReadinessArea], evidence: Evidence) -> tuple[ReadinessRow, ...]:
    """Return the map, in the order of its declaration."""
    return tuple(_area(each, evidence) for each in areas)


def _area(declared: ReadinessArea, evidence: Evidence) -> ReadinessRow:
    checks = judge(rows_of(evidence, declared.checks, declared.topologies))
    absent = never_planned(evidence, declared.checks, declared.topologies)
    paths = [judge(path_rows(evidence, declared.environment, name)) for name in declared.paths]
    absent += not_by_the_host(evidence, declared.environment, declared.paths)
    everything = [checks, *paths]
    broken = [sentence for each in everything for sentence in each.broken]
    absent += [sentence for each in everything for sentence in each.absent]
    for each in everything:
        if each.rows and not _ok(each.rows):  # nothing but N/A and accepted Issues shows nothing
            absent += each.not_applicable or each.limits
    limits = [sentence for each in everything for sentence in each.limits]
    rows = [row for each in everything for row in each.rows]
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
    # an accepted Issue accepts a defect; it shows nothing by itself
    if absent or not _ok(rows):
        return Stance.NOT_SHOWN
    return Stance.WITH_LIMITS if limits else Stance.PROVEN


def _ok(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.status is Status.OK]


# --- the decision ----------------------------------------------------------------------------------------


def decide(workflow: Workflow, evidence: Evidence, *, library_version: str = "", today: date | None = None) -> Decision:
    """Answer for one workflow class: yes when all three conditions hold, else not yet, with what is missing.

    The rollout guidance is satisfied when each of its items is signed. Verification is green when every row of the
    workflow's checks is OK, N/A with its reason, or an accepted Issue, and every check is OK somewhere. The host has
    verified the path when each named path was taken in its environment, host-class, and is OK; aspects of a path may
    be N/A.

    :param library_version: of the library that the evidence is about; "" where the evidence does not record one.
    :param today: nothing can have been done after it; the day in UTC when none is given.
    """
    conjuncts = (
        _guidance(workflow.guidance, today or datetime.now(tz=UTC).date()),
        _verification(workflow, evidence, library_version),
        _host_path(workflow, evidence),
    )
    return Decision(
        workflow=workflow.name,
        release=workflow.release,
        answer="yes" if all(each.held for each in conjuncts) else "not yet",
        conjuncts=conjuncts,
    )


def _guidance(signed: Sequence[GuidanceItem], today: date) -> Conjunct:
    done = {each.item: each for each in signed if _is_past(each.on, today)}
    missing = [f"nobody has signed {item}: {what}" for item, what in GUIDANCE.items() if item not in done]
    missing += [
        f"{each.item} is signed for {each.on}, which is no day up to {today}"
        for each in signed
        if not _is_past(each.on, today)
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
    missing += [
        f"{name} is OK nowhere: it does not apply, or is a known Issue, wherever it was tried"
        for name in workflow.checks
        if (tried := [row for row in rows if is_of(row, name)])
        and all(row.status is Status.NA or row.result.known for row in tried)
    ]
    shown = [counted(rows), *few(judged.limits)]
    if not library_version:
        missing.append(f"no evidence says that it is about {workflow.release}: the library's version is not known")
    elif not _is_release(library_version, workflow):
        missing.append(f"the evidence is about release {library_version}, and {workflow.release} is to be decided on")
    return Conjunct(
        name=f"verification green on release {workflow.release}", missing=tuple(missing), shown=tuple(shown)
    )


def library_of(evidence: Evidence, environment: str) -> str:
    """Return which version of the library an environment is declared to run; "" where nobody says so."""
    found = evidence.environments.get(environment)
    return found.versions.get("library", "").rpartition(" ")[2] if found else ""


def _is_release(version: str, workflow: Workflow) -> bool:
    return version.removeprefix("v") == workflow.release.removeprefix("v")


def _host_path(workflow: Workflow, evidence: Evidence) -> Conjunct:
    missing = [] if workflow.paths else ["no audited path is named that the host takes through its own worker"]
    missing += not_by_the_host(evidence, workflow.environment, workflow.paths)
    if (runs := library_of(evidence, workflow.environment)) and not _is_release(runs, workflow):
        missing.append(f"{workflow.environment} runs release {runs}, and {workflow.release} is to be decided on")
    shown = []
    for name in workflow.paths:
        judged = judge(path_rows(evidence, workflow.environment, name))
        known = [said(row) for row in judged.rows if row.status is Status.ISSUE and row.result.known]
        missing += [*judged.broken, *known, *judged.absent]
        shown += [f"path {name}: {counted(judged.rows)}"] if judged.rows else []
        shown += [sentence for sentence in (*judged.limits, *judged.not_applicable) if sentence not in known]
    return Conjunct(
        name="host verified the same path through its own worker and deploy path",
        missing=tuple(dict.fromkeys(missing)),
        shown=tuple(shown),
    )
