"""The rows of the evidence that a readiness area or a workflow names, sorted by what they let be said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Status
from harness.report.evidence import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.evidence import Evidence

_FEW = 5
_PATH = "path."
_NOT_OWED = ("failure", "no-trigger")


class Judged(Struct, frozen=True, kw_only=True):
    """Rows sorted by what they do to a stance, as sentences."""

    rows: tuple[Row, ...]
    broken: tuple[str, ...]
    absent: tuple[str, ...]
    limits: tuple[str, ...]
    not_applicable: tuple[str, ...]


def is_of(row: Row, name: str) -> bool:
    """Say whether a row is of a check, or of a suite."""
    check = row.planned.check
    return check == name or ("." not in name and check.partition(".")[0] == name)


def rows_of(evidence: Evidence, checks: Sequence[str], topologies: Sequence[str]) -> list[Row]:
    return [
        row
        for row in evidence.rows
        # an environment is meant only where it is named: most checks are not safe there
        if (row.planned.target in topologies if topologies else row.planned.evidence_class is EvidenceClass.CI)
        and any(is_of(row, name) for name in checks)
    ]


def never_planned(evidence: Evidence, checks: Sequence[str], topologies: Sequence[str]) -> list[str]:
    """Return a sentence for each check and topology that the evidence has no row of."""
    missing = []
    for name in checks:
        planned_in = {row.planned.target for row in rows_of(evidence, (name,), topologies)}
        if not planned_in:
            missing.append(
                f"no row of the evidence is of {name}" + (f" in {', '.join(topologies)}" if topologies else "")
            )
        else:
            missing += [
                f"no row of the evidence is of {name} in {each}" for each in topologies if each not in planned_in
            ]
    return missing


def path_rows(evidence: Evidence, environment: str, path: str) -> list[Row]:
    """Return the rows of an audited path and of its aspects in an environment."""
    whole = f"{_PATH}{path}"
    return [
        row
        for row in evidence.of(environment)
        if (
            row.planned.path.name == path
            if row.planned.path
            else row.planned.check == whole or row.planned.check.startswith(f"{whole}-")
        )
        # what is not safe where others work is owed on topologies, and not there
        and not (row.status is Status.NOT_RUN and row.planned.path and row.planned.path.aspect in _NOT_OWED)
    ]


def not_by_the_host(evidence: Evidence, environment: str, paths: Sequence[str]) -> list[str]:
    """Return a sentence for each path that no host-class row shows to be OK."""
    if not paths:
        return []
    if not environment:
        return [f"no environment is named in which the host took {', '.join(paths)}"]
    record = evidence.records.get(environment)
    missing = []
    if record is not None and record.evidence_class is not EvidenceClass.HOST:
        missing.append(
            f"the evidence of {environment} is {record.evidence_class}-class: the harness's own, not the host's"
        )
    for path in paths:
        rows = path_rows(evidence, environment, path)
        main = [row for row in rows if row.planned.check == f"{_PATH}{path}"]
        if not main or record is None:
            missing.append(f"nobody has taken the path {path} in {environment}")
        missing += [said(row) for row in main if row.status is Status.NA]
    return missing


def judge(rows: Sequence[Row]) -> Judged:
    issues = [row for row in rows if row.status is Status.ISSUE]
    limits = [said(row) for row in issues if row.result.known]
    limits += [
        f"{row.planned.check} in {row.planned.target}: {row.result.limit.outcome} ({row.result.limit.source})"
        for row in rows
        if row.result.limit
    ]
    return Judged(
        rows=tuple(rows),
        broken=tuple(said(row) for row in issues if not row.result.known),
        absent=tuple(said(row) for row in rows if row.status is Status.NOT_RUN),
        limits=tuple(limits),
        not_applicable=tuple(said(row) for row in rows if row.status is Status.NA),
    )


def said(row: Row) -> str:
    """Return what a row that is not OK says, in one sentence."""
    known = row.result.known
    status = f"known Issue of {known.owner}, {known.link}" if known else str(row.status)
    return f"{row.planned.check} in {row.planned.target} is {status}: {row.result.reason}"


def few(sentences: Sequence[str]) -> list[str]:
    more = [f"and {len(sentences) - _FEW} more like these"] if len(sentences) > _FEW else []
    return [*sentences[:_FEW], *more]


def counted(rows: Sequence[Row]) -> str:
    if not rows:
        return "no rows"
    counts = {status: sum(row.status is status for row in rows) for status in Status}
    topologies = dict.fromkeys(row.planned.target for row in rows)
    told = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    return f"{told} in {', '.join(topologies)}"


def commands_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return one command for each topology: with the checks where they are few, else with their suites."""
    by_topology: dict[str, list[Row]] = {}
    for row in rows:
        by_topology.setdefault(row.planned.target, []).append(row)
    commands = []
    for each in by_topology.values():
        checks = [row.planned.check for row in each]
        chosen = (
            [f"--check {check}" for check in checks]
            if len(checks) <= _FEW
            else [f"--suite {suite}" for suite in dict.fromkeys(check.partition(".")[0] for check in checks)]
        )
        commands.append(each[0].result.reproduce.replace(f"--check {checks[0]}", " ".join(chosen)))
    return tuple(dict.fromkeys(filter(None, commands)))
