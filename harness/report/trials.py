"""Smoke, resilience and soak: three questions about each topology and environment, which no answer to another replaces.

- smoke: does the basic path work?
- resilience: does acknowledged work survive restarts and cut connections?
- soak: does it stay right under a bounded mix of load?
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Section, Status
from harness.report.evidence import worst
from harness.report.outcomes import is_shown, reliability_of
from harness.report.readiness_rows import counted, few, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.report.evidence import Evidence, Row

#: the basic path of an application that audits: three kinds of writes, their actor, and a request and a job of the host
_SMOKE = frozenset({"capture.insert", "capture.update", "capture.delete", "actor.local-setting"})
#: the same in an environment, with a table that the operator names
_SMOKE_OF_HOSTS = frozenset({"environment.canary-attributed"})


#: the faults of the main job: an answer of OK needs each of them. Rows on demand add to an answer if they ran
_MAIN_FAULTS = (
    "connections-terminated",
    "process-killed",
    "server-restarted-immediately",
    "server-killed",
    "pooler-killed",
    "pooler-paused",
    "database-killed",
    "server-link-cut",
    "server-link-half-open",
    "application-link-cut",
    "commit-lost",
    "commit-answer-lost",
)


class Trial(StrEnum):
    """One of the three questions."""

    SMOKE = "smoke"
    RESILIENCE = "resilience"
    SOAK = "soak"


ASKS: dict[Trial, str] = {
    Trial.SMOKE: "does the basic path work?",
    Trial.RESILIENCE: "does acknowledged work survive restarts and cut connections?",
    Trial.SOAK: "does it stay right under a bounded mix of load?",
}
_SECTIONS = {Trial.RESILIENCE: Section.RESILIENCE, Trial.SOAK: Section.SOAK}
#: the rows that an answer of OK needs, whatever somebody ran
REQUIRED: dict[Trial, tuple[str, ...]] = {
    Trial.RESILIENCE: tuple(f"resilience.{fault}" for fault in _MAIN_FAULTS),
    Trial.SOAK: ("soak.pgbench", "soak.mix"),
}
#: the number of rows of the suite
ALL = {Trial.RESILIENCE: 29, Trial.SOAK: 2}


class TrialAnswer(Struct, frozen=True, kw_only=True):
    """The answer to one question: OK only if every row that it needs is OK or N/A, and none of its rows is an Issue."""

    status: Status
    #: the number of rows by status, and which of their verdicts are not reliable; or why there is no answer
    reason: str


class TrialRow(Struct, frozen=True, kw_only=True):
    """One topology or environment with its three answers."""

    target: str
    smoke: TrialAnswer
    resilience: TrialAnswer
    soak: TrialAnswer


def trial_rows(evidence: Evidence, targets: Iterable[str]) -> tuple[TrialRow, ...]:
    """Return the three answers of each topology and environment.

    :param evidence: with the rows that no run was asked for.
    :param targets: the topologies and environments that the report is about.
    """
    return tuple(
        TrialRow(target=name, **{trial.value: _answer(evidence, name, trial) for trial in Trial}) for name in targets
    )


def _answer(evidence: Evidence, target: str, trial: Trial) -> TrialAnswer:
    rows = [row for row in evidence.of(target) if _belongs(row, trial)]
    if not rows:
        return TrialAnswer(status=Status.NOT_RUN, reason=_why_none(evidence, target, trial))
    missing = _missing(rows, trial)
    status = worst([*(row.status for row in rows), *([Status.NOT_RUN] if missing else [])])
    # an OK says why some of its rows are N/A
    telling = [row for row in rows if row.status is (Status.NA if status is Status.OK else status)]
    why = [f"{row.planned.check}: {row.result.reason}" for row in telling[:1]]
    if missing and not telling:
        why.append(f"{missing[0]}: no run of this code has exercised it")
    why += few([f"{row.planned.check} is {reliability}" for row in rows if (reliability := reliability_of(row.result))])
    return TrialAnswer(status=status, reason="; ".join((_said(rows, missing, trial), *why)))


def _said(rows: Sequence[Row], missing: Sequence[str], trial: Trial) -> str:
    """Return the number of rows by status, those that an OK needs apart from the others."""
    required = REQUIRED.get(trial, ())
    if not required:
        return _by_status(rows)
    if len(rows) == ALL[trial]:
        return f"all {ALL[trial]}: {_by_status(rows)}"
    needed = [row for row in rows if row.planned.check in required]
    others = [row for row in rows if row.planned.check not in required]
    which = f"{len(required)} of the main job" if trial is Trial.RESILIENCE else f"{len(required)} loads"
    said = f"{which}: {_by_status(needed, len(missing))}"
    return f"{said}; {len(others)} on demand: {_by_status(others)}" if others else said


def _by_status(rows: Sequence[Row], missing: int = 0) -> str:
    """Return `11 OK, 1 Not run`.

    :param missing: the number of rows that no run was asked for.
    """
    counts = {status: sum(row.status is status for row in rows) for status in Status}
    counts[Status.NOT_RUN] += missing
    return ", ".join(f"{number} {status}" for status, number in counts.items() if number)


def _missing(rows: Sequence[Row], trial: Trial) -> list[str]:
    """Return the checks that an answer needs and that have no row."""
    present = {row.planned.check for row in rows}
    return [check for check in REQUIRED.get(trial, ()) if check not in present]


def _belongs(row: Row, trial: Trial) -> bool:
    planned = row.planned
    if not is_shown(*row.answer):
        return False
    if trial is not Trial.SMOKE:
        # a row on demand that did not run takes nothing away
        return planned.section is _SECTIONS[trial] and (
            row.status is not Status.NOT_RUN or planned.check in REQUIRED[trial]
        )
    if planned.evidence_class is EvidenceClass.HOST and planned.check in _SMOKE_OF_HOSTS:
        return True
    is_path = planned.section is Section.PATHS and planned.path is not None and not planned.path.aspect
    return is_path or planned.check in _SMOKE


def _why_none(evidence: Evidence, target: str, trial: Trial) -> str:
    is_host = target in evidence.environments or any(
        row.planned.evidence_class is EvidenceClass.HOST for row in evidence.of(target)
    )
    if trial is Trial.SMOKE:
        return "no run has exercised it"
    if is_host:
        return "faults and load are injected only where the harness started the servers"
    return f"no run has exercised it: harness verify {target} --suite {trial}"


# --- the three questions in a decision --------------------------------------------------------------------


def missing_trials(evidence: Evidence, topologies: Sequence[str]) -> list[str]:
    """Return in one sentence each what the evidence lacks for a yes to the three questions.

    The faults of the main job and both loads are needed, whatever somebody ran.

    :param topologies: those of the workflow, each of which must answer. If empty, all CI-class topologies of the
        evidence: each that answers a question must answer it well, and at least one must.
    """
    missing = []
    for trial in Trial:
        rows = _ci_rows(evidence, trial, topologies)
        judged = judge(rows)
        missing += [f"{trial}: {sentence}" for sentence in (*few(judged.broken), *few(judged.absent))]
        answered = dict.fromkeys(row.planned.target for row in rows)
        for name in answered:
            if absent := _missing([row for row in rows if row.planned.target == name], trial):
                missing.append(f"{trial} in {name}: no run has exercised {', '.join(few(absent))}")
        missing += [
            f"{trial} in {name}: {_why_none(evidence, name, trial)}" for name in topologies if name not in answered
        ]
        if not topologies and not rows:
            missing.append(f"{trial}: no run has exercised it: harness verify TOPOLOGY --suite {trial}")
        elif rows and not judged.broken and not judged.absent and Status.OK not in {row.status for row in rows}:
            missing.append(f"{trial}: it is OK in no topology: its rows are N/A or known Issues")
    return missing


def shown_trials(evidence: Evidence, topologies: Sequence[str]) -> list[str]:
    """Return a sentence for each question that has rows: their number by status, and their known limits."""
    shown = []
    for trial in Trial:
        if rows := _ci_rows(evidence, trial, topologies):
            shown += [f"{trial}: {counted(rows)}", *few(judge(rows).limits)]
    return shown


def _ci_rows(evidence: Evidence, trial: Trial, topologies: Sequence[str]) -> list[Row]:
    return [
        row
        for row in evidence.rows
        if (row.planned.target in topologies if topologies else row.planned.evidence_class is EvidenceClass.CI)
        and _belongs(row, trial)
    ]
