"""The STG-02 rubric: one row for each audited path in each environment, with what else was tried with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.report.evidence import Evidence, Row

_OWED = {
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


def path_rows(evidence: Evidence, hosts: Iterable[str] = ()) -> tuple[PathRow, ...]:
    """Return the rows of what was declared, by path and environment; and what each environment still owes.

    :param hosts: the environments that an operator named, verified or not. Paths of the reference host are none of
        theirs, so what is owed is owed also where those are OK.
    """
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in evidence.rows:
        if path := row.planned.path:
            found.setdefault((path.name, row.planned.target), {})[path.aspect] = row
    hosts = tuple(hosts)
    rows, kinds = [], set()
    for (_, environment), aspects in found.items():
        if "" in aspects:
            is_host = environment in hosts or _is_host(evidence, environment)
            rows.append(_row(evidence, environment, aspects, is_host=is_host))
            kinds.add((environment, rows[-1].kind))
    for environment in hosts or ("",):
        for kind, why in _OWED.items():
            if (environment, kind) not in kinds:
                rows.append(_owed(environment, kind, why))
    return tuple(rows)


def _owed(environment: str, kind: str, why: str) -> PathRow:
    what = "a job" if kind == "job" else "an HTTP request"
    where = f" on {environment}" if environment else ": your own host"
    reason = why if environment else "in scope and not yet exercised: no environment of class host is declared"
    return PathRow(
        path=f"an audited write by {what}{where}", kind=kind, status=Status.NOT_RUN, evidence="", notes=reason
    )


def _is_host(evidence: Evidence, environment: str) -> bool:
    record = evidence.records.get(environment)
    return environment in evidence.environments or (record is not None and record.evidence_class is EvidenceClass.HOST)


def _row(evidence: Evidence, environment: str, aspects: dict[str, Row], *, is_host: bool) -> PathRow:
    main = aspects[""]
    label = main.planned.path
    title, name, kind = (label.title, label.name, label.kind) if label else ("", "", "")
    path = f"{title} ({name}) on {environment}"
    if main.status is Status.NA:
        return PathRow(path=path, kind=kind, status=Status.NA, evidence="", notes=main.result.reason)
    # an aspect that is an Issue makes the path one, whatever became of the path itself
    shown = next((each for each in (main, *aspects.values()) if each.status is Status.ISSUE), main)
    notes = filter(None, (*_told(main, shown), *_others(aspects, main), _whose(evidence, environment, is_host=is_host)))
    return PathRow(path=path, kind=kind, status=shown.status, evidence=shown.result.reproduce, notes="; ".join(notes))


def _whose(evidence: Evidence, environment: str, *, is_host: bool) -> str:
    if not is_host:
        return "CI-class: the reference host, not yours"
    found = evidence.environments.get(environment)
    versions = ", ".join(found.versions.values()) if found else ""
    return "host-class: the operator's own host" + (f" ({versions})" if versions else "")


def _told(main: Row, shown: Row) -> tuple[str, ...]:
    """Say what came of the path itself."""
    transaction = main.result.facts.get("audit transaction", "")
    itself = "" if shown is main else f"once {main.status}"
    limit = f"a limit: {main.result.limit.outcome}" if main.result.limit else ""
    return itself, main.result.reason, limit, f"audit transaction {transaction}" if transaction else ""


def _others(aspects: dict[str, Row], main: Row) -> list[str]:
    """Say what else was tried and what came of it; what was not is named with its reason."""
    told = []
    for aspect, row in aspects.items():
        said = main.result.reason and (row.status, row.result.reason) == (main.status, main.result.reason)
        if aspect and not said:
            saw = row.result.facts.get(_SAW.get(aspect, ""), "").partition(":")[0]
            more = saw if row.status is Status.OK else row.result.reason
            told.append(f"{_CALLED.get(aspect, aspect)} {row.status}" + (f": {more}" if more else ""))
    return told
