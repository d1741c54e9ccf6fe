"""`report.json`: the report as data. `docs/schemas/report.schema.json` describes it.

A row is below its topology and its check, `checks` has the facts that all rows of a check share, and a field with its
default is left out. Tables that follow from the rows (the matrix, the feature map, the drivers and the limits) are not
in it: :func:`rows_of` returns the rows, from which `building.py` and `feature_map.py` make them.
"""

from __future__ import annotations

import inspect
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from harness.checks.documented import read_outcome
from harness.model import Expectation, FeatureOutcome, PlannedCheck, Proof, Result
from harness.report.evidence import Row
from harness.report.outcomes import mark_of
from harness.report.proofs import proven
from harness.report.report_file import (
    SCHEMA_VERSION,
    ReportCheck,
    ReportExpectation,
    ReportFile,
    ReportOutcome,
    ReportProof,
    ReportRow,
)
from harness.report.tables import Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.report.topology_rows import TopologyRow

#: the fields of a report that follow from its rows
DERIVED = frozenset(
    (
        *("rows", "limits", "migrations", "faults", "jobs", "loads", "ingest", "features", "drivers"),
        *("feature_topologies", "matrix", "repeated"),
    )
)


def report_file(report: Report) -> ReportFile:
    """Return a report in the form of `report.json`."""
    checks: dict[str, tuple[Any, ...]] = {}
    rows: dict[str, dict[str, ReportRow]] = {}
    topologies = {topology.environment: topology for topology in report.topologies}
    for row in report.rows:
        name, check = row.planned.target, _of_check(row.planned)
        shared = checks.setdefault(row.planned.check, check)
        rows.setdefault(name, {})[row.planned.check] = _row(
            row, topologies.get(name), check=None if check == shared else _check(check), about=report.audit_target
        )
    fields: dict[str, Any] = {name: getattr(report, name) for name in Report.__struct_fields__ if name not in DERIVED}
    return ReportFile(**fields, checks={name: _check(check) for name, check in checks.items()}, rows=rows)


#: the fields that all rows of a check usually share
_of_check = attrgetter(*ReportCheck.__struct_fields__)


def _check(values: tuple[Any, ...]) -> ReportCheck:
    return ReportCheck(**dict(zip(ReportCheck.__struct_fields__, values, strict=True)))


#: the fields that a row has in common with its plan and with its result
_OF_PLAN = ("evidence_class", "declared_as", "out_of_scope", "attempts")
_OF_RESULT = tuple(
    name
    for name in Result.__struct_fields__
    if name in ReportRow.__struct_fields__ and name not in {"check", "expectations", "feature", "reproduce"}
)
_of_plan, _of_result = attrgetter(*_OF_PLAN), attrgetter(*_OF_RESULT)


def _row(row: Row, topology: TopologyRow | None, *, check: ReportCheck | None, about: str) -> ReportRow:
    return ReportRow(
        **dict(zip(_OF_PLAN, _of_plan(row.planned), strict=True)),
        **dict(zip(_OF_RESULT, _of_result(row.result), strict=True)),
        proven=proven(row, about),
        expectations=tuple(map(_expectation, row.result.expectations)),
        feature=_outcome(row.result.feature, mark_of(row.result)) if row.result.feature else None,
        run_id=UNSET if row.run_id == _run_of(topology) else row.run_id,
        runs=row.runs,
        reproduce=UNSET if row.result.reproduce == _command(topology, row.planned.check) else row.result.reproduce,
        proofs=tuple(
            ReportProof(**{name: getattr(proof, name) for name in ReportProof.__struct_fields__})
            for proof in row.proofs
        ),
        check=check,
    )


def _run_of(topology: TopologyRow | None) -> str:
    return topology.run_id if topology else ""


def _command(topology: TopologyRow | None, check: str) -> str:
    """Return the command that reproduces a row, as rows of the topology usually have it."""
    command = topology.command if topology else ""
    return f"{command}{' --' if command.startswith('nox ') else ''} --check {check}"


def _outcome(found: FeatureOutcome, mark: str) -> ReportOutcome:
    return ReportOutcome(
        observed=str(found.observed),
        expected=tuple(map(str, found.expected)),
        mark=mark,
        source=found.source,
        defect=found.defect,
        better=found.better,
        better_than=found.better_than,
    )


def _expectation(found: Expectation) -> ReportExpectation:
    return ReportExpectation(
        name=found.name,
        expected=found.expected,
        observed=UNSET if found.observed == found.expected else found.observed,
        held=found.held,
        consequence=found.consequence,
        counts=found.counts,
    )


def rows_of(file: ReportFile) -> Iterator[Row]:
    """Yield the rows of a document, topology by topology. Of a proof, it has no duration and no broken expectations."""
    topologies = {topology.environment: topology for topology in file.topologies}
    for target, checks in file.rows.items():
        for name, row in checks.items():
            check, topology = row.check or file.checks[name], topologies.get(target)
            reproduce = _command(topology, name) if row.reproduce is UNSET else row.reproduce
            yield Row(
                planned=PlannedCheck(
                    target=target,
                    check=name,
                    reproduce=reproduce,
                    **msgspec.structs.asdict(check),
                    **{name: getattr(row, name) for name in _OF_PLAN},
                ),
                result=Result(
                    target=target,
                    check=name,
                    expectations=tuple(map(_full_expectation, row.expectations)),
                    feature=_full_outcome(row.feature) if row.feature else None,
                    reproduce=reproduce,
                    **{name: getattr(row, name) for name in _OF_RESULT},
                ),
                run_id=_run_of(topology) if row.run_id is UNSET else row.run_id,
                runs=row.runs,
                proofs=tuple(
                    Proof(topology=target, check=name, **msgspec.structs.asdict(proof)) for proof in row.proofs
                ),
            )


def _full_outcome(found: ReportOutcome) -> FeatureOutcome:
    return FeatureOutcome(
        observed=read_outcome(found.observed),
        expected=tuple(map(read_outcome, found.expected)),
        source=found.source,
        defect=found.defect,
        better=found.better,
        better_than=found.better_than,
    )


def _full_expectation(found: ReportExpectation) -> Expectation:
    observed = found.expected if found.observed is UNSET else found.observed
    return Expectation(**(msgspec.structs.asdict(found) | {"observed": observed}))


def encoded(report: Report) -> Iterable[str]:
    """Yield the document in pieces: a field on each line, and each topology, check and row on a line of its own."""
    file = report_file(report)
    yield "{"
    for number, name in enumerate(ReportFile.__struct_fields__):
        yield f'{"," if number else ""}\n"{name}": '
        if name == "rows":
            yield from _lines(file.rows, lambda checks: _lines(checks, _compact))
        elif name == "checks":
            yield from _lines(file.checks, _compact)
        else:
            yield from _compact(getattr(file, name))
    yield "\n}\n"


def _compact(value: object) -> Iterable[str]:
    return [msgspec.json.encode(value).decode()]


def _lines(values: dict[str, Any], entry: Any) -> Iterator[str]:
    yield "{"
    for number, (name, value) in enumerate(values.items()):
        yield f"{',' if number else ''}\n{msgspec.json.encode(name).decode()}: "
        yield from entry(value)
    yield "\n}"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of `report.json`."""
    found = msgspec.json.schema(ReportFile)
    for definition in found["$defs"].values():
        if "description" in definition:
            # msgspec before 0.23 keeps the indentation of docstrings
            definition["description"] = inspect.cleandoc(definition["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"report.json of pooler-harness, version {SCHEMA_VERSION}",
        **found,
    }
