"""The building of the tables: from the evidence, and from what the project declares, to the rows of the report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.model import Section, Status
from harness.report.environment_rows import environment_questions, environment_row
from harness.report.evidence import worst
from harness.report.feature_map import driver_table, feature_map
from harness.report.histories import stored_histories
from harness.report.ingest_rows import ingest_rows
from harness.report.job_engine_rows import job_engines
from harness.report.job_rows import job_rows
from harness.report.limits import LimitKind, limit_kind
from harness.report.load_rows import fault_rows, load_rows
from harness.report.migration_rows import migration_rows
from harness.report.outcomes import (
    KNOWN_DEFECT,
    accepted_as,
    count,
    is_shown,
    mark_of,
    outcome_of,
    reliability_of,
    text_of,
    word_of,
)
from harness.report.path_rows import path_rows
from harness.report.proofs import proven
from harness.report.readiness import decide, library_of, readiness
from harness.report.repetition import consecutive_runs, quarantine_rows, repeated_rows
from harness.report.scope import asked_for, scoped
from harness.report.tables import Declared, IssueRow, LimitRow, MatrixCell, MatrixRow, ParityRow, Report
from harness.report.topology_rows import questions, topology_row
from harness.report.trials import trial_rows
from harness.report.verdicts import verdicts
from harness.report.walkthrough import TITLES, walk
from harness.suites.commands import NOTES, log_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.host.readiness_file import Workflow
    from harness.model import Result, RunRecord
    from harness.report.evidence import Evidence, Row


def build_report(evidence: Evidence, reports: Path, declared: Declared | None = None) -> Report:
    """Return the rows of every table.

    Tables have the rows that a run was asked for. The checklist and the readiness count all of them.

    :param reports: the folder of the report; links into the evidence are relative to it.
    :param declared: what the project declares; nothing if None.
    """
    declared = declared or Declared()
    compared = dict.fromkeys(evidence.environments, "") | declared.environments
    records = evidence.shown
    newest = records[-1] if records else None
    begin, end = evidence.span()
    asked = scoped(evidence)
    # the order of all rows: what was asked for may begin with the rows of any topology
    has_rows = set(asked.names())
    counted = [name for name in evidence.names() if name in has_rows]
    hosts = {name: environment_row(evidence, name, reports, compared) for name in evidence.names() if name in compared}
    # an environment that an operator declares is owed: without a run, it is Not run in STG-01 and STG-02
    names = [name for name in evidence.names() if name in hosts or name in counted]
    audited = tuple(
        row for row in evidence.rows if asked_for(row) or (row.planned.path and row.planned.target in hosts)
    )
    of_topologies = replace(asked, rows=tuple(row for row in asked.rows if row.planned.target not in hosts))
    features, drivers = feature_map(of_topologies), driver_table(of_topologies)
    mapped = {name for group in features for row in group.rows for name in row.cells} | {
        name for row in drivers for name in row.cells
    }
    return Report(
        commit=newest.provenance.commit if newest else "",
        commits=tuple(dict.fromkeys(record.provenance.commit for record in records if record.provenance.commit)),
        dirty=any(record.provenance.dirty for record in records),
        tool_version=newest.provenance.tool_version if newest else "",
        audit_target=newest.target_name if newest else "",
        target_summary=declared.target_summary,
        evidence_from=begin,
        evidence_to=end,
        subjects=tuple(dict.fromkeys(_subjects(evidence))),
        status=worst(row.status for row in evidence.rows if is_shown(*row.answer)),
        verdicts=verdicts(evidence, counted),
        counts={name: count(row.answer for row in asked.of(name)) for name in counted},
        topologies=tuple(hosts[name][0] if name in hosts else topology_row(asked, name, reports) for name in names),
        hosts=tuple(hosts),
        questions={
            name: environment_questions(*hosts[name]) if name in hosts else questions(asked, name) for name in names
        },
        paths=path_rows(replace(evidence, rows=audited), hosts),
        parity=_parity(asked, reports),
        migrations=migration_rows(asked.rows, lambda row: _output(evidence, row, reports)),
        preflight=declared.preflight,
        readiness=readiness(declared.readiness, evidence),
        decisions=tuple(
            decide(workflow, evidence, library_version=_library(evidence, workflow, newest))
            for workflow in declared.workflows
        ),
        walkthrough=tuple(
            walk([row for row in evidence.rows if row.planned.target not in hosts], declared.attestations)
        ),
        issues=_issues(evidence),
        limits=_limits(evidence),
        features=features,
        drivers=drivers,
        feature_topologies=tuple(name for name in counted if name in mapped),
        matrix=_matrix(asked, newest.target_name if newest else ""),
        rows=asked.rows,
        histories=stored_histories(asked.rows, evidence.folders, reports),
        trials=trial_rows(evidence, counted),
        faults=fault_rows(asked.rows, evidence.series),
        jobs=job_rows(asked.rows),
        loads=load_rows(asked.rows),
        job_engines=job_engines(asked.rows, counted),
        ingest=ingest_rows(asked.rows),
        consecutive=consecutive_runs(evidence),
        repeated=repeated_rows(asked.rows),
        quarantine=quarantine_rows(evidence, declared.quarantine, declared.expired_quarantine),
        trail_proofs=tuple(evidence.trail_proofs.values()),
        observed_proofs=tuple(evidence.observed_proofs.values()),
        unjudged=declared.unjudged,
        unobserved=tuple(check for check in dict.fromkeys(declared.limited) if _holds_without_limit(asked, check)),
        edited=evidence.edited,
        notes=tuple(
            dict.fromkeys(
                [note for name in names if name in evidence.topologies for note in evidence.topologies[name].notes]
                + list(evidence.left_out)
            )
        ),
    )


def _holds_without_limit(evidence: Evidence, check: str) -> bool:
    """Return whether a check ran, and is OK everywhere without a limit."""
    ran = [row for row in evidence.rows if row.planned.check == check and row.status in {Status.OK, Status.ISSUE}]
    return bool(ran) and all(row.status is Status.OK and row.result.limit is None for row in ran)


def _subjects(evidence: Evidence) -> Iterator[str]:
    """Yield the revision of each foreign command, and of migrations: the commit in the header is the harness's own."""
    for name, subject in evidence.subjects().items():
        if name.startswith(("command.", "migrations.")):
            commit = subject.facts.get("commit", "")[:12]
            at = f"commit {commit}" if commit else f"files {subject.facts.get('files', 'unknown')}"
            dirty = subject.facts.get("uncommitted changes", "none") != "none"
            where = f" of {subject.folder}" if subject.folder else ""
            # migrations have several checks about one revision
            what = "migrations" if name.startswith("migrations.") else name
            yield f"{what}: {at}{where}{' with uncommitted changes' if dirty else ''}"


