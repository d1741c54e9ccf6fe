"""The STG-02 rubric: one row for each audited path in each environment, with the results of its other aspects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import EvidenceClass, Status
from harness.report.outcomes import is_shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.report.evidence import Evidence, Row

#: what is missing for each kind of path, if an environment declares none
_MISSING = {
    "HTTP": "in scope and not yet exercised: no audited write by an HTTP request is declared",
    "job": "in scope and not yet exercised: no audited write by a job is declared",
}
_CALLED = {
    "two-callers": "two concurrent callers",
    "repeated": "repeated",
    "failure": "failure midway",
    "no-trigger": "audit trigger missing",
}
#: the fact that holds what the check of an aspect observed
_OBSERVED = {"repeated": "the second time", "no-trigger": "without the audit trigger"}


class PathRow(Struct, frozen=True, kw_only=True):
    """One row of the STG-02 rubric."""

    path: str
    kind: str
    status: Status
    evidence: str
    notes: str
    #: where its evidence is: the environment and the check; "" for a path that nobody declares
    target: str = ""
    check: str = ""


def path_rows(evidence: Evidence, hosts: Iterable[str] = ()) -> tuple[PathRow, ...]:
    """Return a row for each declared path and environment, and a Not run row for each kind that none declares.

    :param hosts: the environments that an operator named, verified or not. The paths of the reference host are not
        theirs, so a kind may be missing even if the reference host's paths are OK.
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
        rows += [_missing(environment, kind) for kind in _MISSING if (environment, kind) not in kinds]
    return tuple(rows)


def _missing(environment: str, kind: str) -> PathRow:
    write = "a job" if kind == "job" else "an HTTP request"
    where = f" on {environment}" if environment else ": your own host"
    reason = (
        _MISSING[kind] if environment else "in scope and not yet exercised: no environment of class host is declared"
    )
    return PathRow(
        path=f"an audited write by {write}{where}", kind=kind, status=Status.NOT_RUN, evidence="", notes=reason
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
        return PathRow(
            path=path,
            kind=kind,
            status=Status.NA,
            evidence="",
            notes=main.result.reason,
            target=environment,
            check=main.planned.check,
        )
    # an Issue in any aspect makes the path an Issue, whatever the status of the path itself is
    shown = next((row for row in (main, *aspects.values()) if row.status is Status.ISSUE), main)
    notes = [
        *_notes_on_path(main, shown),
        *_notes_on_aspects(aspects, main),
        _evidence_class(evidence, environment, is_host=is_host),
    ]
    return PathRow(
        path=path,
        kind=kind,
        status=shown.status,
        evidence=shown.result.reproduce,
        notes="; ".join(filter(None, notes)),
        target=environment,
        check=shown.planned.check,
    )


def _notes_on_path(main: Row, shown: Row) -> tuple[str, ...]:
    """Return the notes on the path itself; "" for those that do not apply."""
    transaction = main.result.facts.get("audit transaction", "")
    status = "" if shown is main else f"the path itself: {main.status}"
    limit = f"documented limit: {main.result.limit.outcome}" if main.result.limit else ""
    return status, main.result.reason, limit, f"audit transaction {transaction}" if transaction else ""


def _notes_on_aspects(aspects: dict[str, Row], main: Row) -> list[str]:
    """Return a note on each aspect, unless its status and reason are those of the path itself."""
    notes = []
    for aspect, row in aspects.items():
        repeats = main.result.reason and (row.status, row.result.reason) == (main.status, main.result.reason)
        if aspect and is_shown(*row.answer) and not repeats:
            observed = row.result.facts.get(_OBSERVED.get(aspect, ""), "").partition(":")[0]
            detail = observed if row.status is Status.OK else row.result.reason
            notes.append(f"{_CALLED.get(aspect, aspect)}: {row.status}" + (f", {detail}" if detail else ""))
    return notes


def _evidence_class(evidence: Evidence, environment: str, *, is_host: bool) -> str:
    if not is_host:
        return "CI-class: the reference host, not yours"
    found = evidence.environments.get(environment)
    if found and found.is_a_lab:
        return "CI-class: servers that the harness started, not yours"
    versions = ", ".join(found.versions.values()) if found else ""
    return "host-class: the operator's own host" + (f" ({versions})" if versions else "")
