"""The STG-02 rubric: one row for each audited path in each environment, with what else was tried with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Status

if TYPE_CHECKING:
    from harness.report.evidence import Evidence, Row

_NOBODY = {
    "HTTP": "in scope and not yet exercised: no audited write by an HTTP request is declared",
    "job": "in scope and not yet exercised: no audited write by a job is declared",
}
_CALLED = {
    "two-callers": "two callers at a time",
    "repeated": "the same twice",
    "failure": "a failure in the middle",
    "no-trigger": "the audit trigger missing",
}
#: the fact in which an aspect says what it saw
_SAW = {"repeated": "the second time", "no-trigger": "without the audit trigger"}


class PathRow(Struct, frozen=True, kw_only=True):
    """One row of the STG-02 rubric."""

    path: str
    kind: str
    status: Status
    evidence: str
    notes: str


def path_rows(evidence: Evidence) -> tuple[PathRow, ...]:
    """Return the rows of what was declared, by path and environment; and what is owed where nothing was."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in evidence.rows:
        if path := row.planned.path:
            found.setdefault((path.name, row.planned.topology), {})[path.aspect] = row
    rows = [_row(evidence, topology, aspects) for (_, topology), aspects in found.items() if "" in aspects]
    kinds = {row.kind for row in rows}
    rows += [
        PathRow(
            path=f"an audited write by {'a job' if kind == 'job' else 'an HTTP request'}",
            kind=kind,
            status=Status.NOT_RUN,
            evidence="",
            notes=why,
        )
        for kind, why in _NOBODY.items()
        if kind not in kinds
    ]
    return tuple(rows)


def _row(evidence: Evidence, name: str, aspects: dict[str, Row]) -> PathRow:
    main = aspects[""]
    record = evidence.records.get(name)
    is_host = bool(name in evidence.environments or (record and record.evidence_class is EvidenceClass.HOST))
    found = evidence.environments.get(name)
    versions = ", ".join(found.versions.values()) if found else ""
    whose = "host-class: the operator's own host" if is_host else "CI-class: the reference host, not yours"
    whose += f" ({versions})" if versions else ""
    status = main.status
    if status is Status.OK and any(each.status is Status.ISSUE for each in aspects.values()):
        status = Status.ISSUE
    path = main.planned.path
    label = f"{path.title} ({path.name}) on {name}" if path else name
    return PathRow(
        path=label,
        kind=path.kind if path else "",
        status=status,
        evidence=main.result.reproduce if status is not Status.NA else "",
        notes="; ".join(filter(None, (main.result.reason, _told(main), *_others(aspects, main), whose)))
        if status is not Status.NA
        else main.result.reason,
    )


def _told(main: Row) -> str:
    transaction = main.result.facts.get("audit transaction", "")
    return f"audit transaction {transaction}" if transaction and main.status is Status.OK else ""


def _others(aspects: dict[str, Row], main: Row) -> list[str]:
    """Say what else was tried and what came of it; what was not is named with its reason."""
    told = []
    for aspect, row in aspects.items():
        if not aspect or (row.status is main.status and row.result.reason == main.result.reason):
            continue
        saw = row.result.facts.get(_SAW.get(aspect, ""), "").partition(":")[0]
        more = (saw if row.status is Status.OK else row.result.reason) or ""
        told.append(f"{_CALLED.get(aspect, aspect)} {row.status}" + (f": {more}" if more else ""))
    return told