def _library(evidence: Evidence, workflow: Workflow, newest: RunRecord | None) -> str:
    """Return the version of the library under test: this project's for its reference layer, else the declared one."""
    if newest is not None and newest.target_name == "reference":
        return newest.provenance.tool_version
    return library_of(evidence, workflow.environment)


def _parity(evidence: Evidence, reports: Path) -> tuple[ParityRow, ...]:
    return tuple(
        ParityRow(
            check=f"{row.planned.claim}, on {row.planned.target}",
            target=row.planned.target,
            id=row.planned.check,
            status=row.status,
            command=row.result.reproduce,
            notes=_parity_notes(row.result),
            output=_output(evidence, row, reports),
        )
        for row in evidence.rows
        if row.planned.section is Section.COMMANDS
    )


def _output(evidence: Evidence, row: Row, reports: Path) -> str:
    """Return the address of the output of a command, relative to the folder of the report; "" if it is not there."""
    folder = evidence.folders.get(row.run_id)
    if folder is None:
        return ""
    log = folder / "logs" / row.planned.target / f"{log_of(row.planned.check, row.result.attempt)}.log"
    return os.path.relpath(log, reports) if log.is_file() else ""


def _parity_notes(result: Result) -> str:
    """Return the reason of a row, what else speaks about its tests, and the login that the command had."""
    login, _, _ = result.facts.get("role", "").partition(":")
    return "; ".join(filter(None, (result.reason, result.facts.get(NOTES, ""), login and f"login: {login}")))


