"""The rows that a readiness area or a workflow names, and the sentences that they contribute to its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Status
from harness.report.evidence import Row
from harness.report.outcomes import is_shown, reliability_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.evidence import Evidence

_FEW = 5
_PATH = "path."


class Judged(Struct, frozen=True, kw_only=True):
    """Rows, and a sentence for each row that limits what they show."""

    rows: tuple[Row, ...]
    #: Issues that are not known, and not in quarantine
    broken: tuple[str, ...]
    #: rows that are Not run, and rows whose verdict is not reliable: flaky, or in quarantine
    absent: tuple[str, ...]
    #: known Issues and documented limits
    limits: tuple[str, ...]
    not_applicable: tuple[str, ...]


def is_of(row: Row, name: str) -> bool:
    """Return whether a row belongs to a check or a suite."""
    check = row.planned.check
    return check == name or ("." not in name and check.partition(".")[0] == name)


def rows_of(evidence: Evidence, checks: Sequence[str], topologies: Sequence[str]) -> list[Row]:
    return [
        row
        for row in evidence.rows
        # most checks are not safe in an environment, so an environment counts only if it is named
        if (row.planned.target in topologies if topologies else row.planned.evidence_class is EvidenceClass.CI)
        and any(is_of(row, name) for name in checks)
    ]


def never_planned(evidence: Evidence, checks: Sequence[str], topologies: Sequence[str]) -> list[str]:
    """Return a sentence for each check that has no row in the evidence, or none in some of the topologies."""
    missing = []
    for name in checks:
        planned_in = {row.planned.target for row in rows_of(evidence, (name,), topologies)}
        absent = [topology for topology in topologies if topology not in planned_in]
        if absent or not planned_in:
            missing.append(f"the evidence has no row for {name}" + (f" in {', '.join(absent)}" if absent else ""))
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
        and is_shown(*row.answer)  # topologies cover the aspects that are not safe in a shared environment
    ]


def not_by_the_host(evidence: Evidence, environment: str, paths: Sequence[str]) -> list[str]:
    """Return a sentence for each path that no host-class row shows to be OK."""
    if not paths:
        return []
    if not environment:
        return [f"no environment is named in which the host ran {', '.join(paths)}"]
    record = evidence.records.get(environment)
    missing = []
    found = evidence.environments.get(environment)
    if record is not None and record.evidence_class is not EvidenceClass.HOST:
        missing.append(
            f"the evidence of {environment} is {record.evidence_class}-class: the harness ran the path, not the host"
        )
    if found and found.is_a_lab:
        missing.append(f"the evidence of {environment} is CI-class: the harness started its servers")
    for path in paths:
        rows = path_rows(evidence, environment, path)
        main = [row for row in rows if row.planned.check == f"{_PATH}{path}"]
        if not main or record is None:
            missing.append(f"no run has exercised the path {path} in {environment}")
        missing += [sentence_of(row) for row in main if row.status is Status.NA]
    return missing


def judge(rows: Sequence[Row]) -> Judged:
    """Sort rows by their effect on a stance."""
    issues = [row for row in rows if row.status is Status.ISSUE and not _is_unreliable(row)]
    limits = [sentence_of(row) for row in issues if row.result.known]
    limits += [
        f"{row.planned.check} in {row.planned.target}: {row.result.limit.outcome} ({row.result.limit.source})"
        for row in rows
        if row.result.limit
    ]
    return Judged(
        rows=tuple(rows),
        broken=tuple(sentence_of(row) for row in issues if not row.result.known),
        absent=tuple(sentence_of(row) for row in rows if row.status is Status.NOT_RUN or _is_unreliable(row)),
        limits=tuple(limits),
        not_applicable=tuple(sentence_of(row) for row in rows if row.status is Status.NA),
    )


def _is_unreliable(row: Row) -> bool:
    """Return whether the verdict of a row shows nothing; that of a flaky Issue shows that it may fail."""
    return row.result.quarantine is not None or (row.result.flaky and row.status is not Status.ISSUE)


def sentence_of(row: Row) -> str:
    """Return check, topology, status and reason of a row in one sentence."""
    known = row.result.known
    status = f"a known Issue (owner {known.owner}, {known.link})" if known else str(row.status)
    said = ": ".join(filter(None, (status, row.result.reason)))
    reliability = reliability_of(row.result)
    return f"{row.planned.check} in {row.planned.target} is {said}{f'; {reliability}' if reliability else ''}"


def few(sentences: Sequence[str]) -> list[str]:
    """Return the first sentences, and how many more there are."""
    more = [f"and {len(sentences) - _FEW} more"] if len(sentences) > _FEW else []
    return [*sentences[:_FEW], *more]


def counted(rows: Sequence[Row]) -> str:
    """Return the number of rows by status, and their topologies, in words."""
    if not rows:
        return "no rows"
    counts = {status: sum(row.status is status for row in rows) for status in Status}
    topologies = dict.fromkeys(row.planned.target for row in rows)
    limited = sum(row.result.limit is not None for row in rows)
    apart = {Status.OK: f" ({limited} with a documented limit)" if limited else ""}
    by_status = [f"{number} {status}{apart.get(status, '')}" for status, number in counts.items() if number]
    return f"{', '.join(by_status)} in {', '.join(topologies)}"


def commands_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return one command for each topology: with its checks if they are few, else with their suites."""
    by_topology: dict[str, list[Row]] = {}
    for row in rows:
        by_topology.setdefault(row.planned.target, []).append(row)
    commands = []
    for rows_of_topology in by_topology.values():
        checks = [row.planned.check for row in rows_of_topology]
        chosen = (
            [f"--check {check}" for check in checks]
            if len(checks) <= _FEW
            else [f"--suite {suite}" for suite in dict.fromkeys(check.partition(".")[0] for check in checks)]
        )
        commands.append(rows_of_topology[0].result.reproduce.replace(f"--check {checks[0]}", " ".join(chosen)))
    return tuple(dict.fromkeys(filter(None, commands)))