#: the prefix of issue ids for sections that are not in the walkthrough
_PREFIX = {
    Section.POOLING: "PL",
    Section.PATHS: "PATH",
    Section.ENVIRONMENT: "ENV",
    Section.RESILIENCE: "FAULT",
    Section.SOAK: "SOAK",
    Section.JOBS: "JOBS",
    Section.INGEST: "INGEST",
    Section.MIGRATIONS: "MIGR",
    Section.COMMANDS: "CMD",
}


def _issue_id(row: Row) -> str:
    if row.planned.section not in TITLES:
        return f"{_PREFIX[row.planned.section]}.{row.planned.check}.{row.planned.target}"
    section = list(Section).index(row.planned.section) + 1
    return f"AP-{section}.{row.planned.check.partition('.')[2]}.{row.planned.target}"


def _issues(evidence: Evidence) -> tuple[IssueRow, ...]:
    issues = [
        IssueRow(
            severity=row.result.severity or row.planned.severity,
            id=_issue_id(row),
            symptom=_symptom(row),
            area=row.planned.area,
            owner=entry.owner if entry else "unassigned",
            link=entry.link if entry else "",
            accepted=accepted_as(row.result),
            command=row.result.reproduce,
            topology=row.planned.target,
            check=row.planned.check,
        )
        for row in evidence.rows
        if row.status is Status.ISSUE
        for entry in [row.result.known or row.result.quarantine]
    ]
    return tuple(sorted(issues, key=lambda issue: (issue.severity, issue.id)))


def _symptom(row: Row) -> str:
    """Return the part that failed, with what was expected and observed. The rest of the claim may hold."""
    said = f"; {text}" if (text := reliability_of(row.result)) else ""
    if outcome := outcome_of(row.result):
        expected = " or ".join(map(str, outcome.expected))
        defect = " (a known defect)" if mark_of(row.result) == KNOWN_DEFECT else ""
        return f"{row.planned.feature}: expected {expected}, observed {outcome.observed}{defect}{said}"
    return f"{row.result.reason}{said}; the check is: {row.planned.claim}"


def _limits(evidence: Evidence) -> tuple[LimitRow, ...]:
    order = list(LimitKind)
    limits: dict[tuple[LimitKind, str, str, str], list[Row]] = {}
    for row in evidence.rows:
        limit, kind = row.result.limit, limit_kind(*row.answer)
        if limit and kind:
            limits.setdefault((kind, row.planned.check, limit.outcome, limit.source), []).append(row)
    return tuple(
        LimitRow(
            kind=kind,
            topologies=tuple(row.planned.target for row in rows),
            outcome=outcome,
            check=check,
            source=source,
        )
        for (kind, check, outcome, source), rows in sorted(limits.items(), key=lambda found: order.index(found[0][0]))
    )


def _matrix(evidence: Evidence, about: str) -> tuple[MatrixRow, ...]:
    by_check: dict[str, dict[str, Row]] = {}
    for row in evidence.rows:
        by_check.setdefault(row.planned.check, {})[row.planned.target] = row
    matrix = []
    for check, rows in by_check.items():
        first = next(iter(rows.values())).planned
        matrix.append(
            MatrixRow(
                check=check,
                claim=first.claim,
                severity=first.severity,
                section=first.section,
                cells={name: _matrix_cell(row, about) for name, row in rows.items() if is_shown(*row.answer)},
            )
        )
    return tuple(matrix)


def _matrix_cell(row: Row, about: str) -> MatrixCell:
    result, kind = row.result, limit_kind(*row.answer)
    return MatrixCell(
        status=row.status,
        outcome=text_of(result),
        word=word_of(result),
        mark=", ".join(
            filter(
                None,
                (
                    mark_of(result) or (kind.word if kind else "known" if result.known else ""),
                    "flaky" if result.flaky else "",
                    "quarantined" if result.quarantine else "",
                ),
            )
        ),
        proven=proven(row, about),
    )
